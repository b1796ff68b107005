//! What daemons need: a relay behind Caddy, and a registry, in the hub of a lab.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::lab::{HUB, HUB_NAME, Lab};
use super::stand_in::StandIn;
use crate::caddy::Caddy;
use crate::harness::Relay;

/// The UDP port of beacons.
const BEACON_PORT: u16 = 9_001;

/// The relay's port behind Caddy.
const WSS_PORT: u16 = 8_443;

/// One relay with all that is around it.
pub(super) struct Site<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) registry: StandIn,
    pub(super) relay: Option<Relay>,
    pub(super) caddy: Caddy,
    /// Where daemons speak UDP to the relay.
    pub(super) beacon: SocketAddr,
    state: Arc<TempDir>,
}

impl<'lab> Site<'lab> {
    /// Starts all of it.
    pub(super) fn start(lab: &'lab Lab) -> Self {
        let beacon = SocketAddr::from((HUB, BEACON_PORT));
        let registry = StandIn::start(HUB, beacon);
        let caddy = Caddy::public(HUB_NAME, HUB, ([127, 0, 0, 1], WSS_PORT).into());
        let state = Arc::new(tempfile::tempdir().unwrap());
        let mut site = Self { lab, registry, relay: None, caddy, beacon, state };
        site.start_relay();
        site
    }

    /// Starts the relay, the first time and after its end.
    pub(super) fn start_relay(&mut self) {
        // The old one's handle would end nothing, but count what a dead relay says.
        self.relay = None;
        let flags = [
            "--udp-bind",
            &format!("[::]:{BEACON_PORT}"),
            "--wss-bind",
            &format!("127.0.0.1:{WSS_PORT}"),
            "--relay-name",
            HUB_NAME,
            "--registry",
            &self.registry.plain.to_string(),
        ];
        let command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        self.relay = Some(Relay::start_in(Arc::clone(&self.state), command, flags));
    }

    /// The running relay.
    pub(super) fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("the relay runs")
    }
}
