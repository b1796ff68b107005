//! Bytes on the wire and the values they stand for: no state, no IO, no decisions.

pub mod auth;
pub mod beacon;
pub mod cluster;
mod frames;
pub mod mark;
pub mod percent;
pub mod registry;
pub mod websocket;

pub use frames::Frames;
