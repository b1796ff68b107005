//! What only the owner of the server can do, and the way to ask for it.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::Refused;
use crate::config::LogFilter;

/// Orders that wait at most.
const QUEUE: usize = 8;

/// Longest wait for an order to be carried out: a reload may read 10,000,000 keys.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Task {
    /// Send the peers away and end.
    Drain,
    /// Read keys and settings again.
    Reload {
        /// Take a key file that has lost most of its keys.
        force: bool,
    },
    /// Log what this lets through.
    Log(LogFilter),
}

/// Something to do, with somebody who waits for its result.
#[derive(Debug)]
pub struct Order {
    /// What.
    pub task: Task,
    done: oneshot::Sender<Result<Value, String>>,
}

impl Order {
    /// Tells the one who asked what came of it: what changed, or why nothing did.
    pub fn answer(self, result: Result<Value, String>) {
        // It has given up waiting.
        let _ = self.done.send(result);
    }
}

/// Where orders go.
#[derive(Clone, Debug)]
pub struct Orders(mpsc::Sender<Order>);

impl Orders {
    /// A way for orders, and where they come out.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<Order>) {
        let (sender, orders) = mpsc::channel(QUEUE);
        (Self(sender), orders)
    }

    /// Has something done.
    ///
    /// # Errors
    /// Why it was not; nobody may be there to do it.
    pub(super) async fn give(&self, task: Task) -> Result<Value, Refused> {
        let (done, result) = oneshot::channel();
        if self.0.try_send(Order { task, done }).is_err() {
            let reason = "the relay is stopping, or has too much to do; try again in a moment";
            return Err(Refused::Unavailable(reason.to_owned()));
        }
        match timeout(PATIENCE, result).await {
            Ok(Ok(result)) => result.map_err(Refused::Failed),
            Ok(Err(_)) => Err(Refused::Unavailable(
                "the relay is stopping; ask again once it runs".to_owned(),
            )),
            Err(_) => Err(Refused::Unavailable("it takes too long; see the log".to_owned())),
        }
    }
}
