//! Many records through one publisher and one subscriber: all of them, in their order.

use std::thread;
use std::time::Instant;

use anyhow::Context as _;

use super::{Authority, Peer, Writer};
use crate::subject::Servers;

/// Bytes of a payload.
const SIZE: usize = 256;

/// Records of a batch.
const BATCH: u64 = 256;

const CHANNEL: &str = "orders";

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    pub(crate) records: u64,
    /// Records a second, from the first that is published to the last that is received.
    pub(crate) per_second: f64,
    /// CPU time of the relay for each, in microseconds.
    pub(crate) cpu_us_each: f64,
    /// Anonymous resident memory of the relay at the end, in MB.
    pub(crate) memory_mb: f64,
}

/// Runs it.
///
/// # Errors
/// A record that is missing, comes twice, or comes out of order.
#[allow(clippy::cast_precision_loss)] // far below 2^53
pub(crate) fn run(servers: &Servers, records: u64) -> anyhow::Result<Figures> {
    let authority = Authority::make(servers.folder())?;
    let relay = servers.start_keyop(&authority, &[])?;
    let mut subscriber = Peer::open_subscribed(relay.wss, &authority, "receiver", (CHANNEL, 2))?;
    let mut publisher = Peer::open(relay.wss, &authority, "sender", None)?;
    let before = relay.usage()?;
    let began = Instant::now();
    let publishing = thread::spawn(move || publish(&mut publisher, records));
    let mut next = 0;
    while next < records {
        subscriber.take(|envelope| {
            let number: u64 = envelope.correlation_id.parse().context("records are numbered")?;
            anyhow::ensure!(number == next, "record {number} where {next} is due");
            next += 1;
            Ok(())
        })?;
    }
    let took = began.elapsed();
    publishing.join().expect("the publisher tells its error")?;
    let after = relay.usage()?;
    Ok(Figures {
        records,
        per_second: records as f64 / took.as_secs_f64(),
        cpu_us_each: (after.cpu - before.cpu).as_secs_f64() * 1e6 / records as f64,
        memory_mb: after.anonymous as f64 / 1e6,
    })
}

/// Publishes records from 0 on, a batch at a time.
fn publish(publisher: &mut Peer, records: u64) -> anyhow::Result<()> {
    let writer = Writer::new(CHANNEL, "sender", 1, SIZE);
    let mut next = 0;
    while next < records {
        let until = records.min(next + BATCH);
        let batch: Vec<_> = (next..until).map(|number| writer.record(number)).collect();
        publisher.push_batch(batch.iter().map(Vec::as_slice));
        publisher.connection.flush()?;
        while publisher.receipts()? == 0 {}
        next = until;
    }
    Ok(())
}
