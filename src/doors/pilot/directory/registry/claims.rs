//! What the registry says against remembered keys, until somebody decides whether to believe it.
//!
//! A remembered key stays in use meanwhile. Sans-IO but for the waker: the time is an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::ids::{NodeId, PublicKey};
use crate::metrics::Labelled;

/// Most nodes whose claims are kept; more than sessions may be there by default.
const MAX_CLAIMS: usize = 65_536;

/// How recent a claim must be to be believed without being asked for again.
const RECENT: Duration = Duration::from_secs(30);

/// A claim that has been repeated for so long is believed, whatever else is said.
const PERSISTENT: Duration = Duration::from_secs(60 * 60);

/// A claim that was not repeated for so long, two rounds of look-ups, is not persistent.
const REPEATED: Duration = Duration::from_secs(10 * 60);

/// How long an operator's word counts: until each connected node was looked up once more.
const FORCED: Duration = Duration::from_secs(6 * 60);

crate::words! {
    /// What became of a claim that a remembered key is gone or another.
    pub(super) enum Fate {
        Believed => "believed",
        Held => "held",
        Recanted => "recanted",
        Persistent => "persistent",
        Forced => "forced",
        Full => "full",
    }
}

/// What the registry says of one node.
#[derive(Clone, Copy, Debug)]
struct Claim {
    key: Option<PublicKey>,
    /// Since when it has said so.
    since: Instant,
    /// When it said so last.
    last: Instant,
    is_held: bool,
}

/// A claim that is to be believed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Withdrawal {
    pub(super) node: NodeId,
    pub(super) key: Option<PublicKey>,
    pub(super) at: Instant,
}

#[derive(Debug, Default)]
pub(in crate::doors::pilot::directory) struct Claims {
    table: Mutex<Table>,
    raised: Notify,
    pub(super) fates: Labelled<Fate>,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    claims: HashMap<NodeId, Claim, RandomState>,
    /// More was claimed than anybody believes.
    is_held: bool,
    /// An operator believes what the registry says until then.
    forced_until: Option<Instant>,
}

impl Claims {
    /// Taken around whatever changes what is remembered, so that answer and claim agree.
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }

    /// Notes that the registry contradicts what is remembered of a node. Returns what is to be
    /// believed at once, which is something only after an operator said so.
    pub(super) fn raise(
        &self,
        table: &mut Table,
        node: NodeId,
        key: Option<PublicKey>,
        now: Instant,
    ) -> Option<Withdrawal> {
        if table.forced_until.is_some_and(|until| now < until) {
            self.fates.of(Fate::Forced).increment();
            return Some(Withdrawal { node, key, at: now });
        }
        if let Some(claim) = table.claims.get_mut(&node) {
            if claim.key != key {
                (claim.key, claim.since) = (key, now);
            }
            claim.last = now;
        } else if table.claims.len() < MAX_CLAIMS {
            let is_held = table.is_held;
            table.claims.insert(node, Claim { key, since: now, last: now, is_held });
            if is_held {
                self.fates.of(Fate::Held).increment();
            }
            self.raised.notify_one();
        } else {
            self.fates.of(Fate::Full).increment();
        }
        None
    }

    /// Notes that the registry says what is remembered of a node.
    pub(super) fn recant(&self, table: &mut Table, node: NodeId) {
        if table.claims.remove(&node).is_none() {
            return;
        }
        self.fates.of(Fate::Recanted).increment();
        if table.is_held && table.claims.is_empty() {
            table.is_held = false;
            info!("the registry has taken back all that was held back");
        }
    }

    /// Waits until there is a claim.
    pub(in crate::doors::pilot::directory) async fn raised(&self) {
        loop {
            if !self.table.lock().claims.is_empty() {
                return;
            }
            self.raised.notified().await;
        }
    }

    pub(super) fn has(&self, node: NodeId) -> bool {
        self.table.lock().claims.contains_key(&node)
    }

    pub(in crate::doors::pilot::directory) fn nodes(&self) -> Vec<NodeId> {
        self.table.lock().claims.keys().copied().collect()
    }

    /// How many claims are held back.
    pub(in crate::doors::pilot::directory) fn held(&self) -> usize {
        let table = self.table.lock();
        if table.is_held { table.claims.len() } else { 0 }
    }

    /// Believes nothing that is claimed until this changes; whether that is news.
    pub(in crate::doors::pilot::directory) fn hold(&self) -> bool {
        let mut table = self.table.lock();
        let mut newly = 0;
        for claim in table.claims.values_mut().filter(|claim| !claim.is_held) {
            claim.is_held = true;
            newly += 1;
        }
        self.fates.of(Fate::Held).add(newly);
        !std::mem::replace(&mut table.is_held, true)
    }

    /// Takes the recent claims, to be believed, and forgets the others: their nodes are looked
    /// up again.
    pub(super) fn believe(&self, table: &mut Table, now: Instant) -> Vec<Withdrawal> {
        if std::mem::take(&mut table.is_held) {
            info!("the registry is believed again");
        }
        let claims = std::mem::take(&mut table.claims);
        let is_recent = |claim: &Claim| now.saturating_duration_since(claim.last) < RECENT;
        let (recent, old): (Vec<_>, Vec<_>) =
            claims.into_iter().partition(|(_, claim)| is_recent(claim));
        self.fates.of(Fate::Recanted).add(old.len() as u64);
        self.fates.of(Fate::Believed).add(recent.len() as u64);
        recent.into_iter().map(withdrawal).collect()
    }

    /// Takes the claims that have been repeated for an hour.
    pub(super) fn persistent(&self, table: &mut Table, now: Instant) -> Vec<Withdrawal> {
        let persists = |_: &NodeId, claim: &mut Claim| {
            now.saturating_duration_since(claim.since) >= PERSISTENT
                && now.saturating_duration_since(claim.last) < REPEATED
        };
        let persistent: Vec<_> = table.claims.extract_if(persists).map(withdrawal).collect();
        self.fates.of(Fate::Persistent).add(persistent.len() as u64);
        if table.claims.is_empty() {
            table.is_held = false;
        }
        persistent
    }

    /// Takes all claims, to be believed as those of the next 6 minutes are: an operator says so.
    /// Where there are none, nothing changes.
    pub(super) fn force(&self, table: &mut Table, now: Instant) -> Vec<Withdrawal> {
        // Those that nobody has decided upon yet are held back in a moment, perhaps.
        let is_held = std::mem::take(&mut table.is_held);
        if !is_held && table.claims.is_empty() {
            return Vec::new();
        }
        table.forced_until = Some(now + FORCED);
        let claims = std::mem::take(&mut table.claims);
        self.fates.of(Fate::Forced).add(claims.len() as u64);
        warn!(nodes = claims.len(), "an operator believes what the registry says");
        claims.into_iter().map(withdrawal).collect()
    }
}

fn withdrawal((node, claim): (NodeId, Claim)) -> Withdrawal {
    Withdrawal { node, key: claim.key, at: claim.last }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const KEY: PublicKey = PublicKey([1; 32]);

    fn node(number: u32) -> NodeId {
        NodeId::new(number).unwrap()
    }

    fn raise(claims: &Claims, number: u32, key: Option<PublicKey>, now: Instant) -> bool {
        claims.raise(&mut claims.lock(), node(number), key, now).is_some()
    }

    #[test]
    fn recent_claims_are_believed_and_older_ones_asked_for_again() {
        let (claims, t0) = (Claims::default(), Instant::now());
        assert!(!raise(&claims, 1, None, t0));
        assert!(!raise(&claims, 2, Some(KEY), t0 + SECOND));
        let believed = claims.believe(&mut claims.lock(), t0 + RECENT);
        let expected = Withdrawal { node: node(2), key: Some(KEY), at: t0 + SECOND };
        assert_eq!(believed, [expected]);
        assert_eq!(claims.nodes(), []);
    }

    #[test]
    fn claims_are_held_until_the_registry_takes_the_last_one_back() {
        let (claims, t0) = (Claims::default(), Instant::now());
        raise(&claims, 1, None, t0);
        assert_eq!(claims.held(), 0);
        assert!(claims.hold());
        assert!(!claims.hold(), "that is no news");
        raise(&claims, 2, None, t0);
        assert_eq!((claims.held(), claims.fates.of(Fate::Held).value()), (2, 2));
        claims.recant(&mut claims.lock(), node(1));
        assert_eq!(claims.held(), 1);
        claims.recant(&mut claims.lock(), node(2));
        raise(&claims, 3, None, t0);
        assert_eq!(claims.held(), 0, "what comes afterwards is not held");
    }

    #[test]
    fn claim_that_is_repeated_for_an_hour_is_believed() {
        let (claims, t0) = (Claims::default(), Instant::now());
        let persistent = |now| claims.persistent(&mut claims.lock(), now).len();
        for minute in (0..60).step_by(5) {
            let now = t0 + 60 * minute * SECOND;
            raise(&claims, 1, None, now);
            raise(&claims, 2, (minute % 2 == 0).then_some(KEY), now);
            if minute == 0 {
                raise(&claims, 3, None, now);
            }
            assert!(claims.hold() == (minute == 0));
            assert_eq!(persistent(now), 0);
        }
        assert_eq!(persistent(t0 + PERSISTENT - SECOND), 0);
        assert_eq!(persistent(t0 + PERSISTENT), 1, "not one that says something else each time");
        assert_eq!(claims.held(), 2);
    }

    #[test]
    fn operator_believes_what_is_held_and_what_follows_for_6_minutes() {
        let (claims, t0) = (Claims::default(), Instant::now());
        let force = |now| claims.force(&mut claims.lock(), now).len();
        assert_eq!(force(t0), 0);
        raise(&claims, 1, None, t0);
        assert!(!raise(&claims, 2, None, t0), "there was nothing to decide upon");
        claims.hold();
        assert_eq!(force(t0), 2);
        assert!(raise(&claims, 3, None, t0 + FORCED - SECOND));
        assert!(!raise(&claims, 4, None, t0 + FORCED));
        assert_eq!(claims.fates.of(Fate::Forced).value(), 3);
    }

    #[test]
    fn force_did_nothing_a_moment_before_claims_were_held() {
        let (claims, t0) = (Claims::default(), Instant::now());
        raise(&claims, 1, None, t0);
        assert_eq!(claims.force(&mut claims.lock(), t0).len(), 1);
        assert!(raise(&claims, 2, None, t0 + SECOND), "believed as the first is");
    }

    #[test]
    fn claims_are_bounded() {
        let (claims, t0) = (Claims::default(), Instant::now());
        for number in 1..=u32::try_from(MAX_CLAIMS).unwrap() + 3 {
            raise(&claims, number, None, t0);
        }
        assert_eq!((claims.nodes().len(), claims.fates.of(Fate::Full).value()), (MAX_CLAIMS, 3));
    }
}
