//! Many relays, one beacon: who has which node, and packets between relays.

mod counters;
mod fabric;
mod identity;
mod member;
mod outbox;

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::ids::RelayId;
use crate::metrics::Traffic;

pub use counters::{Counters, Forward, LookupResult, Reject};
pub use fabric::Fabric;
pub use identity::{Identity, IdentityError, identity_file, load_or_create, relay_id};
pub use member::Member;
pub use outbox::{Batch, Outbox};

/// A member that was silent for so many keep-alives is lost.
pub const DEAD_AFTER: u32 = 3;

/// Tells two runs of one relay apart.
pub type Boot = [u8; 16];

/// This relay's part in the cluster.
#[derive(Debug)]
pub struct Cluster {
    identity: Identity,
    traffic: Arc<Traffic>,
    counters: Counters,
    members: Mutex<Vec<Arc<Member>>>,
}

impl Cluster {
    /// A cluster of one.
    #[must_use]
    pub fn new(identity: Identity, traffic: Arc<Traffic>) -> Arc<Self> {
        let members = Mutex::default();
        Arc::new(Self { identity, traffic, counters: Counters::default(), members })
    }

    /// Who we are.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What is counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The other relays that have a link to us.
    #[must_use]
    pub fn members(&self) -> Vec<Arc<Member>> {
        self.members.lock().clone()
    }

    /// A link to a relay stands, and the relay is who it says: it is a member from here on.
    /// One that was a member before has to have left.
    pub fn joined(&self, relay: RelayId, address: String) -> Arc<Member> {
        let member = Arc::new(Member::new(relay, address, Arc::clone(&self.traffic)));
        self.members.lock().push(Arc::clone(&member));
        self.counters.joined.increment();
        member
    }

    /// The link of a member has ended, for this reason.
    pub fn left(&self, member: &Arc<Member>, reason: &'static str) {
        self.members.lock().retain(|other| !Arc::ptr_eq(other, member));
        member.ending.cancel();
        member.outbox.close();
        self.counters.lost.increment();
        tracing::info!(relay = %member.relay, reason, "a relay has left the cluster");
    }

    /// Takes in a batch of a member.
    ///
    /// # Errors
    /// Why it is none; what came before the mistake counts.
    pub fn receive(
        &self,
        member: &Arc<Member>,
        batch: &[u8],
        now: Instant,
    ) -> Result<(), crate::wire::cluster::DecodeError> {
        member.heard(now);
        let frames = crate::wire::cluster::Frames::<crate::ids::NodeId>::new(batch);
        frames.map(|frame| frame.map(drop)).collect()
    }
}
