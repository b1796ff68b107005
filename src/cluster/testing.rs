//! What tests of both fabrics share, and of who talks over channels.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;

use super::{Cluster, Identity, Local, Member};
use crate::ids::{PublicKey, RelayId};
use crate::metrics::Traffic;
use crate::wire::cluster::{Packets, Run};
use crate::wire::name::Name;
use crate::wire::name::testing::name;

/// A relay that fails at the first batch of packets that it is to deliver, and counts the others.
#[derive(Debug, Default)]
pub(super) struct FailsOnce {
    batches: AtomicU64,
}

impl FailsOnce {
    pub(super) fn serving(cluster: &Cluster) -> Arc<Self> {
        let local = Arc::<Self>::default();
        let weak: std::sync::Weak<Self> = Arc::downgrade(&local);
        cluster.serve(weak);
        local
    }

    pub(super) fn batches(&self) -> u64 {
        self.batches.load(Ordering::Relaxed)
    }
}

impl Local for FailsOnce {
    fn deliver(
        &self,
        _from: RelayId,
        _packets: &[Packets<'_, Name>],
        _now: Instant,
        _not_here: &mut dyn FnMut(&Run<Name>, u64),
    ) {
        assert_ne!(self.batches.fetch_add(1, Ordering::Relaxed), 0, "on purpose");
    }

    fn superseded(&self, _peer: Name, _serial: u64, _was_granted: bool, _now: Instant) {}
}

/// A batch of one packet.
pub(super) fn packet() -> Vec<u8> {
    let mut batch = Vec::new();
    let run = Run { dest: name(1), sender: name(2), epoch: 1 };
    let at = crate::wire::cluster::begin_packets(&run, &mut batch);
    crate::wire::cluster::add_packet(at, b"payload", &mut batch);
    batch
}

/// Relays between which a test carries what they say.
pub(crate) struct Web {
    pub(crate) relays: Vec<Arc<Cluster>>,
    /// Of two relays, each as the other has it.
    links: BTreeMap<(usize, usize), [Arc<Member>; 2]>,
}

impl Web {
    /// So many relays, without links.
    pub(crate) fn new(count: u8) -> Self {
        let relay = |number: u8| {
            let identity = Identity {
                relay: relay_id(number),
                boot: [number; 16],
                name: "test".to_owned(),
                keepalive: Duration::from_secs(5),
            };
            Cluster::new(identity, Arc::<Traffic>::default())
        };
        Self { relays: (0..count).map(relay).collect(), links: BTreeMap::new() }
    }

    /// Two relays get a link, where they have none.
    pub(crate) fn join(&mut self, one: usize, other: usize) {
        let relays = &self.relays;
        self.links.entry((one, other)).or_insert_with(|| {
            let joins = |at: usize, with: usize| {
                let relay = relays[with].identity().relay;
                relays[at].joined(relay, String::new())
            };
            [joins(one, other), joins(other, one)]
        });
    }

    /// The link of two relays breaks; what is on its way is lost.
    pub(crate) fn cut(&mut self, one: usize, other: usize) {
        if let Some([of_one, of_other]) = self.links.remove(&(one, other)) {
            self.relays[one].left(&of_one, "test");
            self.relays[other].left(&of_other, "test");
        }
    }

    /// Carries what waits; whether there was anything.
    pub(crate) fn carry(&self) -> bool {
        let now = Instant::now();
        let mut has_carried = false;
        for ((one, other), [of_one, of_other]) in &self.links {
            for (at, to, member, back) in
                [(one, other, of_one, of_other), (other, one, of_other, of_one)]
            {
                self.relays[*at].keep_channels(member, now);
                while let Some(Some(batch)) = member.outbox.next_words().now_or_never() {
                    self.relays[*to].receive(back, &batch.bytes, now).unwrap();
                    has_carried = true;
                }
            }
        }
        has_carried
    }
}

/// The id of a relay of a [`Web`].
pub(crate) const fn relay_id(number: u8) -> RelayId {
    RelayId(PublicKey([number + 1; 32]))
}
