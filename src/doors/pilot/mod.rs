//! The door of the Pilot overlay's nodes that hold a WebSocket.
//!
//! A node proves its Ed25519 key; what its packets mean is the [`PacketSink`]'s. So the listener
//! can be embedded in another program: give it keys and something that takes packets.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use beacon_relay::doors::pilot::{Login, Pilot, per_packet};
//! use beacon_relay::ids::{NodeId, PublicKey};
//! use beacon_relay::session::Settings;
//!
//! let keys = |node: NodeId| (node.number() == 7).then_some(PublicKey([7; 32]));
//! let sink = per_packet(|node, packet: &[u8]| eprintln!("{node} sent {} bytes", packet.len()));
//! let pilot = Pilot::new(keys, sink, Login::default());
//! let server = pilot.listen(Settings::new("127.0.0.1:0".parse().unwrap()))?;
//! println!("listening on {:?}", server.addr());
//! server.close().await;
//! # Ok(())
//! # }
//! ```

mod background;
mod beacon_list;
mod canary;
mod deliver;
pub mod directory;
mod drops;
mod login;
mod overlay;
mod own_addresses;
mod refusals;
mod sink;
mod withdrawals;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus::proto::MetricFamily;

use crate::config::Config;
use crate::doors::pilot::directory::{Keys, Listed, Lookup};
use crate::ids::{NodeId, PublicKey};
use crate::metrics::{Labelled, family};
use crate::net::listener::Listener;
use crate::peers::{Credential, End, Table};
use crate::session::{
    self, Answer, Conversation, Door, Enrolment, Kind, Known, Messages, Notified, Refusal, Server,
    Session, Settings, Spec, Welcome,
};
use crate::wire::auth::{AUTH_OK, Control, Generation, MAX_REPLY};
use crate::wire::beacon::MAX_WSS_PACKET;
use crate::wire::name::Name;
use crate::wire::websocket::Opcode;

pub use crate::proto::login::RefusalReason;
pub use background::tasks;
pub use canary::{Canary, CanaryError, script as canary_script};
pub use deliver::deliver;
pub use drops::PilotDrop;
pub use overlay::{
    Beacons, Buckets, DISCOVER, GrantQueue, NotNotified, Overlay, PUNCH, PunchRules, Rules,
};
pub use sink::{PacketSink, PerPacket, per_packet};

/// The name and the paths of this door.
pub use crate::config::PILOT as KIND;

/// The subprotocol that daemons offer.
const SUBPROTOCOL: &str = "pilot.v1";

/// What nodes have to prove, and how.
#[derive(Clone, Debug)]
pub struct Login {
    /// The public name, which offers the third generation of logins.
    pub relay_name: Option<String>,
    /// The earliest generation of logins that is accepted.
    pub min_generation: Generation,
}

impl Default for Login {
    fn default() -> Self {
        Self { relay_name: None, min_generation: Generation::First }
    }
}

impl From<&Config> for Login {
    fn from(config: &Config) -> Self {
        Self {
            relay_name: config.relay_name.as_ref().map(|name| name.as_str().to_owned()),
            min_generation: match config.min_auth_generation {
                3 => Generation::Third,
                2 => Generation::Second,
                _ => Generation::First,
            },
        }
    }
}

/// The door. All listeners that speak it share one.
pub struct Pilot {
    keys: Arc<dyn Keys>,
    sink: Arc<dyn PacketSink>,
    login: ArcSwap<Login>,
    refusals: Labelled<RefusalReason>,
    /// The key of the relay's own client, which only this process knows.
    canary: ed25519_dalek::SigningKey,
}

impl std::fmt::Debug for Pilot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pilot").field("login", &self.login).finish_non_exhaustive()
    }
}

impl Pilot {
    /// A door that takes these keys and gives packets to `sink`.
    ///
    /// # Panics
    /// The system has no randomness, which it has once it has booted.
    #[must_use]
    pub fn new(keys: impl Keys, sink: impl PacketSink, login: Login) -> Arc<Self> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the system has randomness once it has booted");
        Arc::new(Self {
            keys: Arc::new(keys),
            sink: Arc::new(sink),
            login: ArcSwap::from_pointee(login),
            refusals: Labelled::default(),
            canary: ed25519_dalek::SigningKey::from_bytes(&seed),
        })
    }

    /// Binds the address of the settings and serves this door there, over a table of its own.
    /// Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// What the system says of the address.
    pub fn listen(self: &Arc<Self>, settings: Settings) -> io::Result<Server> {
        let table = Arc::new(Table::new(settings.max_peers, 0));
        let listener = Listener::tcp(settings.bind)?;
        let doors: Vec<Arc<dyn Door>> = vec![Arc::clone(self) as Arc<dyn Door>];
        let spec = Spec { listener, settings, doors, tls: None, quic: None, runtime: None };
        Ok(Server::serve(vec![spec], table, Arc::default(), None))
    }

    fn canary_key(&self) -> PublicKey {
        PublicKey(self.canary.verifying_key().to_bytes())
    }
}

impl Door for Pilot {
    fn name(&self) -> &'static str {
        KIND.name
    }

    fn subprotocol(&self) -> Option<&'static str> {
        Some(SUBPROTOCOL)
    }

    /// The overlay's own pages.
    fn admits_origin(&self, origin: &str) -> bool {
        origin.starts_with("pilot://")
    }

    fn max_greeting(&self) -> usize {
        MAX_REPLY
    }

    /// SPEC §3.6.
    fn max_message(&self) -> usize {
        MAX_WSS_PACKET
    }

    fn greet<'a>(
        &'a self,
        conversation: &'a mut Conversation<'_>,
    ) -> Answer<'a, Result<Welcome, Refusal>> {
        Box::pin(self.log_in(conversation))
    }

    fn greet_again<'a>(&'a self, welcome: &'a Welcome) -> Answer<'a, Result<(), Refusal>> {
        Box::pin(self.look_again(welcome))
    }

    fn while_waiting(&self, kind: Kind, message: &[u8]) -> Result<(), Refusal> {
        match kind {
            Kind::Text if Control::decode(message) == Control::Bye => Err(Refusal::goodbye()),
            Kind::Text => Ok(()),
            // Packets before the acceptance are nobody's.
            Kind::Binary => Err(self.refuse(RefusalReason::Malformed)),
        }
    }

    fn accept(&self, session: &Session) {
        session.push_control(Opcode::Text, AUTH_OK.as_bytes());
    }

    /// The key may have gone between its look-up and here, where nobody found this session.
    fn opened(&self, session: &Arc<Session>) {
        if !session.is_hidden {
            let Credential(key) = session.principal.credential;
            self.keys.session_began(node_of(session), PublicKey(key));
        }
    }

    fn update(&self, config: &Config) {
        self.login.store(Arc::new(Login::from(config)));
    }

    fn numbers(&self, numbers: &mut BTreeMap<&'static str, usize>) {
        numbers.insert("beacons", self.sink.beacons());
    }

    fn foreign_server(&self) -> Option<&'static str> {
        Some("beacon")
    }

    fn knows(&self, peer: Name) -> Answer<'_, Option<Known>> {
        Box::pin(async move {
            let Some(node) = peer.node_id() else { return Some(Known::Unknown) };
            Some(match self.keys.lookup(node).await {
                Lookup::Key(_) => Known::Known,
                Lookup::Unknown => Known::Unknown,
                Lookup::Unavailable => Known::Unavailable,
            })
        })
    }

    fn enrolment(&self, peer: Name) -> Option<Enrolment> {
        let Listed { source, is_embedded, key } = self.keys.listed(peer.node_id()?)?;
        Some(Enrolment { source, is_embedded, credential: key.map(|key| key.to_string()) })
    }

    fn notify(&self, peer: Name, now: Instant) -> Result<Notified, session::NotNotified> {
        let refused = session::NotNotified::Refused;
        let Some(node) = peer.node_id() else {
            return Err(refused(format!("{peer} is no node: only nodes are notified")));
        };
        self.sink.notify(node, now).map_err(|error| match error {
            NotNotified::NotHere => session::NotNotified::NotHere,
            NotNotified::TooSoon(_) | NotNotified::TooMany | NotNotified::Quiet => {
                refused(format!("node {node} was not notified: {error}"))
            }
        })
    }

    fn families(&self, families: &mut Vec<MetricFamily>) {
        families.push(family::labelled(
            "pilot_beacon_wss_refusals_total",
            "Refused logins, by the reason that the client is not told.",
            "reason",
            &self.refusals,
        ));
        self.sink.families(families);
    }

    fn messages(&self, session: &Arc<Session>, messages: Messages<'_>, now: Instant) {
        match messages.kind {
            Kind::Binary => self.sink.packets(session, messages.frames, now),
            Kind::Text => {
                if messages.frames.iter().any(|text| Control::decode(text) == Control::Bye) {
                    session.end(End::PeerLeft);
                }
            }
        }
    }
}

/// The node that a session of this door is.
///
/// # Panics
/// It is a session of another door.
pub(crate) fn node_of(session: &Session) -> NodeId {
    session.id().node_id().expect("who logs in at this door is a node")
}

#[cfg(test)]
mod tests;
