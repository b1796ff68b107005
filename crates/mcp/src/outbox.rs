//! The messages that the host sends, until the relay has them: in order, bounded in number and
//! bytes, and kept while there is no connection.

use std::collections::VecDeque;
use std::sync::Arc;

use beacon_client::peerbus::{Draft, SendError, Sender, Sent};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;

/// Messages that the relay has not stored, at most.
pub(crate) const PLACES: usize = 1_000;

/// What they may take together, in bytes.
const BYTES: usize = 64 * 1_048_576;

/// Messages whose failure nobody has been told of, at most: the oldest is forgotten.
const FAILURES: usize = 100;

/// Why a message is not on its way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PostError {
    /// Too many are on their way.
    #[error(
        "not sent: {PLACES} messages (or {} MiB of them) are queued for the relay already; try \
         again when it has taken some",
        BYTES / 1_048_576
    )]
    Full,
    /// It can never be sent.
    #[error("not sent: {0}")]
    Send(#[from] SendError),
}

/// A message that was queued and not stored, after its caller had gone on.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) id: String,
    pub(crate) to: String,
    pub(crate) error: SendError,
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) id: String,
    outcome: oneshot::Receiver<Result<Sent, SendError>>,
}

impl Posted {
    /// What becomes of the message. Cancel-safe.
    pub(crate) async fn outcome(&mut self) -> Result<Sent, SendError> {
        (&mut self.outcome).await.unwrap_or(Err(SendError::Ended))
    }

    /// Waits no longer: what becomes of it is told later, if it is not there at this moment.
    pub(crate) fn leave(mut self) -> Option<Result<Sent, SendError>> {
        self.outcome.close();
        self.outcome.try_recv().ok()
    }
}

/// What waits for the client.
#[derive(Debug)]
struct Post {
    draft: Draft,
    to: String,
    answer: oneshot::Sender<Result<Sent, SendError>>,
    /// Its part of what may be on its way.
    _room: [OwnedSemaphorePermit; 2],
}

/// Where the host's messages go.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: Sender,
    queue: mpsc::Sender<Post>,
    places: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    failures: Failures,
}

type Failures = Arc<Mutex<VecDeque<Failure>>>;

/// Hands the messages to the client, in order.
pub(crate) struct Courier {
    sender: Sender,
    queue: mpsc::Receiver<Post>,
    failures: Failures,
}

impl Outbox {
    /// An outbox, and what empties it.
    pub(crate) fn new(sender: Sender) -> (Self, Courier) {
        let (queue, posts) = mpsc::channel(PLACES);
        let failures = Failures::default();
        let courier =
            Courier { sender: sender.clone(), queue: posts, failures: Arc::clone(&failures) };
        let places = Arc::new(Semaphore::new(PLACES));
        let bytes = Arc::new(Semaphore::new(BYTES));
        (Self { sender, queue, places, bytes, failures }, courier)
    }

    /// Queues a message behind those before it.
    pub(crate) fn post(&self, to: &str, json: &[u8]) -> Result<Posted, PostError> {
        let draft = self.sender.draft(to, json)?;
        let bytes = u32::try_from(draft.bytes()).map_err(|_| PostError::Full)?;
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| PostError::Full)?;
        let room = Arc::clone(&self.bytes).try_acquire_many_owned(bytes);
        let room = room.map_err(|_| PostError::Full)?;
        let id = draft.id().to_owned();
        let (answer, outcome) = oneshot::channel();
        let post = Post { draft, to: to.to_owned(), answer, _room: [place, room] };
        match self.queue.try_send(post) {
            Ok(()) => Ok(Posted { id, outcome }),
            Err(mpsc::error::TrySendError::Full(_)) => Err(PostError::Full),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(SendError::Ended.into()),
        }
    }

    /// How many messages the relay has not stored.
    pub(crate) fn waiting(&self) -> usize {
        PLACES - self.places.available_permits()
    }

    /// Which messages failed after their callers had gone on, since this was asked last.
    pub(crate) fn take_failures(&self) -> VecDeque<Failure> {
        std::mem::take(&mut *self.failures.lock())
    }
}

impl Courier {
    /// Until the outbox is gone and all that was in it has an outcome.
    pub(crate) async fn run(mut self) {
        let mut settling = JoinSet::new();
        loop {
            tokio::select! {
                post = self.queue.recv() => match post {
                    Some(post) => self.hand_over(post, &mut settling).await,
                    None => break,
                },
                // What ended is taken out of the set.
                Some(_) = settling.join_next() => {}
            }
        }
        while settling.join_next().await.is_some() {}
    }

    async fn hand_over(&self, post: Post, settling: &mut JoinSet<()>) {
        let Post { draft, to, answer, _room: room } = post;
        let id = draft.id().to_owned();
        let posted = self.sender.post_draft(draft).await;
        let failures = Arc::clone(&self.failures);
        settling.spawn(async move {
            let outcome = match posted {
                Ok(pending) => pending.sent().await,
                Err(error) => Err(error),
            };
            drop(room);
            if let Err(Err(error)) = answer.send(outcome) {
                let mut failures = failures.lock();
                if failures.len() == FAILURES {
                    failures.pop_front();
                }
                failures.push_back(Failure { id, to, error });
            }
        });
    }
}
