//! The protocol of peerbus: programs such as AI agents register a name, send each other messages,
//! and acknowledge what they got.
//!
//! Messages are the bus's (`bus/`), which keeps them until they are acknowledged. Here a token says
//! who is who (`login`), each message is read and checked, and a peer is what the bus delivers to
//! (`party`). Nobody is ever told that a message was dropped, unless it asked for receipts.

mod budget;
mod connected;
mod drops;
mod login;
mod meters;
mod party;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus::proto::MetricFamily;

use self::budget::{Budgets, Place};
use self::connected::Connected;
pub use self::drops::PeerbusDrop;
use self::login::{Bearer, Login, refuse};
use self::meters::{Handled, Meters};
use self::party::Peer;
use super::Plan;
use crate::bus::front::Names;
use crate::bus::{Address, ClaimError, Handle, Party, To};
use crate::config::{Config, PEERBUS};
use crate::metrics::Drop;
use crate::peers::{Credential, End, Overflow, Principal, Takeover};
use crate::proto::bus::{NotClaimed, Owner};
use crate::proto::limit::Rate;
use crate::relay::{Delivery, Flow, Head, Message as Routed, Router, Turn};
use crate::session::{
    Answer, Close, Conversation, Dialect, Door, DoorData, Kind, Known, Messages, Outcome, Refusal,
    Session, Welcome, farewell,
};
use crate::wire::Framing;
use crate::wire::name::{Name, Realm, Spelling};
use crate::wire::peerbus::{
    self, EVERYBODY, Envelope, MAX_MESSAGE, ReceiptResult, Received, Register,
};
use crate::wire::websocket::{CloseCode, Violation};

/// The name space of its peers.
pub const REALM: Realm = Realm(2);

/// Longest first message, in bytes: a token and a name of the longest kinds, each character
/// escaped. Whoever has not registered may make the relay keep no more.
const MAX_REGISTER: usize = 32_768;

/// Most bytes that wait for a peer: a message of the longest kind in flight, another behind it, and
/// receipts.
const OUTBOX: usize = 2 * MAX_MESSAGE + 65_536;

/// Bytes that a delivery key has beyond the id, where another message has that key.
const KEY_SUFFIX: usize = 17;

/// Longest id of a message, in bytes: clients make 32.
const MAX_ID: usize = 1_024;

/// Longest delivery key, in bytes: of a broadcast, where another message has the key.
const MAX_KEY: usize = MAX_ID + 1 + peerbus::MAX_NAME + KEY_SUFFIX;

/// Names a second in what a peer is told of those that are connected.
const NAMES: Rate = Rate::per_second(100_000).with_burst(1_000_000);

/// The door, for the server.
pub(super) fn plan() -> Plan {
    let spelling = Spelling {
        door: PEERBUS.name,
        show: |bytes, f| f.write_str(&String::from_utf8_lossy(bytes)),
        parse: |text| Some(text.into()),
    };
    Plan::new(&PEERBUS, REALM, spelling, |parts| {
        let bus = parts.bus.expect("a bus is there where a listener has the door");
        let (router, bus) = (Arc::clone(parts.router), bus.clone());
        let door = Arc::new(Peerbus::new(router, bus, parts.config));
        let weak: Weak<dyn Delivery> = Arc::<Peerbus>::downgrade(&door);
        parts.router.serve(REALM, weak);
        parts.router.traffic().register(PeerbusDrop::REASONS);
        door
    })
    .with_messages()
}

/// The door.
pub struct Peerbus {
    router: Arc<Router>,
    bus: Handle,
    login: ArcSwap<Login>,
    connected: Arc<Connected>,
    budgets: Budgets,
    meters: Arc<Meters>,
}

/// What a session has of its login.
struct Registered {
    address: Address,
    wants_receipts: bool,
    /// Its place among the sessions of its credential.
    place: Place,
    /// The peer as the bus sees it, once the session can be found.
    party: OnceLock<Arc<dyn Party>>,
}

impl std::fmt::Debug for Peerbus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peerbus").finish_non_exhaustive()
    }
}

/// What the login of a session has left.
fn registered(data: &DoorData) -> &Registered {
    let registered = data.as_ref().and_then(|data| data.downcast_ref());
    registered.expect("a session of the door has what its login left")
}

impl Peerbus {
    fn new(router: Arc<Router>, bus: Handle, config: &Config) -> Self {
        let login = Login::new(config);
        bus.reserve(REALM, login.literal_names());
        let connected = Arc::<Connected>::default();
        let names: Weak<dyn Names> = Arc::<Connected>::downgrade(&connected);
        bus.watch_names(REALM, names);
        Self {
            router,
            bus,
            login: ArcSwap::from_pointee(login),
            connected,
            budgets: Budgets::default(),
            meters: Arc::default(),
        }
    }

    fn refuse(&self, refusal: peerbus::Refusal, name: Option<Name>) -> Refusal {
        self.meters.refused.of(refusal).increment();
        refuse(refusal, name)
    }

    async fn register(&self, kind: Kind, message: &[u8]) -> Result<Welcome, Refusal> {
        if kind != Kind::Text {
            return Err(self.refuse(peerbus::Refusal::NotText, None));
        }
        let register = Register::parse(message).map_err(|refusal| self.refuse(refusal, None))?;
        let name = Name::new(REALM, register.name.as_bytes());
        let refuse = |refusal| self.refuse(refusal, Some(name));
        let admitted = self.login.load().admits(&register.token, &register.name);
        let Bearer { owner, most_sessions } = admitted.map_err(refuse)?;
        // A session that takes over from another is one more until that has ended.
        let most = if self.connected.has(&register.name) { usize::MAX } else { most_sessions };
        let place = self.budgets.of(owner).place(most);
        let place = place.ok_or_else(|| refuse(peerbus::Refusal::TooMany))?;
        let claimed = self.bus.claim(REALM, (&*register.name).into(), Owner(owner)).await;
        let address = claimed.map_err(|why| match why {
            ClaimError::NotClaimed(NotClaimed::Taken) => refuse(peerbus::Refusal::Claimed),
            ClaimError::NotClaimed(_) | ClaimError::Unanswered(_) => {
                refuse(peerbus::Refusal::NotStored)
            }
        })?;
        let registered = Registered {
            address,
            wants_receipts: register.receipts,
            place,
            party: OnceLock::new(),
        };
        Ok(Welcome {
            principal: Principal { name, credential: Credential(owner) },
            takeover: Takeover::SameCredential,
            framing: Framing::Text,
            overflow: Overflow::Refuse,
            takes: MAX_MESSAGE,
            outbox_bytes: Some(OUTBOX),
            is_patient: false,
            data: Some(Arc::new(registered)),
        })
    }

    /// What a message is.
    fn read(
        &self,
        turn: &Turn<'_>,
        session: &Arc<Session>,
        registered: &Registered,
        message: &[u8],
    ) -> Routed {
        let dropped = |reason| Routed::Dropped { reason, dest: None };
        let received = match Received::parse(message) {
            Ok(received) => received,
            Err(reading) => {
                let reason = drops::of_reading(reading.reason);
                self.tell_of(session, registered, &reading.id, reason);
                return dropped(reason);
            }
        };
        let what = match received {
            Received::Ignored => Handled::Ignored,
            Received::Ack { key } if key.len() > MAX_KEY => return dropped(PeerbusDrop::LONG_ID),
            Received::Ack { key } => {
                let party = registered.party.get().expect("messages come once the session is open");
                self.bus.acknowledge(&registered.address, party, &key);
                Handled::Ack
            }
            Received::Peers => {
                if let Err(reason) = turn.admit_request(NAMES, 1 + self.connected.len()) {
                    return dropped(reason);
                }
                session.push_notice(&self.connected.frame(registered.address.name()));
                session.flush(turn.now);
                Handled::Peers
            }
            Received::Envelope(envelope) => match self.submit(registered, &envelope, turn.now) {
                Ok(()) => Handled::Envelope,
                Err(reason) => {
                    self.tell_of(session, registered, &envelope.id, reason);
                    return dropped(reason);
                }
            },
        };
        self.meters.handled.add(what, 1);
        Routed::Handled
    }

    /// Gives a message to the bus.
    fn submit(
        &self,
        registered: &Registered,
        envelope: &Envelope<'_>,
        now: Instant,
    ) -> Result<(), Drop> {
        if envelope.id.len() > MAX_ID {
            return Err(PeerbusDrop::LONG_ID);
        }
        if envelope.from != **registered.address.name() {
            return Err(PeerbusDrop::NOT_THE_SENDER);
        }
        if !self.login.load().is_signed(envelope) {
            return Err(PeerbusDrop::FORGED);
        }
        let body = envelope.encode();
        let is_for_everybody = envelope.to == EVERYBODY;
        let more = if is_for_everybody { 1 + self.connected.longest() } else { 0 };
        if peerbus::deliver_length(&envelope.id, body.len()) + more + KEY_SUFFIX > MAX_MESSAGE {
            return Err(PeerbusDrop::TOO_LARGE_TO_DELIVER);
        }
        if is_for_everybody {
            let others = self.connected.len().saturating_sub(1);
            if !registered.place.admits_broadcast(others, body.len(), now) {
                return Err(PeerbusDrop::BROADCAST_RATE);
            }
        }
        let party = registered.party.get().expect("messages come once the session is open");
        let to = if is_for_everybody { To::Everybody } else { To::Name((&*envelope.to).into()) };
        let message = (to, (&*envelope.id).into(), body.into());
        self.bus.submit(&registered.address, party, message, registered.wants_receipts);
        Ok(())
    }

    /// Ends a session whose credential may not have its name any more.
    fn end_if_withdrawn(&self, session: &Session) {
        let address = &registered(&session.data).address;
        if session.is_open() && !self.login.load().has(&address.owner().0, address.name()) {
            tracing::info!(peer = %session.id(), "ended a session: its token was removed");
            session.end(End::KeyWithdrawn);
        }
    }

    /// Tells a sender that asked for receipts why its message was dropped.
    fn tell_of(&self, session: &Session, registered: &Registered, id: &str, reason: Drop) {
        if registered.wants_receipts && !id.is_empty() {
            session.push_notice(&peerbus::receipt(id, ReceiptResult::Refused, reason.label));
            session.flush(Instant::now());
        }
    }
}

impl Door for Peerbus {
    fn name(&self) -> &'static str {
        PEERBUS.name
    }

    fn dialect(&self) -> Dialect {
        Dialect {
            takes_any_text: true,
            echoes_close: true,
            upgrade_required: Some(
                "WebSocket protocol violation: Connection header does not contain Upgrade\n",
            ),
        }
    }

    fn max_greeting(&self) -> usize {
        MAX_REGISTER
    }

    fn max_message(&self) -> usize {
        MAX_MESSAGE
    }

    fn greet<'a>(
        &'a self,
        conversation: &'a mut Conversation<'_>,
    ) -> Answer<'a, Result<Welcome, Refusal>> {
        Box::pin(async move {
            let received = conversation.receive().await;
            let (kind, message) = received.map_err(|refusal| match refusal.close {
                Some(close) if close.code == CloseCode::TooLarge => {
                    self.refuse(peerbus::Refusal::TooLarge, None)
                }
                _ => refusal,
            })?;
            self.register(kind, &message).await
        })
    }

    /// A token may have been withdrawn meanwhile.
    fn greet_again<'a>(&'a self, welcome: &'a Welcome) -> Answer<'a, Result<(), Refusal>> {
        let address = &registered(&welcome.data).address;
        let still = self.login.load().has(&address.owner().0, address.name());
        let name = welcome.principal.name;
        let refused = || self.refuse(peerbus::Refusal::Token, Some(name));
        Box::pin(std::future::ready(still.then_some(()).ok_or_else(refused)))
    }

    fn accept(&self, session: &Session) {
        let registered = registered(&session.data);
        session.push_notice(&self.connected.frame(registered.address.name()));
    }

    fn opened(&self, session: &Arc<Session>) {
        let Registered { address, party, .. } = registered(&session.data);
        let peer = Peer::new(session, Arc::clone(&self.meters));
        let peer: Arc<dyn Party> = Arc::new(peer);
        let party = party.get_or_init(|| peer);
        self.connected.opened(address.name(), session.generation());
        self.bus.open(address, party);
        // Settings that came meanwhile did not find the session.
        self.end_if_withdrawn(session);
    }

    fn closed(&self, session: &Arc<Session>) {
        let Registered { address, .. } = registered(&session.data);
        self.connected.closed(address.name(), session.generation());
        self.bus.close(address, session.generation());
    }

    fn messages(&self, session: &Arc<Session>, messages: Messages<'_>, now: Instant) {
        let kind = messages.kind;
        let registered = registered(&session.data);
        self.router.take(self, session, messages.frames, now, |turn, message| {
            if !session.is_open() {
                Routed::Dropped { reason: Drop::SESSION_ENDED, dest: None }
            } else if kind == Kind::Text {
                self.read(turn, session, registered, message)
            } else {
                Routed::Dropped { reason: PeerbusDrop::NOT_TEXT, dest: None }
            }
        });
    }

    fn update(&self, config: &Config) {
        let login = Login::new(config);
        self.bus.reserve(REALM, login.literal_names());
        self.login.store(Arc::new(login));
        let sessions = self.router.table().all_sessions();
        let ours = sessions.iter().filter(|session| session.id().realm() == REALM);
        ours.for_each(|session| self.end_if_withdrawn(session));
        self.budgets.prune(Instant::now());
    }

    fn families(&self, families: &mut Vec<MetricFamily>) {
        self.meters.families(self.connected.here(), families);
    }

    fn numbers(&self, numbers: &mut BTreeMap<&'static str, usize>) {
        numbers.insert("peerbus_peers", self.connected.here());
    }

    fn knows(&self, peer: Name) -> Answer<'_, Option<Known>> {
        let name = str::from_utf8(peer.bytes()).ok().filter(|_| !peer.is_hashed());
        // Of a long name nobody here has the text.
        let known = name
            .map(|name| if self.login.load().knows(name) { Known::Known } else { Known::Unknown });
        Box::pin(std::future::ready(known))
    }

    fn refusal(&self, outcome: Outcome) -> Option<Close> {
        if outcome == Outcome::Superseded {
            // A newer login of the same peer goes on.
            return None;
        }
        crate::session::refusal(outcome)
    }

    /// As with the original, a connection that is taken over, or that the relay's shutdown ends, is
    /// cut: its client comes back, or knows that another has its place.
    fn farewell(&self, end: End, violation: Option<Violation>) -> Option<Close> {
        match (end, violation) {
            (End::Replaced | End::ShuttingDown, _) => None,
            (End::Violation, Some(Violation::TooLarge)) => {
                let too_large = peerbus::Refusal::TooLarge;
                Some(Close::new(CloseCode::TooLarge, too_large.reason()))
            }
            (End::KeyWithdrawn, _) => {
                Some(Close::new(CloseCode::Policy, peerbus::Refusal::Token.reason()))
            }
            _ => farewell(end, violation),
        }
    }
}

/// Peers send each other nothing past the bus.
impl Delivery for Peerbus {
    fn head(&self, _: &Flow, _: &Session) -> Head {
        Head::new(&[])
    }

    fn has(&self, _: Name) -> bool {
        false
    }
}
