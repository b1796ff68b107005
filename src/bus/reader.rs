//! The thread that reads what waits for peers that have come back, so that a slow disk delays
//! nobody else's messages.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::error;

use super::Shared;
use super::inbox::Item;
use crate::proto::bus::Load;
use crate::store::{Most, StoreError};

/// The wait before a reading that failed is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// The wait before messages that make no sense are looked at again: somebody may repair them.
const RETRY_DAMAGED: Duration = Duration::from_secs(10);

/// Starts the thread; it ends when the sender is dropped. No more readings wait than there are
/// mailboxes, two for each.
pub(super) fn start(shared: Arc<Shared>) -> io::Result<(Sender<Load>, JoinHandle<()>)> {
    let (sender, loads) = channel();
    let thread = std::thread::Builder::new()
        .name("bus-reader".to_owned())
        .spawn(move || run(&shared, &loads))?;
    Ok((sender, thread))
}

fn run(shared: &Shared, loads: &Receiver<Load>) {
    // Those that failed, each with the time that is left until it is tried again.
    let mut failed: Vec<(Load, Duration)> = Vec::new();
    loop {
        let load = if failed.is_empty() {
            loads.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            loads.recv_timeout(RETRY)
        };
        match load {
            Ok(load) => failed.extend(read(shared, load)),
            Err(RecvTimeoutError::Timeout) => {
                for (_, left) in &mut failed {
                    *left = left.saturating_sub(RETRY);
                }
                let due = failed.extract_if(.., |(_, left)| left.is_zero());
                let due: Vec<_> = due.map(|(load, _)| load).collect();
                failed.extend(due.into_iter().filter_map(|load| read(shared, load)));
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Reads, and hands over what was read; what failed is to be tried again after a time.
fn read(shared: &Shared, load: Load) -> Option<(Load, Duration)> {
    let most = Most { messages: load.messages, bytes: load.bytes };
    match shared.store.read(load.mailbox, load.from, most) {
        Ok(stored) => {
            shared.inbox.put(Item::Loaded { load, stored });
            None
        }
        Err(error @ StoreError::Damaged(_)) => {
            shared.meters.damaged();
            error!(mailbox = load.mailbox.0, %error, "messages that wait cannot be read");
            Some((load, RETRY_DAMAGED))
        }
        Err(error) => {
            shared.meters.unavailable(&error);
            Some((load, RETRY))
        }
    }
}
