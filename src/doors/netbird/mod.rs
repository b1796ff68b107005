//! The relay protocol of NetBird and openZro, over WebSocket: clients that cannot reach each
//! other send each other packets, and learn who of those that they look for comes and goes.
//!
//! A token lets a client in and does not say who it is: the last login under a name has it, as
//! with the original, unless `takeover` is told otherwise. `login` judges tokens, `presence` tells
//! who comes and goes, and here each message is what its type says.

mod canary;
mod drops;
mod login;
mod meters;
mod presence;
#[cfg(test)]
mod seeds;
mod takeover;
mod watchers;

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use prometheus::proto::MetricFamily;

pub use self::drops::NetbirdDrop;
use self::login::{Login, unix_now};
use self::meters::Meters;
use self::presence::Presence;
use self::takeover::Takeovers;
use super::Plan;
use crate::config::{Config, NETBIRD};
use crate::metrics::{Drop, Sharded, family};
use crate::net::entrance::Duplex;
use crate::peers::{End, Overflow, Principal};
use crate::proto::limit::{Rate, SourceRates};
use crate::relay::{Delivery, Flow, Head, Message as Routed, Router, Turn};
use crate::session::{
    Answer, Client, Close, Conversation, Door, Heartbeat, Kind, Messages, Outcome, Quic, Refusal,
    Session, Task, VisitError, Welcome,
};
use crate::wire::Framing;
use crate::wire::name::{Name, Realm, Spelling};
use crate::wire::netbird::{
    CLOSING, DecodeError, HEALTHY, MAX_AUTH, MAX_MESSAGE, Message, PeerId, TRANSPORT_HEADER,
    auth_response, transport_header,
};
use crate::wire::websocket::{CloseCode, Opcode, Violation};
use crate::words;

/// The name space of its peers: their ids.
pub const REALM: Realm = Realm(1);

/// Signs of life, as the original sends them: clients end a connection after 35 s without.
const HEARTBEAT: Heartbeat = Heartbeat {
    message: &HEALTHY,
    interval: Duration::from_secs(25),
    silence: Duration::from_secs(45),
};

/// Ids a second in what a peer asks for news of, and does not any more: it may have 10,000 peers,
/// and all of them may go and come back in one moment.
const IDS: Rate = Rate::per_second(10_000).with_burst(50_000);

/// The door, for the server.
pub(super) fn plan() -> Plan {
    let spelling = Spelling {
        door: NETBIRD.name,
        show: |bytes, f| match peer_id(bytes) {
            Some(peer) => write!(f, "{peer}"),
            None => write!(f, "{}", bytes.escape_ascii()),
        },
        parse: |text| text.parse().ok().map(|PeerId(bytes)| bytes.to_vec()),
    };
    Plan::new(&NETBIRD, REALM, spelling, |parts| {
        let door = Arc::new(Netbird::new(Arc::clone(parts.router), parts.config));
        let weak: Weak<dyn Delivery> = Arc::<Netbird>::downgrade(&door);
        parts.router.serve(REALM, weak);
        parts.router.traffic().register(NetbirdDrop::REASONS);
        door
    })
}

/// What a peer may send in a second.
fn rates(config: &Config) -> SourceRates {
    let of_door = config.netbird.as_ref();
    let (packets, bytes) = of_door.map_or((0, 0), |netbird| (netbird.rate, netbird.bytes));
    SourceRates { packets: Rate::per_second(packets.into()), bytes: Rate::per_second(bytes) }
}

fn peer_id(bytes: &[u8]) -> Option<PeerId> {
    bytes.try_into().ok().map(PeerId)
}

fn name(PeerId(bytes): PeerId) -> Name {
    Name::new(REALM, &bytes)
}

/// The peer of a session, or the sender of a packet, of this door: others are never passed here.
fn peer_of(name: Name) -> PeerId {
    peer_id(name.bytes()).unwrap_or(PeerId([0; PeerId::LENGTH]))
}

words! {
    /// What messages for the relay itself were.
    enum Handled {
        /// A sign of life.
        HealthCheck => "health_check",
        /// The client has ended its session.
        Close => "close",
        /// It has subscribed to peers.
        Subscribe => "subscribe",
        /// It has ended subscriptions.
        Unsubscribe => "unsubscribe",
    }
}

/// The door.
pub struct Netbird {
    router: Arc<Router>,
    login: ArcSwap<Login>,
    takeovers: Takeovers,
    rates: ArcSwap<SourceRates>,
    meters: Meters,
    presence: Arc<Presence>,
    handled: Sharded<Handled>,
}

impl std::fmt::Debug for Netbird {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netbird").finish_non_exhaustive()
    }
}

impl Netbird {
    fn new(router: Arc<Router>, config: &Config) -> Self {
        let presence = Presence::new(Arc::clone(router.table()), router.watch(REALM));
        Self {
            login: ArcSwap::from_pointee(Login::new(config)),
            takeovers: Takeovers::new(config),
            rates: ArcSwap::from_pointee(rates(config)),
            meters: Meters::new(),
            presence: Arc::new(presence),
            handled: Sharded::default(),
            router,
        }
    }

    async fn judge(&self, client: &Client, kind: Kind, message: &[u8]) -> Result<Welcome, Refusal> {
        // No client is told why: they all look alike.
        let refused =
            |reason| Refusal { reason: Some(reason), ..Refusal::new(Outcome::AuthFail, None) };
        let auth = match (kind, Message::decode(message)) {
            (Kind::Binary, Ok(Message::Auth(auth))) => auth,
            (Kind::Binary, Ok(_)) => return Err(refused("no_login")),
            (Kind::Text, _) | (Kind::Binary, Err(_)) => return Err(refused("malformed")),
        };
        let name = name(auth.peer);
        if !self.login.load().admits(&auth.token, unix_now()) {
            return Err(refused("token").of(name));
        }
        // The token is anybody's who has one.
        let judged = self.takeovers.judge(self.router.table(), name, client).await;
        let (credential, takeover) = judged.map_err(|reason| refused(reason).of(name))?;
        Ok(Welcome {
            principal: Principal { name, credential },
            takeover,
            framing: Framing::Binary,
            overflow: Overflow::DropOldest,
            takes: MAX_MESSAGE,
            outbox_bytes: None,
            is_patient: false,
            data: None,
        })
    }

    /// What a message is; true where something was queued for its sender.
    fn read(
        &self,
        turn: &mut Turn<'_>,
        session: &Arc<Session>,
        kind: Kind,
        message: &[u8],
    ) -> (Routed, bool) {
        let dropped = |reason| (Routed::Dropped { reason, dest: None }, false);
        let handled = |what, has_answer| {
            if !session.is_hidden {
                self.handled.add(what, 1);
            }
            (Routed::Handled, has_answer)
        };
        if !session.is_open() {
            return dropped(Drop::SESSION_ENDED);
        }
        let decoded = match kind {
            Kind::Binary => Message::decode(message),
            Kind::Text => Err(DecodeError::NoType(0)),
        };
        let decoded = match decoded {
            Ok(message) => message,
            Err(error) if error.is_survived() => return dropped(NetbirdDrop::WRONG_LENGTH),
            Err(error) => {
                tracing::debug!(peer = %session.id(), %error, "a peer broke the protocol's rules");
                session.end(End::Violation);
                return dropped(NetbirdDrop::MALFORMED);
            }
        };
        match decoded {
            Message::HealthCheck => {
                self.takeovers.heard(session);
                handled(Handled::HealthCheck, false)
            }
            Message::Close => {
                session.end(End::PeerLeft);
                handled(Handled::Close, false)
            }
            Message::Auth(_) => dropped(NetbirdDrop::SECOND_LOGIN),
            Message::Transport { dest, .. } => {
                let dest = name(dest);
                match turn.admit(message.len()) {
                    Ok(()) => (Routed::Packet { dest, header: TRANSPORT_HEADER }, false),
                    Err(reason) => (Routed::Dropped { reason, dest: Some(dest) }, false),
                }
            }
            Message::Subscribe(peers) => match turn.admit_request(IDS, peers.iter().len()) {
                Ok(()) if self.presence.subscribe(session, peers) => {
                    handled(Handled::Subscribe, true)
                }
                Ok(()) => {
                    let reason = NetbirdDrop::TOO_MANY_WATCHED;
                    (Routed::Dropped { reason, dest: None }, true)
                }
                Err(reason) => dropped(reason),
            },
            Message::Unsubscribe(peers) => {
                if let Err(reason) = turn.admit_request(IDS, peers.iter().len()) {
                    return dropped(reason);
                }
                self.presence.unsubscribe(session, peers);
                handled(Handled::Unsubscribe, false)
            }
        }
    }
}

impl Door for Netbird {
    fn name(&self) -> &'static str {
        NETBIRD.name
    }

    fn quic(&self) -> Option<Quic> {
        let protocol = NETBIRD.quic?;
        Some(Quic { protocol, code: 0, reason: "normal closure" })
    }

    /// Clients that are web pages are of any.
    fn admits_origin(&self, _origin: &str) -> bool {
        true
    }

    fn max_greeting(&self) -> usize {
        MAX_AUTH
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
            let (kind, message) = received.map_err(|refusal| Refusal { close: None, ..refusal })?;
            let client = *conversation.client();
            self.judge(&client, kind, &message).await
        })
    }

    fn accept(&self, session: &Session) {
        session.push_control(Opcode::Binary, &auth_response(&self.login.load().instance));
        self.takeovers.note(self.router.table(), self.router.traffic(), session);
    }

    fn opened(&self, session: &Arc<Session>) {
        let now = Instant::now();
        self.presence.opened(session);
        self.meters.came(session, now);
    }

    fn closed(&self, session: &Arc<Session>) {
        self.presence.closed(session);
        self.meters.gone(session);
    }

    fn heartbeat(&self) -> Option<Heartbeat> {
        Some(HEARTBEAT)
    }

    fn messages(&self, session: &Arc<Session>, messages: Messages<'_>, now: Instant) {
        let kind = messages.kind;
        let mut has_answered = false;
        let mut received = 0;
        self.router.take(self, session, messages.frames, now, |turn, message| {
            let (routed, answered) = self.read(turn, session, kind, message);
            has_answered |= answered;
            if let Routed::Packet { .. } = routed {
                received += message.len();
            }
            routed
        });
        self.meters.received(session, received, now);
        if has_answered {
            session.flush(now);
        }
    }

    fn update(&self, config: &Config) {
        self.login.store(Arc::new(Login::new(config)));
        self.takeovers.update(config);
        self.rates.store(Arc::new(rates(config)));
    }

    fn families(&self, families: &mut Vec<MetricFamily>) {
        families.push(family::sharded(
            "beacon_relay_netbird_handled_total",
            "Messages of clients that were meant for the relay itself.",
            "kind",
            &self.handled,
        ));
        families.push(self.takeovers.family());
        self.meters.families(self.router.table(), self.takeovers.taken(), families);
        let subscriptions = self.presence.subscriptions();
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        families.push(family::gauge_values(
            "beacon_relay_netbird_subscriptions",
            "Subscriptions of clients to others' coming and going.",
            &[],
            [(&[][..], subscriptions as f64)],
        ));
    }

    fn tasks(&self) -> Vec<Task> {
        let presence = Arc::clone(&self.presence);
        vec![Task::new("netbird presence", async move { presence.follow_others().await })]
    }

    fn is_visited(&self) -> bool {
        true
    }

    fn visit(&self, stream: Box<dyn Duplex>) -> Answer<'_, Result<(), VisitError>> {
        let login = self.login.load();
        let secret = login.secret.as_ref().map(|secret| secret.expose().to_owned());
        Box::pin(canary::visit(secret.unwrap_or_default(), stream))
    }

    /// No client that is sent away is told why.
    fn refusal(&self, _outcome: Outcome) -> Option<Close> {
        None
    }

    fn parting(&self, end: End) -> Option<&'static [u8]> {
        matches!(end, End::ShuttingDown | End::Kicked).then_some(&CLOSING)
    }

    /// Only a message that is too long has a code: clients take any end for a lost connection.
    fn farewell(&self, _end: End, violation: Option<Violation>) -> Option<Close> {
        let code = violation.map(|violation| violation.close_code())?;
        (code == CloseCode::TooLarge).then_some(Close::new(code, "message too large"))
    }
}

impl Delivery for Netbird {
    fn head(&self, flow: &Flow, _: &Session) -> Head {
        Head::new(&[&transport_header(peer_of(flow.sender))])
    }

    fn delivered(&self, flow: &Flow, session: &Session, bytes: u64) {
        if !flow.is_hidden {
            let heads = (flow.packets.len() * TRANSPORT_HEADER) as u64;
            self.meters.sent(session, bytes + heads);
        }
    }

    fn rates(&self) -> Option<SourceRates> {
        Some(**self.rates.load())
    }

    fn has(&self, name: Name) -> bool {
        !name.is_hashed() && name.bytes().len() == PeerId::LENGTH
    }
}
