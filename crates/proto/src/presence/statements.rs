//! What was said to a member and has to be said again until it is answered.

use std::time::{Duration, Instant};

use beacon_wire::cluster::Name;

use super::members::Slot;
use super::shards::Shards;
use super::timers::Timers;

/// After how long a statement is repeated for the first time; then after twice as long.
pub(super) const FIRST_REPEAT: Duration = Duration::from_millis(250);

/// The longest time between two repeats.
pub(super) const LAST_REPEAT: Duration = Duration::from_secs(4);

/// What a statement is about.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Kind {
    /// To a home: this relay has the peer; answered by Granted, Refused or Moved.
    Claim,
    /// To a home: the sessions up to this serial are over; answered by Left.
    Leave(u64),
    /// To a watcher: what this home knows; answered by Heard.
    Locate(u64),
    /// To an owner: another took over from this serial; answered by Leave or a claim.
    Moved(u64),
    /// To a home: tell who has the peer from here on; answered by Locate.
    Watch,
    /// To a home: tell no more; answered by Locate.
    Unwatch,
}

/// To whom, about whom, and what sort: there is one statement of each.
type Key<I> = (Slot, I, Sort);

#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Sort {
    Claim,
    Leave,
    // Before Moved: an owner that watches knows where a peer is when it loses it.
    Locate,
    Moved,
    Watch,
}

impl Kind {
    const fn sort(self) -> Sort {
        match self {
            Self::Claim => Sort::Claim,
            Self::Leave(_) => Sort::Leave,
            Self::Locate(_) => Sort::Locate,
            Self::Moved(_) => Sort::Moved,
            Self::Watch | Self::Unwatch => Sort::Watch,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Statement {
    kind: Kind,
    due: Instant,
    /// How long after it is said it is said again.
    repeat: Duration,
    /// Whether it waits for better times, and not for an answer.
    parked: bool,
    /// Whether the home refused the epoch, so that the claim asks for one.
    afresh: bool,
    /// Whether the home has named a better owner, though another home has not.
    contested: bool,
    /// Of a claim: what its answer repeats.
    nonce: u32,
    /// What its answer repeated before it was renewed.
    nonce_before: u32,
}

/// A statement that is to be said now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due<I> {
    pub(super) to: Slot,
    pub(super) id: I,
    pub(super) kind: Kind,
    pub(super) afresh: bool,
    pub(super) nonce: u32,
}

/// The statements that are not answered.
#[derive(Debug)]
pub(super) struct Statements<I> {
    open: Shards<Key<I>, Statement>,
    timers: Timers<Key<I>>,
    parked: usize,
    /// The last nonce; 0 is none.
    nonces: u32,
    /// How many may be open before only claims are taken.
    room: usize,
}

impl<I: Name> Statements<I> {
    pub(super) fn new(room: usize) -> Self {
        Self { open: Shards::new(), timers: Timers::new(), parked: 0, nonces: 0, room }
    }

    /// How many wait for an answer.
    pub(super) fn len(&self) -> usize {
        self.open.len() - self.parked
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Claims from `due` on until it is answered. There are no more claims than locals.
    pub(super) fn claim(&mut self, to: Slot, id: I, due: Instant) {
        self.put((to, id, Sort::Claim), Kind::Claim, due, false, false);
    }

    /// Says what is over from `now` on until it is answered, instead of one of its sort.
    /// False where too much waits already: one member that never answers must not fill the
    /// memory. What ends the same serial, or a later one, is being said.
    pub(super) fn say(&mut self, to: Slot, id: I, kind: Kind, now: Instant) -> bool {
        let key = (to, id, kind.sort());
        match self.open.get(&key) {
            Some(said) if said.kind >= kind => return true,
            None if self.open.len() >= self.room => return false,
            Some(_) | None => {}
        }
        self.put(key, kind, now, false, false);
        true
    }

    /// Watches from `due` on until it is answered; returns the nonce. There are no more of them
    /// than watches.
    pub(super) fn watch(&mut self, to: Slot, id: I, due: Instant, parked: bool) -> u32 {
        self.put((to, id, Sort::Watch), Kind::Watch, due, parked, false);
        self.nonces
    }

    /// Ends a watch from `now` on until that is answered. Where there is no room for that, the
    /// home learns it when it tells of the peer.
    pub(super) fn unwatch(&mut self, to: Slot, id: I, now: Instant) {
        let key = (to, id, Sort::Watch);
        self.remove(key);
        if self.open.len() < self.room {
            self.put(key, Kind::Unwatch, now, false, false);
        }
    }

    /// Whether the end of a watch waits for its answer.
    pub(super) fn ends_watch(&self, to: Slot, id: I) -> bool {
        let said = self.open.get(&(to, id, Sort::Watch));
        said.is_some_and(|statement| statement.kind == Kind::Unwatch)
    }

    /// A home has answered a watch, or its end.
    pub(super) fn end_watch(&mut self, to: Slot, id: I, nonce: u32) {
        let key = (to, id, Sort::Watch);
        if self.open.get(&key).is_some_and(|statement| statement.nonce == nonce) {
            self.remove(key);
        }
    }

    /// Whether a watcher is being told of a peer.
    pub(super) fn tells(&self, to: Slot, id: I) -> bool {
        self.open.contains_key(&(to, id, Sort::Locate))
    }

    /// A watcher knows what it was told up to this version.
    pub(super) fn end_locate(&mut self, to: Slot, id: I, version: u64) {
        self.end_up_to((to, id, Sort::Locate), version);
    }

    /// A claim waits until `due`, though it is answered.
    pub(super) fn park(&mut self, to: Slot, id: I, due: Instant) {
        self.put((to, id, Sort::Claim), Kind::Claim, due, true, false);
    }

    /// A claim waits until `due`, as its home has named a better owner.
    pub(super) fn contest(&mut self, to: Slot, id: I, due: Instant) {
        self.put((to, id, Sort::Claim), Kind::Claim, due, true, true);
    }

    /// Whether a claim was said again after its home has named a better owner.
    pub(super) fn is_contested(&self, to: Slot, id: I) -> bool {
        let claim = self.open.get(&(to, id, Sort::Claim));
        claim.is_some_and(|claim| claim.contested && !claim.parked)
    }

    /// What the home has answered to a claim so far is void.
    pub(super) fn renew(&mut self, to: Slot, id: I) {
        let nonce = self.next_nonce();
        if let Some(statement) = self.open.get_mut(&(to, id, Sort::Claim)) {
            statement.nonce_before = std::mem::replace(&mut statement.nonce, nonce);
        }
    }

    /// What the answer to an open claim repeats.
    pub(super) fn nonce(&self, to: Slot, id: I) -> Option<u32> {
        Some(self.open.get(&(to, id, Sort::Claim))?.nonce)
    }

    /// What the answer to an open claim repeated before [`Self::renew`].
    pub(super) fn nonce_before(&self, to: Slot, id: I) -> Option<u32> {
        Some(self.open.get(&(to, id, Sort::Claim))?.nonce_before)
    }

    pub(super) const fn next_nonce(&mut self) -> u32 {
        self.nonces = self.nonces.wrapping_add(1);
        if self.nonces == 0 {
            self.nonces = 1;
        }
        self.nonces
    }

    /// A claim goes on, and asks for an epoch from its next repeat on.
    pub(super) fn ask_afresh(&mut self, to: Slot, id: I) {
        if let Some(statement) = self.open.get_mut(&(to, id, Sort::Claim)) {
            statement.afresh = true;
        }
    }

    fn put(&mut self, key: Key<I>, kind: Kind, due: Instant, parked: bool, contested: bool) {
        self.remove(key);
        self.parked += usize::from(parked);
        self.timers.set(due, key);
        let (repeat, afresh, nonce) = (FIRST_REPEAT, false, self.next_nonce());
        let nonce_before = nonce;
        let statement =
            Statement { kind, due, repeat, parked, afresh, contested, nonce, nonce_before };
        self.open.insert(key, statement);
    }

    fn remove(&mut self, key: Key<I>) -> Option<Statement> {
        let statement = self.open.remove(&key)?;
        self.timers.cancel(statement.due, key);
        self.parked -= usize::from(statement.parked);
        Some(statement)
    }

    /// The next one that is due; it is due again later.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Due<I>> {
        let key = self.timers.pop(now)?;
        let statement = self.open.get_mut(&key)?;
        if std::mem::take(&mut statement.parked) {
            self.parked -= 1;
        }
        statement.due = now + statement.repeat;
        statement.repeat = (statement.repeat * 2).min(LAST_REPEAT);
        self.timers.set(statement.due, key);
        let Statement { kind, afresh, nonce, .. } = *statement;
        Some(Due { to: key.0, id: key.1, kind, afresh, nonce })
    }

    /// Whether a claim is open, answered or not.
    pub(super) fn has_claim(&self, to: Slot, id: I) -> bool {
        self.open.contains_key(&(to, id, Sort::Claim))
    }

    /// Whether a claim waits for its answer.
    pub(super) fn awaits_claim(&self, to: Slot, id: I) -> bool {
        self.open.get(&(to, id, Sort::Claim)).is_some_and(|statement| !statement.parked)
    }

    /// Whether a claim waits for better times.
    pub(super) fn is_parked(&self, to: Slot, id: I) -> bool {
        self.open.get(&(to, id, Sort::Claim)).is_some_and(|statement| statement.parked)
    }

    /// Whether a claim was said, and waits for its answer.
    pub(super) fn is_asked(&self, to: Slot, id: I) -> bool {
        let claim = self.open.get(&(to, id, Sort::Claim));
        claim.is_some_and(|claim| !claim.parked && claim.repeat > FIRST_REPEAT)
    }

    /// Whether a claim asked for an epoch because its own was refused.
    pub(super) fn asked_afresh(&self, to: Slot, id: I) -> bool {
        self.open.get(&(to, id, Sort::Claim)).is_some_and(|statement| statement.afresh)
    }

    /// The claim to a home is answered, or void.
    pub(super) fn end_claim(&mut self, to: Slot, id: I) {
        self.remove((to, id, Sort::Claim));
    }

    /// A home has noted a leave.
    pub(super) fn end_leave(&mut self, to: Slot, id: I, serial: u64) {
        self.end_up_to((to, id, Sort::Leave), serial);
    }

    /// An owner has answered that it no longer has the peer under this serial.
    pub(super) fn end_moved(&mut self, to: Slot, id: I, serial: u64) {
        self.end_up_to((to, id, Sort::Moved), serial);
    }

    fn end_up_to(&mut self, key: Key<I>, serial: u64) {
        let said = self.open.get(&key).and_then(|statement| match statement.kind {
            Kind::Leave(said) | Kind::Locate(said) | Kind::Moved(said) => Some(said),
            Kind::Claim | Kind::Watch | Kind::Unwatch => None,
        });
        if said.is_some_and(|said| said <= serial) {
            self.remove(key);
        }
    }

    /// Ends what is said to a relay that is no member any more.
    pub(super) fn end(&mut self, to: Slot, id: I, kind: Kind) {
        self.remove((to, id, kind.sort()));
    }

    /// Whether a claim has been said as often as it takes for the longest time between two.
    pub(super) fn is_old_claim(&self, to: Slot, id: I) -> bool {
        let claim = self.open.get(&(to, id, Sort::Claim));
        claim.is_some_and(|claim| !claim.parked && claim.repeat == LAST_REPEAT)
    }
}
