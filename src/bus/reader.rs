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

/// The wait before messages that make no sense are looked at again.
const RETRY_DAMAGED: Duration = Duration::from_secs(10);

/// Starts the thread; it ends when the sender is dropped. No more readings wait than there are
/// mailboxes, three for each.
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
    let mut failed: Vec<Again> = Vec::new();
    loop {
        let next = failed.iter().map(|again| again.due).min();
        let load = match next {
            None => loads.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(due) => loads.recv_timeout(due.saturating_duration_since(Instant::now())),
        };
        let now = Instant::now();
        let due = failed.extract_if(.., |again| again.due <= now);
        let mut loads: Vec<_> = due.map(|again| (again.load, again.was_damaged)).collect();
        match load {
            Ok(load) => loads.push((load, false)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        for (load, was_damaged) in loads {
            failed.extend(read(shared, load, was_damaged));
        }
    }
}

/// A reading that is made again.
#[derive(Clone, Copy)]
struct Again {
    load: Load,
    due: Instant,
    /// Messages made no sense the first time.
    was_damaged: bool,
}

/// Reads, and hands over what was read; what failed is to be tried again after a time. So is what
/// makes no sense, once: memory and cables have their moments too, and the bus removes it.
fn read(shared: &Shared, load: Load, was_damaged: bool) -> Option<Again> {
    let again = |wait, was_damaged| {
        let due = Instant::now() + wait;
        Some(Again { load, due, was_damaged })
    };
    let most = Most { messages: load.messages, bytes: load.bytes };
    shared.meters.readings.begin(Instant::now());
    let read = shared.store.read(load.mailbox, load.from, most);
    shared.meters.readings.end();
    match read {
        Ok(reading) => {
            shared.meters.succeeded(Call::Read);
            for damaged in &reading.damaged {
                let what = format!("message {} of mailbox {}", damaged.seq.0, load.mailbox.0);
                let error = StoreError::Damaged(what);
                if shared.meters.damaged(&error) {
                    error!(%error, "a message that waits cannot be read, and is lost");
                }
            }
            if !reading.damaged.is_empty() && !was_damaged {
                return again(RETRY_DAMAGED, true);
            }
            shared.inbox.put_loaded(load, reading);
            None
        }
        Err(error @ StoreError::Damaged(_)) => {
            shared.meters.succeeded(Call::Read);
            if shared.meters.damaged(&error) {
                error!(mailbox = load.mailbox.0, %error, "messages that wait cannot be read");
            }
            again(RETRY_DAMAGED, true)
        }
        Err(error) => {
            shared.meters.failed(Call::Read, &error);
            again(RETRY, was_damaged)
        }
    }
}
