//! Puts a host of the Model Context Protocol (an agent's program) on the message bus: a server over
//! stdin and stdout that the host starts, and a peer of the bus towards the relay.
//!
//! # Layout
//! - `tools`: what the host is offered; `host`: carries out its calls.
//! - `inbox`: what the bus has delivered, by the rules of `ledger`: acknowledged once the host's
//!   next call shows that it has received the result. `channel` tells hosts that want it of each
//!   message instead.
//! - `outbox`: what the host sends, kept while there is no connection; `standing`: how that is.
//! - `witness`: the streams, with an eye on what has left; a host that asks faster than it reads is
//!   read no further.
//! - `plain`: what others have written, kept within its line.
//!
//! Nothing is written to stdout but the protocol. [`serve`] ends with its input.

mod channel;
mod host;
mod inbox;
mod ledger;
mod names;
mod outbox;
mod plain;
mod standing;
mod tools;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use beacon_client::ConnectError;
use beacon_client::peerbus::{Client, Options, Receiver, Refused, Sender};
use rmcp::service::{RunningService, ServerInitializeError};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::{RoleServer, ServiceExt as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

pub use names::{NoRandomness, friendly};
pub use tools::Separator;

use host::Host;
use inbox::Inbox;
use outbox::Outbox;
use standing::Standing;
use tools::Tools;
use witness::Witness;

/// Longest line that a host may write, in bytes: a message of 1 MiB, each byte of which JSON escapes
/// by six, and what stands around it.
const LONGEST_LINE: usize = 8 * 1_048_576;

/// Longest time that results may take once the host is gone, and then the bus. Hosts kill what has
/// not ended after two seconds.
const LAST_RESULTS: Duration = Duration::from_millis(500);
const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// What a host wants.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Adapter {
    /// To ask for messages.
    #[default]
    Generic,
    /// To be told of each, as Claude Code's channels are.
    Channel,
}

/// What the server is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The relay, and who this peer is.
    pub options: Options,
    /// What the host wants.
    pub adapter: Adapter,
    /// What the tools' names are written with.
    pub separator: Separator,
}

/// Why there was nothing to serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The URL, the proxy or the certificate authorities are of no use.
    #[error(transparent)]
    Client(#[from] ConnectError),
    /// The host does not speak the protocol.
    #[error("the host has not begun as the Model Context Protocol does")]
    Host,
}

/// Serves a host until `input` ends, `stop` is cancelled, or `output` takes nothing more.
///
/// What was sent and not stored by then gets a second more.
///
/// # Errors
/// Settings that are of no use; a host that does not speak the protocol. A relay that is away, or
/// refuses, is no error: the host's calls are answered with what is wrong.
pub async fn serve(
    settings: Settings,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let Settings { options, adapter, separator } = settings;
    let name = options.name.clone();
    let (sender, receiver, state) = Client::start(options)?.split();
    let (refuse, refused) = watch::channel(None);
    let standing = Standing::new(name.clone(), state, refused);
    let inbox = Arc::new(Inbox::default());
    let (outbox, courier) = Outbox::new(sender.clone());
    let _log = spawn(standing.clone().log());
    let filling = spawn(fill(Arc::clone(&inbox), receiver, refuse));
    let bus = Bus { sender: sender.clone(), inbox: Arc::clone(&inbox), filling };
    let courier = spawn(courier.run());

    // At the end of the input, what was asked for before is still answered; at a stop it is not.
    let gone = stop.child_token();
    let is_channel = adapter == Adapter::Channel;
    let (ready, is_ready) = watch::channel(false);
    let host = Host {
        name: name.clone(),
        tools: Tools::new(separator, !is_channel),
        is_channel,
        sender,
        inbox: Arc::clone(&inbox),
        outbox,
        standing: standing.clone(),
        gone: gone.clone(),
        ready,
        calls: Semaphore::new(host::CALLS),
    };
    let transport =
        AsyncRwTransport::<RoleServer, _, _>::new(input, output).with_max_line_length(LONGEST_LINE);
    let witness = Witness::new(transport, Arc::clone(&inbox), gone.clone());
    let service = match host.serve_with_ct(witness, stop).await {
        Ok(service) => service,
        // It has started us and left.
        Err(ServerInitializeError::Cancelled | ServerInitializeError::ConnectionClosed(_)) => {
            return Ok(());
        }
        Err(_) => return Err(ServeError::Host),
    };
    let peer = service.peer().clone();
    let _telling = is_channel.then(|| {
        let announcing = channel::announce(peer.clone(), name, standing, is_ready.clone());
        [spawn(announcing), spawn(channel::tell(peer, inbox, is_ready))]
    });
    gone.cancelled().await;
    end(service, bus, courier).await;
    Ok(())
}

/// What stands between the host and the relay, at the end.
struct Bus {
    sender: Sender,
    inbox: Arc<Inbox>,
    filling: AbortOnDropHandle<()>,
}

/// Writes the last results, and then has the relay get what it has not.
async fn end(service: RunningService<RoleServer, Host>, bus: Bus, courier: AbortOnDropHandle<()>) {
    // All that waits has been told of the end. With the service, the outbox goes.
    if timeout(LAST_RESULTS, service.waiting()).await.is_err() {
        info!("the host takes no more results");
    }
    let leaving = async {
        bus.inbox.acknowledge().await;
        // None of the host's calls is left to post anything.
        let _ = courier.await;
        bus.sender.close().await;
        let _ = bus.filling.await;
    };
    if timeout(LAST_MESSAGES, leaving).await.is_err() {
        warn!("ended before the relay has taken everything");
    }
}

/// Takes what the bus delivers; then keeps why it ended.
async fn fill(inbox: Arc<Inbox>, mut receiver: Receiver, refuse: watch::Sender<Option<Refused>>) {
    if let Err(refused) = inbox.fill(&mut receiver).await {
        refuse.send_replace(Some(refused));
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    let task: JoinHandle<()> = tokio::spawn(task);
    AbortOnDropHandle::new(task)
}
