//! What daemons need: a relay behind Caddy, or with TLS of its own, and a registry, in the hub
//! of a lab.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use tempfile::TempDir;

use super::lab::{HUB, HUB_NAME, Lab};
use super::stand_in::StandIn;
use crate::caddy::Caddy;
use crate::deploy::nginx::write_certificates;
use crate::harness::Relay;

/// The UDP port of beacons.
const BEACON_PORT: u16 = 9_001;

/// The relay's port, behind Caddy or with TLS.
const WSS_PORT: u16 = 8_443;

/// What daemons meet who connect by WebSocket.
enum Front {
    Caddy(Box<Caddy>),
    /// The relay itself, with a certificate of this folder.
    Own(TempDir),
}

/// One relay with all that is around it.
pub(super) struct Site<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) registry: StandIn,
    pub(super) relay: Option<Relay>,
    front: Front,
    /// Where daemons speak UDP to the relay.
    pub(super) beacon: SocketAddr,
    state: Arc<TempDir>,
}

impl<'lab> Site<'lab> {
    /// Starts all of it, the relay behind Caddy.
    pub(super) fn start(lab: &'lab Lab) -> Self {
        let caddy = Caddy::public(HUB_NAME, HUB, ([127, 0, 0, 1], WSS_PORT).into());
        Self::behind(lab, Front::Caddy(Box::new(caddy)))
    }

    /// Starts all of it, the relay with TLS of its own.
    pub(super) fn with_own_tls(lab: &'lab Lab) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(folder.path(), &[HUB_NAME.to_owned()], 90);
        Self::behind(lab, Front::Own(folder))
    }

    fn behind(lab: &'lab Lab, front: Front) -> Self {
        let beacon = SocketAddr::from((HUB, BEACON_PORT));
        let registry = StandIn::start(HUB, beacon);
        let state = Arc::new(tempfile::tempdir().unwrap());
        let mut site = Self { lab, registry, relay: None, front, beacon, state };
        site.start_relay();
        site
    }

    /// The CA that daemons have to trust.
    pub(super) fn ca(&self) -> PathBuf {
        match &self.front {
            Front::Caddy(caddy) => caddy.ca.clone(),
            Front::Own(folder) => folder.path().join("ca.pem"),
        }
    }

    /// Where daemons connect by WebSocket.
    pub(super) fn url(&self) -> String {
        match &self.front {
            Front::Caddy(caddy) => caddy.url(),
            Front::Own(_) => format!("wss://{HUB_NAME}:{WSS_PORT}/v1/compat"),
        }
    }

    /// Ends the proxy and starts it again.
    pub(super) fn restart_caddy(&mut self) {
        match &mut self.front {
            Front::Caddy(caddy) => caddy.restart(),
            Front::Own(_) => panic!("there is none"),
        }
    }

    /// Starts the relay, the first time and after its end.
    pub(super) fn start_relay(&mut self) {
        // The old one's handle would end nothing, but count what a dead relay says.
        self.relay = None;
        let mut flags = [
            "--udp-bind",
            &format!("[::]:{BEACON_PORT}"),
            "--relay-name",
            HUB_NAME,
            "--registry",
            &self.registry.plain.to_string(),
        ]
        .map(OsString::from)
        .to_vec();
        match &self.front {
            Front::Caddy(_) => {
                flags.extend(["--wss-bind".into(), format!("127.0.0.1:{WSS_PORT}").into()]);
            }
            Front::Own(folder) => {
                flags.extend(["--wss-bind".into(), format!("{HUB}:{WSS_PORT}").into()]);
                for (flag, file) in [("cert", "cert.pem"), ("key", "key.pem")] {
                    flags.push(format!("--wss-tls-{flag}").into());
                    flags.push(folder.path().join(file).into());
                }
            }
        }
        let command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        self.relay = Some(Relay::start_in(Arc::clone(&self.state), command, flags));
    }

    /// The running relay.
    pub(super) fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("the relay runs")
    }
}
