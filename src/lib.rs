//! `beacon-relay` carries packets between peers that cannot reach each other.
//!
//! # Layout
//!
//! A packet comes in through `session` or `udp`, is routed by `relay`, and leaves through
//! an outbox of `peers` or a socket of `net`. Each module uses only the floors below
//! its own:
//!
//! - floor 8: [`cli`], the subcommands;
//! - floor 7: [`server`], which binds, wires, runs and drains;
//! - floor 6: [`admin`], HTTP for operators, and [`control`], what they tell a relay to do;
//! - floor 5: [`doors`], the protocols;
//! - floor 4: [`session`], the way in over WebSocket;
//! - floor 3: [`relay`], which routes a batch of packets and carries it out, [`bus`], which keeps
//!   messages for peers until they have them, and [`stun`], which tells clients their address;
//! - floor 2: [`udp`], the way in for datagrams, [`peers`], [`cluster`],
//!   [`store`], where messages are durable, and [`log_writer`];
//! - floor 1: [`net`], [`config`] and [`metrics`];
//! - floor 0: the crates `beacon-client`, [`client`] (what a node is made of) with its
//!   [`key_file`], `beacon-mcp` (a host of the Model Context Protocol as a peer of the bus),
//!   `beacon-proto`, [`proto`] (decisions without IO), and `beacon-wire`, [`wire`] (bytes and
//!   values) with its [`ids`], and [`build`], which sources the program is made of.

pub mod admin;
pub mod build;
pub mod bus;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod control;
pub mod doors;
pub mod log_writer;
pub mod metrics;
pub mod net;
pub mod peers;
pub mod relay;
pub mod server;
pub mod session;
pub mod store;
pub mod stun;
pub mod udp;

pub use beacon_client as client;
pub use beacon_client::key_file;
pub use beacon_proto as proto;
pub use beacon_wire as wire;
pub use beacon_wire::ids;
