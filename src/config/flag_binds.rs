//! The settings that make a listener of one door each, next to `wss_bind`.

use super::DoorKind;
use super::doors::{KEYOP, MIDDLEMAN, NETBIRD, PEERBUS};

/// A setting that makes a listener of one door.
#[derive(Debug)]
pub(super) struct FlagBind {
    /// The key of the setting.
    pub(super) key: &'static str,
    /// Its flag.
    pub(super) flag: &'static str,
    /// Why there is no listener at `wss_bind`, where it is set.
    pub(super) reason: &'static str,
    /// The door, whose name is the listener's as well.
    pub(super) door: &'static DoorKind,
    /// What to do about an address that others than this machine reach.
    pub(super) way_out: &'static str,
}

/// What to do about an address of `wss_bind` that others than this machine reach.
pub(super) const WSS_WAY_OUT: &str =
    "bind to loopback, or add --public-plaintext, --acme or --wss-tls-cert";

/// The same, of a `[[listener]]`.
pub(super) const TABLE_WAY_OUT: &str =
    "bind to loopback, or add public_plaintext = true, acme or tls to its [[listener]]";

/// That of the NetBird door.
pub(super) static NETBIRD_BIND: FlagBind = FlagBind {
    key: "netbird_bind",
    flag: "--netbird-bind",
    reason: "there is --netbird-bind",
    door: &NETBIRD,
    way_out: "bind to loopback, or add --public-plaintext, --netbird-acme or --netbird-tls-cert",
};

/// That of the peerbus door.
pub(super) static PEERBUS_BIND: FlagBind = FlagBind {
    key: "peerbus_bind",
    flag: "--peerbus-bind",
    reason: "there is --peerbus-bind",
    door: &PEERBUS,
    way_out: "bind to loopback, or add --public-plaintext; for TLS write a [[listener]] with tls",
};

/// That of the middleman door.
pub(super) static MIDDLEMAN_BIND: FlagBind = FlagBind {
    key: "middleman_bind",
    flag: "--middleman-bind",
    reason: "there is --middleman-bind",
    door: &MIDDLEMAN,
    way_out: "bind to loopback, or add --public-plaintext; for TLS write a [[listener]] with tls",
};

/// That of the keyop door.
pub(super) static KEYOP_BIND: FlagBind = FlagBind {
    key: "keyop_bind",
    flag: "--keyop-bind",
    reason: "there is --keyop-bind",
    door: &KEYOP,
    way_out: "add --keyop-cert",
};

/// All of them, in the order in which their listeners are served.
pub(super) static FLAG_BINDS: [&FlagBind; 4] =
    [&NETBIRD_BIND, &PEERBUS_BIND, &MIDDLEMAN_BIND, &KEYOP_BIND];
