//! Real daemons of the fleet, the maintainers' own binaries, on a relay behind a real
//! Caddy, or with TLS of its own.
//!
//! Each test has a network of its own ([`lab`]): the relay, Caddy and a registry ([`stand_in`])
//! in one namespace, each daemon in another, and no route between daemons, so that whatever
//! reaches another daemon went through the relay.

mod cells;
mod daemon;
mod hostile;
mod identity;
mod lab;
mod moves;
mod operators;
mod recordings;
mod restarts;
mod site;
mod stand_in;
