//! The rate limits of who sends over UDP: each receiving thread has its own.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::Rules;
use crate::proto::limit::{Bucket, Exceeded, Places, Rate, Source, SourceRates};
use crate::proto::network::Client;

/// Sources that have buckets at a time, for each thread: as many as 32,768 addresses that
/// all send at once; a source beyond that begins with a full bucket.
const SOURCES: usize = 32_768;

/// Client addresses that have a bucket for what they ask the relay, for each thread; one
/// beyond that begins with a full bucket.
const CLIENTS: usize = 16_384;

/// Discovers and punches of one client address that each thread answers at once, however many
/// threads share its rate: more than one node ever sends.
const LEAST_QUESTIONS: u64 = 10;

/// Addresses that have a bucket for Syncs, for each thread: many more than there are beacons.
const SYNC_SOURCES: usize = 1_024;

/// Syncs a second of one address and port: twice what gossip takes. Over that, a flood would
/// make the threads wait for its lock. For each port, or whoever forges one could use up the
/// Syncs of the beacon at another.
const SYNC_RATE: Rate = Rate::per_second(2);

/// The buckets of the flows that the kernel gives to one thread's socket.
pub struct Buckets {
    /// How many threads there are.
    threads: u64,
    sources: Places<Source>,
    clients: Places<Bucket>,
    syncs: Places<Bucket>,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Buckets {
    pub(super) fn new(threads: usize) -> Self {
        Self {
            threads: threads as u64,
            sources: Places::new(SOURCES),
            clients: Places::new(CLIENTS),
            syncs: Places::new(SYNC_SOURCES),
        }
    }

    /// Takes a relayed packet of this length from the limit of the address that it came from.
    #[inline]
    pub(super) fn take(
        &mut self,
        from: SocketAddr,
        rates: &SourceRates,
        bytes: usize,
        now: Instant,
    ) -> Result<(), Exceeded> {
        self.sources.of(&from, now).take(rates, bytes, now)
    }

    /// Whether a client address may ask the relay for something once more.
    ///
    /// The kernel spreads the ports of one address evenly over the sockets, those of a NAT and
    /// those that somebody forges: each thread has an equal share of the address's rate.
    pub(super) fn admits_question(&mut self, ip: IpAddr, rules: &Rules, now: Instant) -> bool {
        let client = Client::of(ip, &rules.translators);
        let rate = rules.discover.share(self.threads, LEAST_QUESTIONS);
        self.clients.of(&client, now).take(rate, 1, now)
    }

    pub(super) fn admits_sync(&mut self, from: SocketAddr, now: Instant) -> bool {
        self.syncs.of(&from, now).take(SYNC_RATE, 1, now)
    }
}
