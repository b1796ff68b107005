//! The receiving half of a client, whatever the protocol: what comes, and why nothing more does.

use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::keep::State;

/// The receiving half. It owns the client: dropping it ends the session at once. `T` is what comes,
/// and `E` why the client ended.
#[derive(Debug)]
pub struct Receiver<T, E> {
    incoming: mpsc::Receiver<T>,
    /// The client's own, until its end was told.
    task: Option<AbortOnDropHandle<Result<(), E>>>,
}

impl<T, E: Send + 'static> Receiver<T, E> {
    /// Starts the client's own task, which sends what comes.
    pub(crate) fn spawn(
        incoming: mpsc::Receiver<T>,
        task: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> Self {
        Self { incoming, task: Some(AbortOnDropHandle::new(tokio::spawn(task))) }
    }

    /// Waits for what comes next; `None` after our own close. Cancel-safe.
    ///
    /// # Errors
    /// Why the client ended, once; `None` from then on.
    ///
    /// # Panics
    /// When the client's own task panicked.
    pub async fn recv(&mut self) -> Result<Option<T>, E> {
        if let Some(next) = self.incoming.recv().await {
            return Ok(Some(next));
        }
        self.end().await.map(|()| None)
    }

    /// Waits until there is a session, of a client that is kept alive.
    pub(crate) async fn connected<C>(
        &mut self,
        state: &mut watch::Receiver<State<C>>,
    ) -> Result<(), E> {
        let is_connected = |state: &State<C>| matches!(state, State::Connected);
        if state.wait_for(is_connected).await.is_ok() {
            return Ok(());
        }
        self.end().await
    }

    /// Passes over all that comes until the end.
    pub(crate) async fn drain(&mut self) -> Result<(), E> {
        while self.recv().await?.is_some() {}
        Ok(())
    }

    async fn end(&mut self) -> Result<(), E> {
        let Some(task) = &mut self.task else { return Ok(()) };
        let ended = task.await.expect("the task ends by itself while its handle is held");
        self.task = None;
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn end_is_told_once_and_behind_all_that_came() {
        let (sender, incoming) = mpsc::channel(2);
        let mut receiver = Receiver::spawn(incoming, async move {
            for number in [1, 2] {
                sender.send(number).await.expect("it is read");
            }
            Err("refused")
        });

        assert_eq!(receiver.recv().await, Ok(Some(1)));
        assert_eq!(receiver.recv().await, Ok(Some(2)));
        assert_eq!(receiver.recv().await, Err("refused"));
        assert_eq!(receiver.recv().await, Ok(None));
    }
}
