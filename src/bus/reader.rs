//! The thread that reads what waits for peers that have come back, so that a slow disk delays
//! nobody else's messages.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Shared;
use super::health::Call;
use crate::proto::bus::Load;
use crate::store::{Most, StoreError};

/// The wait before a reading that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The wait before messages that make no sense are looked at again: somebody may repair them.
const RETRY_DAMAGED: Duration = Duration::from_secs(10);

/// Starts the thread; it ends when the sender is dropped. No more readings wait than there are
/// mailboxes, two for each.
pub(super) fn start(
    shared: Arc<Shared>,
    ending: CancellationToken,
) -> io::Result<(Sender<Load>, JoinHandle<()>)> {
    let (sender, loads) = channel();
    let thread = std::thread::Builder::new().name("bus-reader".to_owned()).spawn(move || {
        let _ending = ending.drop_guard();
        run(&shared, &loads);
    })?;
    Ok((sender, thread))
}

fn run(shared: &Shared, loads: &Receiver<Load>) {
    // Those that failed, each with the time at which it is tried again.
    let mut failed: Vec<(Load, Instant)> = Vec::new();
    loop {
        let next = failed.iter().map(|(_, due)| *due).min();
        let load = match next {
            None => loads.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => loads.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let now = Instant::now();
        let due = failed.extract_if(.., |(_, due)| *due <= now);
        let mut loads: Vec<_> = due.map(|(load, _)| load).collect();
        match load {
            Ok(load) => loads.push(load),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for load in loads {
            if let Some((load, wait)) = read(shared, load) {
                failed.push((load, Instant::now() + wait));
            }
        }
    }
}

/// Reads, and hands over what was read; what failed is to be tried again after a time.
fn read(shared: &Shared, load: Load) -> Option<(Load, Duration)> {
    let most = Most { messages: load.messages, bytes: load.bytes };
    shared.meters.readings.begin(Instant::now());
    let read = shared.store.read(load.mailbox, load.from, most);
    shared.meters.readings.end();
    match read {
        Ok(stored) => {
            shared.meters.succeeded(Call::Read);
            shared.inbox.put_loaded(load, stored);
            None
        }
        Err(error @ StoreError::Damaged(_)) => {
            shared.meters.succeeded(Call::Read);
            if shared.meters.damaged(&error) {
                error!(mailbox = load.mailbox.0, %error, "messages that wait cannot be read");
            }
            Some((load, RETRY_DAMAGED))
        }
        Err(error) => {
            shared.meters.failed(Call::Read, &error);
            Some((load, RETRY))
        }
    }
}
