//! Codecs of `beacon-relay`: bytes on the wire and the values they stand for.
//!
//! No state, no IO, no clock, no decisions: those are in `beacon-proto` and in the relay.
//!
//! # Layout
//!
//! - [`name`]: the name of a peer of any door;
//! - [`ids`]: node ids, beacon ids, relay ids and public keys;
//! - [`auth`], [`beacon`] and [`registry`]: the Pilot protocol's login, packets and registry;
//! - [`netbird`]: the relay protocol of NetBird and openZro;
//! - [`peerbus`]: the message bus of AI agents;
//! - [`middleman`]: publications, requests and answers of services and clients;
//! - [`keyop`]: records of channels between federated hubs, over WebSocket and gRPC;
//! - [`certificate`]: what a certificate of X.509 says (RFC 5280);
//! - [`stun`]: what tells a client its own address (RFC 8489);
//! - [`websocket`]: framing of RFC 6455;
//! - [`cluster`]: what relays of a cluster tell each other;
//! - [`front`]: what relays of one message bus tell each other;
//! - [`Frames`], [`Framing`], [`mark`] and [`percent`]: what several of them need.

#![forbid(unsafe_code)]

pub mod auth;
pub mod beacon;
pub mod certificate;
pub mod cluster;
mod frames;
mod framing;
pub mod front;
mod hex;
pub mod ids;
mod json;
pub mod keyop;
pub mod mark;
pub mod middleman;
pub mod name;
pub mod netbird;
pub mod peerbus;
pub mod percent;
pub mod registry;
pub mod stun;
pub mod websocket;

pub use frames::Frames;
pub use framing::Framing;
