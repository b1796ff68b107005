//! Tells a host of each message as it comes, for hosts that put that into a conversation.
//!
//! Nobody answers a notification. A ping behind it does: its answer shows that the host has read
//! what stood before, and what it has read is acknowledged.

use std::sync::Arc;
use std::time::Duration;

use beacon_client::peerbus::Delivery;
use rmcp::RoleServer;
use rmcp::model::{CustomNotification, PingRequest, RequestId, ServerNotification, ServerRequest};
use rmcp::service::{Peer, ServiceError};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::inbox::Inbox;
use crate::plain::{json_line, plain, quoted};
use crate::standing::Standing;
use crate::tools::ABOUT_BODIES;

/// The notification that such hosts know.
const METHOD: &str = "notifications/claude/channel";

/// Longest wait for the answer to a ping; then another follows.
const PONG: Duration = Duration::from_secs(30);

/// How long each look for messages takes; nothing depends on it.
const LOOK: Duration = Duration::from_secs(60);

/// Tells of each message, once the host takes notifications.
pub(crate) async fn tell(
    peer: Peer<RoleServer>,
    inbox: Arc<Inbox>,
    mut ready: watch::Receiver<bool>,
) {
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    let mut can_ask = true;
    // Each run of messages is the result of a call that no host makes.
    for number in 0_u64.. {
        inbox.wait(LOOK).await;
        let run = RequestId::String(format!("channel-{number}").into());
        inbox.called(run.clone());
        let (messages, _) = inbox.take(&run, message);
        if messages.is_empty() {
            inbox.received(&run);
            continue;
        }
        for message in messages {
            if notify(&peer, message).await.is_err() {
                return;
            }
        }
        if can_ask {
            can_ask = answers(&peer).await;
        }
        if can_ask {
            inbox.received(&run);
            inbox.acknowledge().await;
        } else {
            // The next call of the host shows it.
            inbox.written(&run);
        }
    }
}

/// Says each time that the peer is registered under which name.
pub(crate) async fn announce(
    peer: Peer<RoleServer>,
    name: String,
    mut standing: Standing,
    mut ready: watch::Receiver<bool>,
) {
    if ready.wait_for(|ready| *ready).await.is_err() {
        return;
    }
    while standing.connected().await {
        let content = format!("\u{1f4e1} connected as {name}");
        let params = json!({"content": content, "meta": {"kind": "system", "self": name}});
        if notify(&peer, params).await.is_err() || !standing.disconnected().await {
            return;
        }
    }
}

async fn notify(peer: &Peer<RoleServer>, params: Value) -> Result<(), ServiceError> {
    let notification = CustomNotification::new(METHOD, Some(params));
    peer.send_notification(ServerNotification::CustomNotification(notification)).await
}

/// Waits until the host answers a ping, whatever it says; false where it cannot be asked.
async fn answers(peer: &Peer<RoleServer>) -> bool {
    loop {
        let ping = ServerRequest::PingRequest(PingRequest::default());
        match timeout(PONG, peer.send_request(ping)).await {
            Ok(Ok(_) | Err(ServiceError::McpError(_))) => return true,
            Ok(Err(error)) => {
                debug!(%error, "the host cannot be asked whether it gets messages");
                return false;
            }
            Err(_) => warn!("the host does not answer"),
        }
    }
}

/// A message, as such a host is told of it: its sender's texts end neither their line nor the tag
/// that the host may put them in.
fn message(delivery: &Delivery) -> Value {
    let (kind, from) = (plain(delivery.kind()), plain(delivery.from()));
    let body = json_line(delivery.body());
    json!({
        "content": format!("\u{1f4e8} {kind} from {from}: {body}\n({ABOUT_BODIES})"),
        "meta": {
            "from": quoted(delivery.from()),
            "kind": quoted(delivery.kind()),
            "msg_id": quoted(delivery.id()),
            "source": quoted(delivery.source()),
        },
    })
}
