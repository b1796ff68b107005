//! The streams to a host, with an eye on what they carry: which calls come in, which results have
//! left, which calls are withdrawn, and when the host is gone.

use std::sync::Arc;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    ClientNotification, ClientRequest, JsonRpcMessage, JsonRpcNotification, JsonRpcRequest,
    RequestId,
};
use rmcp::service::{RxJsonRpcMessage, TxJsonRpcMessage};
use rmcp::transport::Transport;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;

/// Longest wait of a call for results that are being written: a host that has just read one may be
/// faster with its next call than we are with the news that the result has left.
const SETTLING: Duration = Duration::from_millis(100);

/// Results that may be on their way to a host that does not read: beyond that it is read no further.
const UNREAD: usize = 256;

/// Longest time in which such a host reads none; then it counts as gone.
const UNREAD_TIME: Duration = Duration::from_secs(60);

/// A transport that tells the inbox.
pub(crate) struct Witness<T> {
    inner: T,
    inbox: Arc<Inbox>,
    /// Cancelled when either stream has ended.
    gone: CancellationToken,
    /// How many results are being written.
    writing: watch::Sender<usize>,
    /// A call that has come in, and how long it waits at most.
    arrived: Option<(RxJsonRpcMessage<RoleServer>, Instant)>,
}

impl<T> Witness<T> {
    pub(crate) fn new(inner: T, inbox: Arc<Inbox>, gone: CancellationToken) -> Self {
        Self { inner, inbox, gone, writing: watch::Sender::new(0), arrived: None }
    }
}

/// Counts as a result that is being written while it lives.
struct Writing(watch::Sender<usize>);

impl Writing {
    fn begin(writing: &watch::Sender<usize>) -> Self {
        writing.send_modify(|writing| *writing += 1);
        Self(writing.clone())
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.send_modify(|writing| *writing -= 1);
    }
}

impl<T: Transport<RoleServer>> Witness<T> {
    /// The next message; a call once what was written before it has left. None where the host has
    /// ended, or does not read. Cancel-safe.
    async fn next(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        if self.arrived.is_none() {
            has_read(self.writing.subscribe()).await?;
            let message = self.inner.receive().await?;
            if call_of(&message).is_none() {
                return Some(message);
            }
            self.arrived = Some((message, Instant::now() + SETTLING));
        }
        if let Some((_, end)) = &self.arrived {
            let mut writing = self.writing.subscribe();
            // A host that does not read gets its call carried out as well.
            let _ = timeout_at(*end, writing.wait_for(|writing| *writing == 0)).await;
        }
        self.arrived.take().map(|(message, _)| message)
    }
}

/// Waits while results beyond [`UNREAD`] wait for the host; none where that takes too long.
async fn has_read(mut writing: watch::Receiver<usize>) -> Option<()> {
    let mut before = *writing.borrow_and_update();
    while before >= UNREAD {
        let fewer = timeout(UNREAD_TIME, writing.wait_for(|now| *now < before)).await;
        before = *fewer.ok()?.ok()?;
    }
    Some(())
}

/// The id of a message that is a call.
fn call_of(message: &RxJsonRpcMessage<RoleServer>) -> Option<&RequestId> {
    if let JsonRpcMessage::Request(JsonRpcRequest { id, request, .. }) = message
        && matches!(request, ClientRequest::CallToolRequest(_))
    {
        Some(id)
    } else {
        None
    }
}

impl<T: Transport<RoleServer>> Transport<RoleServer> for Witness<T> {
    type Error = T::Error;

    fn send(
        &mut self,
        message: TxJsonRpcMessage<RoleServer>,
    ) -> impl Future<Output = Result<(), T::Error>> + Send + 'static {
        let answered = match &message {
            JsonRpcMessage::Response(response) => Some(response.id.clone()),
            JsonRpcMessage::Error(error) => error.id.clone(),
            JsonRpcMessage::Request(_) | JsonRpcMessage::Notification(_) => None,
        };
        let writing = Writing::begin(&self.writing);
        let sending = self.inner.send(message);
        let inbox = Arc::clone(&self.inbox);
        let gone = self.gone.clone();
        async move {
            let sent = sending.await;
            match (&sent, answered) {
                (Ok(()), Some(call)) => inbox.written(&call),
                (Ok(()), None) => {}
                (Err(_), _) => gone.cancel(),
            }
            drop(writing);
            sent
        }
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleServer>> {
        let message = self.next().await;
        match &message {
            None => self.gone.cancel(),
            Some(JsonRpcMessage::Notification(JsonRpcNotification {
                notification: ClientNotification::CancelledNotification(cancelled),
                ..
            })) => {
                if let Some(call) = &cancelled.params.request_id {
                    self.inbox.withdrawn(call);
                }
            }
            Some(message) => {
                if let Some(call) = call_of(message) {
                    self.inbox.called(call.clone());
                }
            }
        }
        message
    }

    async fn close(&mut self) -> Result<(), T::Error> {
        self.inner.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn host_that_reads_nothing_is_given_up_and_one_that_reads_slowly_is_not() {
        let writing = watch::Sender::new(UNREAD + 2);
        let slow = writing.clone();
        tokio::spawn(async move {
            for _ in 0..3 {
                tokio::time::sleep(UNREAD_TIME - Duration::from_millis(1)).await;
                slow.send_modify(|writing| *writing -= 1);
            }
        });
        assert_eq!(has_read(writing.subscribe()).await, Some(()));

        writing.send_replace(UNREAD);
        let began = Instant::now();
        assert_eq!(has_read(writing.subscribe()).await, None);
        assert_eq!(began.elapsed(), UNREAD_TIME);
    }
}
