//! The protocol of middleman: services and clients publish, subscribe, ask and answer.
//!
//! A key says whether a connection is a service, which may do everything, or a client, which may do
//! what a service has allowed (`login`). What a message means is decided by the broker
//! (`proto::middleman`), behind one lock (`hub`); what it has others hear is in their outboxes
//! before that lock is free, so that the order of one sender is the same everywhere.

mod drops;
mod hub;
mod login;
mod meters;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use prometheus::proto::MetricFamily;

pub use self::drops::MiddlemanDrop;
use self::hub::{Hub, Reading};
use self::login::Login;
use super::Plan;
use crate::cluster::ChannelOwner;
use crate::config::{Config, KeyDigest, LONGEST_KEY, MIDDLEMAN};
use crate::metrics::Drop;
use crate::peers::{Credential, End, Overflow, Principal, Takeover};
use crate::proto::middleman::{ConnectionId, Role};
use crate::relay::{Delivery, Flow, Head, Message as Routed, Router, Turn};
use crate::session::{
    Answer, Close, Conversation, Dialect, Door, DoorData, Kind, Messages, Outcome, Refusal,
    Session, Task, TopicOrder, Topics, Welcome,
};
use crate::wire::Framing;
use crate::wire::middleman::{Guid, Message, WELCOME};
use crate::wire::name::{Name, Realm, Spelling};
use crate::wire::websocket::{CloseCode, Opcode};

/// The name space of its peers: their GUIDs.
pub const REALM: Realm = Realm(3);

/// Least room of an outbox beside two messages of the longest kind, one of them in flight.
const BESIDE: usize = 65_536;

/// Bytes that a message may become longer on its way: who it is from, what identifies the request
/// that it answers, and header lines as the relay writes them.
const GROWTH: usize = 2_048;

/// Of so many peers, one is kept free of clients, whose key many know.
const SERVICES_SHARE: usize = 8;

/// The door, for the server.
pub(super) fn plan() -> Plan {
    let spelling = Spelling {
        door: MIDDLEMAN.name,
        show: |bytes, f| f.write_str(&String::from_utf8_lossy(bytes)),
        parse: |text| text.parse::<Guid>().ok().map(|guid| guid.text().to_vec()),
    };
    Plan::new(&MIDDLEMAN, REALM, spelling, |parts| {
        let door = Arc::new(Middleman::new(Arc::clone(parts.router), parts.config));
        let weak: Weak<dyn Delivery> = Arc::<Middleman>::downgrade(&door);
        parts.router.serve(REALM, weak);
        let hub: Weak<dyn ChannelOwner> = Arc::<Hub>::downgrade(&door.hub);
        parts.router.own_channels(REALM, hub);
        parts.router.traffic().register(MiddlemanDrop::REASONS);
        door
    })
}

/// The door.
pub struct Middleman {
    router: Arc<Router>,
    login: ArcSwap<Login>,
    hub: Arc<Hub>,
    /// Sessions of clients, and how many there may be.
    clients: Arc<AtomicUsize>,
    most_clients: AtomicUsize,
    max_message: usize,
    outbox_bytes: usize,
    /// What the GUIDs of this relay have in common.
    maker: [u8; 5],
}

/// What a session has of its login.
struct Connection {
    guid: Guid,
    role: Role,
    key: KeyDigest,
    tells_guid: bool,
    /// Its place among the clients, where it is one.
    _place: Option<Place>,
    /// What the broker calls it, once the session can be found.
    id: OnceLock<ConnectionId>,
}

/// A client's place.
struct Place(Arc<AtomicUsize>);

impl std::ops::Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for Middleman {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Middleman").finish_non_exhaustive()
    }
}

/// What the login of a session has left.
fn connection(data: &DoorData) -> &Connection {
    let connection = data.as_ref().and_then(|data| data.downcast_ref());
    connection.expect("a session of the door has what its login left")
}

/// Sends a client away.
const fn refuse(reason: &'static str, outcome: Outcome) -> Refusal {
    let close = if matches!(outcome, Outcome::AtCapacity) {
        Close::new(CloseCode::TryAgain, "at capacity")
    } else {
        Close::new(CloseCode::Policy, "auth failed")
    };
    Refusal { reason: Some(reason), ..Refusal::new(outcome, Some(close)) }
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system has randomness once it has booted");
    bytes
}

impl Middleman {
    fn new(router: Arc<Router>, config: &Config) -> Self {
        let maker = random();
        let max_message = config.middleman.as_ref().map_or(0, |door| door.max_message);
        Self {
            router,
            login: ArcSwap::from_pointee(Login::new(config)),
            hub: Arc::new(Hub::new(config, maker)),
            clients: Arc::default(),
            most_clients: AtomicUsize::new(most_clients(config)),
            max_message,
            outbox_bytes: config.outbox_bytes.max(2 * max_message + BESIDE),
            maker,
        }
    }

    /// A name that says which relay has made it, and that nobody guesses.
    fn guid(&self) -> Guid {
        Guid::of_maker(self.maker, random())
    }

    fn log_in(&self, kind: Kind, message: &[u8]) -> Result<Welcome, Refusal> {
        if kind != Kind::Text {
            return Err(refuse("not_text", Outcome::AuthFail));
        }
        let key = KeyDigest::of(message);
        let login = self.login.load();
        let role = login.role(&key).ok_or_else(|| refuse("key", Outcome::AuthFail))?;
        let place = match role {
            Role::Service => None,
            Role::Client => Some(self.place_of_client()?),
        };
        let guid = self.guid();
        let connection = Connection {
            guid,
            role,
            key,
            tells_guid: login.tells_guid,
            _place: place,
            id: OnceLock::new(),
        };
        Ok(Welcome {
            principal: Principal {
                name: Name::new(REALM, &guid.text()),
                // Of a name that nobody else has, nobody asks for it.
                credential: Credential(KeyDigest::of(&guid.text()).0),
            },
            takeover: Takeover::Refuse,
            framing: Framing::Text,
            overflow: Overflow::EvictOldest,
            takes: self.max_message,
            outbox_bytes: Some(self.outbox_bytes),
            is_patient: false,
            data: Some(Arc::new(connection)),
        })
    }

    fn place_of_client(&self) -> Result<Place, Refusal> {
        let most = self.most_clients.load(Ordering::Relaxed);
        let one_more = |clients| (clients < most).then_some(clients + 1);
        let taken = self.clients.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        match taken {
            Ok(_) => Ok(Place(Arc::clone(&self.clients))),
            Err(_) => Err(refuse("too_many_clients", Outcome::AtCapacity)),
        }
    }

    /// What a message is.
    fn read(
        &self,
        turn: &mut Turn<'_>,
        reading: &mut Reading<'_>,
        session: &Session,
        connection: &Connection,
        (kind, message): (Kind, &[u8]),
    ) -> Routed {
        let dropped = |reason| Routed::Dropped { reason, dest: None };
        if !session.is_open() {
            return dropped(Drop::SESSION_ENDED);
        }
        if kind != Kind::Text {
            session.end(End::Violation);
            return dropped(MiddlemanDrop::NOT_TEXT);
        }
        let length = message.len();
        let message = match Message::parse(message) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(peer = %session.id(), %error, "a peer broke the protocol's rules");
                session.end(End::Violation);
                return dropped(MiddlemanDrop::MALFORMED);
            }
        };
        let Some(id) = connection.id.get() else { return dropped(Drop::SESSION_ENDED) };
        let taken = if length + GROWTH > self.max_message {
            reading.refuse_length(*id, &message, turn)
        } else {
            reading.take(*id, &message, turn)
        };
        match taken {
            Ok(()) => Routed::Handled,
            Err(reason) => dropped(reason),
        }
    }

    /// Ends a session whose key is not what it was any more.
    fn end_if_withdrawn(&self, session: &Session) {
        let Connection { key, role, .. } = connection(&session.data);
        if session.is_open() && self.login.load().role(key) != Some(*role) {
            tracing::info!(peer = %session.id(), "ended a session: its key was removed");
            session.end(End::KeyWithdrawn);
        }
    }
}

/// Most sessions of clients.
const fn most_clients(config: &Config) -> usize {
    config.max_peers - config.max_peers / SERVICES_SHARE
}

impl Door for Middleman {
    fn name(&self) -> &'static str {
        MIDDLEMAN.name
    }

    /// Clients that are web pages are of any.
    fn admits_origin(&self, _origin: &str) -> bool {
        true
    }

    fn dialect(&self) -> Dialect {
        // What is no UTF-8 is no message.
        Dialect { takes_any_text: true, echoes_close: true, ..Dialect::default() }
    }

    fn max_greeting(&self) -> usize {
        LONGEST_KEY
    }

    fn max_message(&self) -> usize {
        self.max_message
    }

    fn greet<'a>(
        &'a self,
        conversation: &'a mut Conversation<'_>,
    ) -> Answer<'a, Result<Welcome, Refusal>> {
        Box::pin(async move {
            let (kind, message) = conversation.receive().await?;
            self.log_in(kind, &message)
        })
    }

    /// The key may have been removed meanwhile.
    fn greet_again<'a>(&'a self, welcome: &'a Welcome) -> Answer<'a, Result<(), Refusal>> {
        let Connection { key, role, .. } = connection(&welcome.data);
        let still = self.login.load().role(key) == Some(*role);
        let refused = || refuse("key", Outcome::AuthFail);
        Box::pin(std::future::ready(still.then_some(()).ok_or_else(refused)))
    }

    fn accept(&self, session: &Session) {
        session.push_control(Opcode::Text, WELCOME.as_bytes());
        let Connection { guid, tells_guid, .. } = connection(&session.data);
        if *tells_guid {
            session.push_control(Opcode::Text, &guid.text());
        }
    }

    fn opened(&self, session: &Arc<Session>) {
        let Connection { guid, role, id, .. } = connection(&session.data);
        match self.hub.connect(session, *role, *guid) {
            Some(connected) => _ = id.set(connected),
            // Another has the name: random numbers do not repeat, but nobody waits for that.
            None => return session.end(End::Failed),
        }
        // Settings that came meanwhile did not find the session.
        self.end_if_withdrawn(session);
    }

    fn closed(&self, session: &Arc<Session>) {
        if let Some(id) = connection(&session.data).id.get() {
            self.hub.disconnect(*id, Instant::now());
        }
    }

    fn messages(&self, session: &Arc<Session>, messages: Messages<'_>, now: Instant) {
        let kind = messages.kind;
        let connection = connection(&session.data);
        let mut reading = self.hub.reading();
        self.router.take(self, session, messages.frames, now, move |turn, message| {
            self.read(turn, &mut reading, session, connection, (kind, message))
        });
    }

    fn update(&self, config: &Config) {
        self.login.store(Arc::new(Login::new(config)));
        self.most_clients.store(most_clients(config), Ordering::Relaxed);
        self.hub.update(config);
        let sessions = self.router.table().all_sessions();
        let ours = sessions.iter().filter(|session| session.id().realm() == REALM);
        ours.for_each(|session| self.end_if_withdrawn(session));
    }

    fn families(&self, families: &mut Vec<MetricFamily>) {
        self.hub.families(families);
    }

    fn numbers(&self, numbers: &mut BTreeMap<&'static str, usize>) {
        self.hub.numbers(numbers);
    }

    fn topics(&self, order: TopicOrder, most: usize) -> Option<Topics> {
        Some(self.hub.topics(order, most))
    }

    fn tasks(&self) -> Vec<Task> {
        let hub = Arc::clone(&self.hub);
        vec![Task::new("middleman requests", async move { hub.keep_time().await })]
    }
}

/// Peers send each other nothing past the broker.
impl Delivery for Middleman {
    fn head(&self, _: &Flow, _: &Session) -> Head {
        Head::new(&[])
    }

    fn has(&self, _: Name) -> bool {
        false
    }
}
