//! Who may take a peer's place, since a token names nobody.
//!
//! By default the last login has it. Where the first is to stay, a login from another address is
//! refused as long as the session that is there answers its health check.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{Config, NETBIRD, NetbirdTakeover};
use crate::metrics::{Event, Labelled, Traffic, What, Word as _, family};
use crate::peers::{Credential, End, Session, Table, Takeover};
use crate::proto::network::Client;
use crate::proto::translators::Translators;
use crate::session;
use crate::wire::name::Name;
use crate::wire::netbird::HEALTHY;
use crate::words;

/// Time for the session that is there to answer its health check: a client answers at once, and
/// the login that waits for it has 10 s.
const PATIENCE: Duration = Duration::from_secs(4);

words! {
    /// What became of a login of a peer that has a session.
    enum Taking {
        /// It has taken over, from the address that the session came from.
        SameAddress => "same_address",
        /// It has taken over, from another address.
        OtherAddress => "other_address",
        /// It was refused: it came from another address.
        Refused => "refused",
    }
}

/// What logins are judged by beyond their tokens.
#[derive(Debug)]
struct Rules {
    takeover: NetbirdTakeover,
    translators: Translators,
}

impl From<&Config> for Rules {
    fn from(config: &Config) -> Self {
        let of_door = config.netbird.as_ref();
        let takeover = of_door.map_or(NetbirdTakeover::Always, |netbird| netbird.takeover);
        Self { takeover, translators: config.translators.clone() }
    }
}

impl Rules {
    /// What stands for the client's address: all relays of a cluster make the same of it.
    fn credential(&self, client: SocketAddr) -> Credential {
        let text = Client::of(client.ip(), &self.translators).address().to_string();
        Credential(Sha256::digest(text).into())
    }
}

/// What judges and counts takeovers.
#[derive(Debug)]
pub(super) struct Takeovers {
    rules: ArcSwap<Rules>,
    /// Sessions that somebody waits to hear of, by their numbers.
    asked: Mutex<HashMap<u64, Arc<Notify>>>,
    /// How many they are.
    waiting: AtomicUsize,
    counted: Labelled<Taking>,
}

impl Takeovers {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            rules: ArcSwap::from_pointee(config.into()),
            asked: Mutex::default(),
            waiting: AtomicUsize::new(0),
            counted: Labelled::default(),
        }
    }

    /// Goes on by these settings, for logins from here on.
    pub(super) fn update(&self, config: &Config) {
        self.rules.store(Arc::new(config.into()));
    }

    /// What a login of this peer shows for itself, and what becomes of an older session. It may
    /// take the time of a health check.
    ///
    /// # Errors
    /// It is refused; the word for the log.
    pub(super) async fn judge(
        &self,
        table: &Table,
        name: Name,
        client: &session::Client,
    ) -> Result<(Credential, Takeover), &'static str> {
        let rules = self.rules.load_full();
        let credential = rules.credential(client.address);
        if rules.takeover == NetbirdTakeover::Always || client.is_probe {
            return Ok((credential, Takeover::Always));
        }
        let first = table.session(name);
        let Some(first) = first.filter(|first| first.principal.credential != credential) else {
            return Ok((credential, Takeover::SameCredential));
        };
        if self.answers(&first).await {
            self.counted.of(Taking::Refused).increment();
            return Err(Taking::OtherAddress.word());
        }
        first.end(End::Idle);
        Ok((credential, Takeover::Always))
    }

    /// Whether a session answers its health check.
    async fn answers(&self, session: &Session) -> bool {
        if !session.is_open() {
            return false;
        }
        let asked = Asked::new(self, session.generation());
        let answered = asked.notify.notified();
        if asked.is_first {
            session.push_notice(&HEALTHY);
            session.flush(Instant::now());
        }
        timeout(PATIENCE, answered).await.is_ok()
    }

    /// A session has sent a sign of life.
    pub(super) fn heard(&self, session: &Session) {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(asked) = self.asked.lock().get(&session.generation()) {
            asked.notify_waiters();
        }
    }

    /// Counts that a session is about to take another's place, if it is; from another address it
    /// is an event as well.
    pub(super) fn note(&self, table: &Table, traffic: &Traffic, session: &Session) {
        let Some(first) = table.session(session.id()) else { return };
        let Session { principal, takeover, .. } = session;
        if session.is_hidden || !first.gives_way_to(principal, *takeover, session.generation()) {
            return;
        }
        let taking = if first.principal.credential == principal.credential {
            Taking::SameAddress
        } else {
            Taking::OtherAddress
        };
        self.counted.of(taking).increment();
        if matches!(taking, Taking::OtherAddress) {
            let peer = session.id();
            traffic.events.note(Event {
                door: Some(NETBIRD.name),
                peer: Some(peer),
                address: Some(session.observed),
                reason: taking.word(),
                ..Event::new(What::TakenOver)
            });
            tracing::info!(node = %peer, "a login from another address took a session over");
        }
    }

    /// How many logins have taken a session over.
    pub(super) fn taken(&self) -> u64 {
        let taken = [Taking::SameAddress, Taking::OtherAddress];
        taken.into_iter().map(|taking| self.counted.of(taking).value()).sum()
    }

    pub(super) fn family(&self) -> MetricFamily {
        family::labelled(
            "beacon_relay_netbird_takeovers_total",
            "Logins of peers that have a session, by what became of them.",
            "result",
            &self.counted,
        )
    }
}

/// That somebody waits to hear of a session, as long as it lives.
struct Asked<'a> {
    takeovers: &'a Takeovers,
    generation: u64,
    notify: Arc<Notify>,
    /// Nobody else waits for it yet.
    is_first: bool,
}

impl<'a> Asked<'a> {
    fn new(takeovers: &'a Takeovers, generation: u64) -> Self {
        let mut asked = takeovers.asked.lock();
        let is_first = !asked.contains_key(&generation);
        let notify = Arc::clone(asked.entry(generation).or_default());
        drop(asked);
        takeovers.waiting.fetch_add(1, Ordering::Relaxed);
        Self { takeovers, generation, notify, is_first }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let mut asked = self.takeovers.asked.lock();
        // In the map and here: nobody else waits.
        if Arc::strong_count(&self.notify) <= 2 {
            asked.remove(&self.generation);
        }
        drop(asked);
        self.takeovers.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
