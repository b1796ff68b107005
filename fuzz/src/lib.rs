//! What the fuzz targets check, as functions of their input: a failed check panics.
//!
//! `fuzz_targets` hands them to libFuzzer; the tests of `beacon-proto` include this file and
//! replay `seeds` with it, so that nobody needs libFuzzer for that. The targets `configuration` and
//! `netbird` are not here, since each needs a part of the relay: see `configuration.rs` and
//! `netbird.rs`.

pub mod beacon;
pub mod certificate;
pub mod cluster;
pub mod front;
pub mod keyop;
pub mod login;
pub mod middleman;
pub mod name;
pub mod peerbus;
pub mod presence;
pub mod registry;
pub mod stun;
pub mod websocket;

/// A target: its input is an operator's, a peer's or chance's.
pub type Target = fn(&[u8]);

/// All targets, by the names of their seeds' folders.
pub const TARGETS: [(&str, Target); 13] = [
    ("beacon", beacon::run),
    ("certificate", certificate::run),
    ("cluster", cluster::run),
    ("front", front::run),
    ("keyop", keyop::run),
    ("login", login::run),
    ("middleman", middleman::run),
    ("name", name::run),
    ("peerbus", peerbus::run),
    ("presence", presence::run),
    ("registry", registry::run),
    ("stun", stun::run),
    ("websocket", websocket::run),
];
