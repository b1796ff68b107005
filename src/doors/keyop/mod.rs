//! The protocol of keyop-messenger: hubs and ephemeral clients publish records to channels, and get
//! those of the channels that they subscribe.
//!
//! A peer is who its certificate says. It comes over gRPC (`calls`), or up to v1.4.1 over WebSocket.
//! What it may do is in the allow lists (`policy`). What it publishes is judged, gets this hub's name
//! into its route, and is the bus's (`publish`); an acknowledgement follows the commit (`ingest`).
//! What the bus has for it goes out a batch at a time (`deliver`).

mod audit;
mod calls;
mod connected;
mod deliver;
mod drops;
mod hubs;
mod ingest;
mod meters;
mod policy;
mod publish;
mod websocket;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus::proto::MetricFamily;
use sha2::{Digest as _, Sha256};

use self::audit::Audit;
use self::connected::{Connected, State, Wanted, connected};
use self::deliver::Peer;
pub use self::drops::KeyopDrop;
use self::hubs::Hubs;
use self::ingest::Via;
use self::meters::{Meters, Refused, Speaks};
use self::policy::Policy;
use super::Plan;
use crate::bus::{Handle, Party};
use crate::config::{Config, KEYOP, MOST_KEYOP_RECORD};
use crate::metrics::{Drop, Rarely};
use crate::net::Shown;
use crate::peers::{Credential, End, Overflow, Principal, Takeover};
use crate::proto::bus::Owner;
use crate::relay::{Delivery, Flow, Head, Message as Routed, Router};
use crate::session::{
    self, Answer, Calls, Close, Conversation, Dialect, Door, Kind, Known, Messages, Outcome,
    Refusal, Session, Task, Welcome, farewell,
};
use crate::wire::Framing;
use crate::wire::keyop::grpc::{Method, max_message};
use crate::wire::keyop::websocket::{Hello, Records, hub_hello, read_ack};
use crate::wire::keyop::{Event, NOT_ALLOWED};
use crate::wire::name::{Name, Realm, Spelling};
use crate::wire::websocket::{CloseCode, Violation};

/// The name space of its peers: the common names of their certificates.
pub const REALM: Realm = Realm(4);

/// Longest first message over WebSocket, in bytes: all channels that a peer may name.
const MAX_HELLO: usize = 1_048_576;

/// Channels that a peer may name when it subscribes; the others are passed over.
const MOST_CHANNELS: usize = 4_096;

/// Records of a batch that a peer publishes, at most: each costs more than its bytes until it is
/// stored.
const MOST_RECORDS: usize = 65_536;

/// What is about records in a batch, and acknowledgements.
const BESIDE: usize = 131_072;

/// The door, for the server.
pub(super) fn plan() -> Plan {
    let spelling = Spelling {
        door: KEYOP.name,
        show: |bytes, f| f.write_str(&String::from_utf8_lossy(bytes)),
        parse: |text| Some(text.into()),
    };
    Plan::new(&KEYOP, REALM, spelling, |parts| {
        let bus = parts.bus.expect("a bus is there where a listener has the door");
        let door = Arc::new(Keyop::new(Arc::clone(parts.router), bus.clone(), parts.config));
        let weak: Weak<dyn Delivery> = Arc::<Keyop>::downgrade(&door);
        parts.router.serve(REALM, weak);
        parts.router.traffic().register(KeyopDrop::REASONS);
        door
    })
    .with_messages()
}

/// The door.
pub struct Keyop {
    router: Arc<Router>,
    shared: Arc<Shared>,
    hubs: Arc<Hubs>,
}

/// What sessions of the door have in common.
struct Shared {
    bus: Handle,
    /// The name of this hub, in routes.
    hub: String,
    policy: ArcSwap<Policy>,
    max_record: AtomicUsize,
    meters: Arc<Meters>,
    audit: Audit,
    /// What peers can have the log say as often as they like.
    withdrawals: Rarely,
    crowded: Rarely,
    runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for Keyop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyop").field("hub", &self.shared.hub).finish_non_exhaustive()
    }
}

/// Whose a peer's name is: a certificate that was renewed is the same peer.
pub(crate) fn owner(name: &str) -> [u8; 32] {
    Sha256::new().chain_update("keyop").chain_update(name).finalize().into()
}

impl Keyop {
    fn new(router: Arc<Router>, bus: Handle, config: &Config) -> Self {
        let meters = Arc::<Meters>::default();
        let keyop = config.keyop.as_ref();
        let audit_file = keyop.and_then(|keyop| keyop.audit_file.clone());
        let hub = config.keyop_hub_name();
        let shared = Shared {
            bus,
            hub: hub.expect("the name was found when the configuration was read"),
            policy: ArcSwap::from_pointee(Policy::new(config)),
            max_record: AtomicUsize::new(keyop.map_or(0, |keyop| keyop.max_record)),
            audit: Audit::new(audit_file, Arc::clone(&meters)),
            meters,
            withdrawals: Rarely::default(),
            crowded: Rarely::default(),
            runtime: tokio::runtime::Handle::current(),
        };
        let shared = Arc::new(shared);
        let hubs = Hubs::new(config, &shared, router.table());
        Self { router, shared, hubs }
    }

    fn max_record(&self) -> usize {
        self.shared.max_record.load(Ordering::Relaxed)
    }

    fn refuse(&self, why: Refused, outcome: Outcome, name: Option<Name>) -> Refusal {
        self.shared.meters.refused.of(why).increment();
        let close = match why {
            Refused::NotAllowed => Some(Close::new(CloseCode::NotAllowed, NOT_ALLOWED)),
            Refused::NotClaimed => Some(Close::new(CloseCode::TryAgain, "not stored")),
            // As the original does: a connection that ends without a word.
            Refused::NoCertificate | Refused::Hello => None,
        };
        let reason = Some(crate::metrics::Word::word(why));
        Refusal { reason, id: name, ..Refusal::new(outcome, close) }
    }

    /// Lets a peer in whose certificate has this name.
    async fn welcome(
        &self,
        peer: Arc<str>,
        speaks: Speaks,
        wanted: Option<Wanted>,
    ) -> Result<Welcome, Refusal> {
        let name = Name::new(REALM, peer.as_bytes());
        let owner = owner(&peer);
        let claimed = self.shared.bus.claim(REALM, Arc::clone(&peer), Owner(owner)).await;
        let refused = |_| self.refuse(Refused::NotClaimed, Outcome::Unavailable, Some(name));
        let address = claimed.map_err(refused)?;
        let is_durable = wanted.as_ref().is_some_and(|wanted| !wanted.is_ephemeral);
        let state = State { wanted, ..State::default() };
        // Also of records that were stored when longer ones were taken.
        let takes = MOST_KEYOP_RECORD + BESIDE;
        Ok(Welcome {
            principal: Principal { name, credential: Credential(owner) },
            takeover: Takeover::SameCredential,
            framing: match speaks {
                Speaks::WebSocket => Framing::Framed,
                Speaks::Grpc => Framing::Datagram,
            },
            overflow: Overflow::Refuse,
            takes,
            // Of two batches one may still be in flight.
            outbox_bytes: Some(2 * takes + BESIDE),
            is_patient: is_durable,
            data: Some(Arc::new(Connected::new(peer, address, speaks, state))),
        })
    }

    /// What a peer has to have shown before it says anything.
    fn peer_of(&self, conversation: &Conversation<'_>) -> Result<Arc<str>, Refusal> {
        let Some(certified) = conversation.certified() else {
            return Err(self.refuse(Refused::NoCertificate, Outcome::AuthFail, None));
        };
        let peer = Arc::clone(certified.name());
        if self.shared.policy.load().admits(&peer) {
            return Ok(peer);
        }
        let address = conversation.client().address.to_string();
        self.shared.audit.note(Event {
            event: "client_rejected",
            peer: &peer,
            peer_addr: &address,
            detail: NOT_ALLOWED,
            ..Event::default()
        });
        let name = Name::new(REALM, peer.as_bytes());
        Err(self.refuse(Refused::NotAllowed, Outcome::AuthFail, Some(name)))
    }

    /// Channels that a peer names when it subscribes, as many as it may.
    fn wanted<'a>(
        &self,
        peer: &str,
        mut named: impl Iterator<Item = Cow<'a, str>>,
        is_ephemeral: bool,
    ) -> Wanted {
        let channels = named.by_ref().take(MOST_CHANNELS).map(Cow::into_owned).collect();
        let passed_over = named.count();
        if passed_over > 0 && self.shared.crowded.is_due(Instant::now()) {
            let most = MOST_CHANNELS;
            tracing::warn!(peer, passed_over, most, "a peer names more channels than it may");
        }
        Wanted { channels, is_ephemeral }
    }

    /// Notes in the audit file that a peer has come that only publishes, with its first batch:
    /// whoever subscribes as well has begun to do so before.
    fn note_publisher(&self, session: &Session, peer: &Connected) {
        if !self.shared.audit.is_on() {
            return;
        }
        let is_new = {
            let mut state = peer.state.lock();
            let subscribes = state.calls.iter().any(|call| call.method == Method::Subscribe);
            !subscribes && !std::mem::replace(&mut state.is_noted, true)
        };
        if is_new {
            self.note_connected(session, peer);
        }
    }

    /// Notes in the audit file that a peer has come.
    fn note_connected(&self, session: &Session, peer: &Connected) {
        if !self.shared.audit.is_on() {
            return;
        }
        let channels = {
            let mut state = peer.state.lock();
            state.is_noted = true;
            state.channels.join(",")
        };
        let address = Shown(session.observed).to_string();
        let detail = format!("addr={address} sub=[{channels}] pub=[]");
        self.shared.audit.note(Event {
            event: "client_connected",
            peer: &peer.name,
            peer_addr: &address,
            detail: &detail,
            ..Event::default()
        });
    }

    /// Ends a session whose peer may not come in any more, and has others get what they may have now.
    fn judge_anew(&self, session: &Session) {
        let peer = connected(&session.data);
        if !session.is_open() || peer.party.get().is_none() {
            return;
        }
        if self.shared.policy.load().admits(&peer.name) {
            self.shared.subscribe_anew(peer);
        } else {
            tracing::info!(peer = %session.id(), "ended a session: the peer was removed from the allow list");
            session.end(End::KeyWithdrawn);
        }
    }
}

impl Door for Keyop {
    fn name(&self) -> &'static str {
        KEYOP.name
    }

    fn calls(&self) -> Option<&dyn Calls> {
        Some(self)
    }

    fn admits_origin(&self, _: &str) -> bool {
        // Who comes in is judged by its certificate, and the original does not look either.
        true
    }

    fn dialect(&self) -> Dialect {
        Dialect { takes_any_text: true, echoes_close: true, ..Dialect::default() }
    }

    fn max_greeting(&self) -> usize {
        MAX_HELLO
    }

    fn max_message(&self) -> usize {
        max_message(self.max_record())
    }

    fn greet<'a>(
        &'a self,
        conversation: &'a mut Conversation<'_>,
    ) -> Answer<'a, Result<Welcome, Refusal>> {
        Box::pin(async move {
            if conversation.is_over_http2() {
                let peer = self.peer_of(conversation)?;
                return self.welcome(peer, Speaks::Grpc, None).await;
            }
            let (kind, message) = conversation.receive().await?;
            let peer = self.peer_of(conversation)?;
            let hello = (kind == Kind::Text).then(|| Hello::parse(&message));
            let Some(Ok(hello)) = hello else {
                let name = Name::new(REALM, peer.as_bytes());
                return Err(self.refuse(Refused::Hello, Outcome::Violation, Some(name)));
            };
            let wanted = self.wanted(&peer, hello.subscribe.iter(), hello.is_ephemeral);
            self.welcome(peer, Speaks::WebSocket, Some(wanted)).await
        })
    }

    /// The allow list may be another meanwhile.
    fn greet_again<'a>(&'a self, welcome: &'a Welcome) -> Answer<'a, Result<(), Refusal>> {
        let peer = connected(&welcome.data);
        let still = self.shared.policy.load().admits(&peer.name);
        let name = welcome.principal.name;
        let refused = || self.refuse(Refused::NotAllowed, Outcome::AuthFail, Some(name));
        Box::pin(std::future::ready(still.then_some(()).ok_or_else(refused)))
    }

    fn accept(&self, session: &Session) {
        if connected(&session.data).speaks == Speaks::WebSocket {
            websocket::push_text(session, &hub_hello(&self.shared.hub));
        }
    }

    fn opened(&self, session: &Arc<Session>) {
        let peer = connected(&session.data);
        self.shared.meters.peers_of(peer.speaks).fetch_add(1, Ordering::Relaxed);
        let party = Peer::new(session, Arc::clone(&self.shared));
        let party: Arc<dyn Party> = Arc::new(party);
        let party = peer.party.get_or_init(|| party);
        self.shared.bus.open(&peer.address, party);
        if peer.speaks == Speaks::WebSocket {
            self.shared.subscribe(peer);
            self.note_connected(session, peer);
        }
        // Settings that came meanwhile did not find the session.
        self.judge_anew(session);
    }

    fn closed(&self, session: &Arc<Session>) {
        let peer = connected(&session.data);
        self.shared.meters.peers_of(peer.speaks).fetch_sub(1, Ordering::Relaxed);
        self.shared.count_subscriber(peer, false);
        self.shared.bus.close(&peer.address, session.generation());
        if self.shared.audit.is_on() {
            let end = session.ending().map_or("", |end| crate::metrics::Word::word(end));
            let seconds = session.since.elapsed().as_secs_f64();
            let detail = format!("duration={seconds:.3}s err={end}");
            self.shared.audit.note(Event {
                event: "peer_disconnected",
                peer: &peer.name,
                detail: &detail,
                ..Event::default()
            });
        }
    }

    fn messages(&self, session: &Arc<Session>, messages: Messages<'_>, now: Instant) {
        let kind = messages.kind;
        let peer = connected(&session.data);
        self.router.take(self, session, messages.frames, now, |_, message| {
            if !session.is_open() {
                return Routed::Dropped { reason: Drop::SESSION_ENDED, dest: None };
            }
            if kind == Kind::Text {
                // What is no acknowledgement is ignored, as with the original.
                if let Ok(last_id) = read_ack(message) {
                    self.shared.acknowledged(peer, &last_id);
                }
                return Routed::Handled;
            }
            match Records::parse(message) {
                Ok(records) if records.iter().count() <= MOST_RECORDS => {
                    self.shared.publish(session, Via::WebSocket, records.iter(), now);
                    Routed::Handled
                }
                Ok(_) => {
                    session.end(End::Violation);
                    Routed::Dropped { reason: KeyopDrop::TOO_MANY, dest: None }
                }
                Err(_) => {
                    session.end(End::Violation);
                    Routed::Dropped { reason: KeyopDrop::TRUNCATED, dest: None }
                }
            }
        });
    }

    fn update(&self, config: &Config) {
        self.shared.policy.store(Arc::new(Policy::new(config)));
        if let Some(keyop) = &config.keyop {
            self.shared.max_record.store(keyop.max_record, Ordering::Relaxed);
        }
        let sessions = self.router.table().all_sessions();
        let ours = sessions.iter().filter(|session| session.id().realm() == REALM);
        ours.for_each(|session| self.judge_anew(session));
    }

    fn families(&self, families: &mut Vec<MetricFamily>) {
        self.shared.meters.families(families);
        self.hubs.families(families);
    }

    fn tasks(&self) -> Vec<Task> {
        if !self.hubs.are_some() {
            return Vec::new();
        }
        vec![Task::new("keyop hubs", Arc::clone(&self.hubs).run())]
    }

    fn numbers(&self, numbers: &mut BTreeMap<&'static str, usize>) {
        numbers.insert("keyop_peers", self.shared.meters.sessions());
    }

    fn knows(&self, peer: Name) -> Answer<'_, Option<Known>> {
        let name = str::from_utf8(peer.bytes()).ok().filter(|_| !peer.is_hashed());
        // Of a long name nobody here has the text.
        let known = name.map(|name| {
            if self.shared.policy.load().admits(name) { Known::Known } else { Known::Unknown }
        });
        Box::pin(std::future::ready(known))
    }

    fn refusal(&self, outcome: Outcome) -> Option<Close> {
        if outcome == Outcome::Superseded {
            // A newer login of the same peer goes on.
            return None;
        }
        session::refusal(outcome)
    }

    fn farewell(&self, end: End, violation: Option<Violation>) -> Option<Close> {
        let not_allowed = Close::new(CloseCode::NotAllowed, NOT_ALLOWED);
        match (end, violation) {
            // The original cuts these as well; the client comes back, or knows of the other.
            (End::Replaced, _) => None,
            (End::KeyWithdrawn, _) => Some(not_allowed),
            _ => farewell(end, violation),
        }
    }
}

/// Peers send each other nothing past the bus.
impl Delivery for Keyop {
    fn head(&self, _: &Flow, _: &Session) -> Head {
        Head::new(&[])
    }

    fn has(&self, _: Name) -> bool {
        false
    }
}
