//! The server that a host talks to: carries out its calls.

use std::sync::Arc;
use std::time::Duration;

use beacon_client::peerbus::{Delivery, SendError, Sender, Sent};
use beacon_client::wire::peerbus::EVERYBODY;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation,
    ListToolsResult, PaginatedRequestParams, RequestId, ServerCapabilities, ServerConfig,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::inbox::Inbox;
use crate::outbox::{Outbox, Posted};
use crate::plain::reason;
use crate::standing::{Reach, Standing};
use crate::tools::{ABOUT_BODIES, Call, Tools, object};

/// Longest wait for the relay to store a message; then the call goes on, and so does the message.
const RECEIPT: Duration = Duration::from_secs(10);

/// Longest wait for a session to come up before a message counts as queued.
const DIAL: Duration = Duration::from_secs(2);

/// Longest wait for who is connected: as the original's adapters wait.
const PEERS: Duration = Duration::from_secs(5);

/// Most calls without a result. Hosts make a few at a time.
pub(crate) const CALLS: usize = 256;

/// The capability of hosts that put what they are told into a conversation.
const CHANNEL: &str = "claude/channel";

/// What a host is served with.
pub(crate) struct Host {
    pub(crate) name: String,
    pub(crate) tools: Tools,
    /// Whether it is told of each message.
    pub(crate) is_channel: bool,
    pub(crate) sender: Sender,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) outbox: Outbox,
    pub(crate) standing: Standing,
    /// The host is gone: nobody waits any more.
    pub(crate) gone: CancellationToken,
    /// Set once the host takes notifications.
    pub(crate) ready: watch::Sender<bool>,
    /// Places of calls that are being carried out.
    pub(crate) calls: Semaphore,
}

impl Host {
    async fn carry_out(&self, call: Call, id: &RequestId) -> Result<Value, String> {
        match call {
            Call::Send { to, body } if to == EVERYBODY => {
                self.post(&to, &body).await.map(|outcome| outcome.told(json!({"broadcast": true})))
            }
            Call::Send { to, body } => {
                let outcome = self.post(&to, &body).await?;
                Ok(outcome.told(json!({"sent": true, "to": to})))
            }
            Call::Broadcast { body } => {
                let outcome = self.post(EVERYBODY, &body).await?;
                Ok(outcome.told(json!({"broadcast": true})))
            }
            Call::Peers => self.peers().await,
            Call::Drain => self.drain(id),
            Call::Wait(patience) => {
                tokio::select! {
                    () = self.inbox.wait(patience) => {}
                    () = self.gone.cancelled() => {}
                }
                self.drain(id)
            }
        }
    }

    /// Sends a message, and waits for the relay while that may be quick.
    async fn post(&self, to: &str, body: &Value) -> Result<Outcome, String> {
        if self.standing.reach() == Reach::Refused {
            return Err(self.standing.trouble().unwrap_or_default());
        }
        let json = body.to_string();
        let mut posted =
            self.outbox.post(to, json.as_bytes()).map_err(|error| error.to_string())?;
        let patience = match self.standing.reach() {
            Reach::Connected => RECEIPT,
            Reach::Connecting => DIAL,
            Reach::Away | Reach::Refused => Duration::ZERO,
        };
        let known = tokio::select! {
            // What is there counts before the reasons not to wait.
            biased;
            outcome = posted.outcome() => Some(outcome),
            () = self.standing.gone() => None,
            () = tokio::time::sleep(patience) => None,
        };
        let Posted { id, .. } = &posted;
        let id = id.clone();
        match known.or_else(|| posted.leave()) {
            Some(Ok(sent)) => Ok(Outcome::Sent { id, sent }),
            Some(Err(error)) => Err(refusal(&error, to)),
            None => {
                let trouble = self.standing.trouble();
                Ok(Outcome::Queued { id, waiting: self.outbox.waiting(), trouble })
            }
        }
    }

    async fn peers(&self) -> Result<Value, String> {
        let asked = async {
            self.standing.settle(PEERS).await;
            match self.standing.reach() {
                Reach::Connected => Some(self.sender.peers().await),
                Reach::Connecting | Reach::Away | Reach::Refused => None,
            }
        };
        match timeout(PEERS, asked).await.ok().flatten() {
            Some(Ok(names)) => {
                let others: Vec<_> = names.into_iter().filter(|name| *name != self.name).collect();
                Ok(json!({"self": self.name, "peers": others}))
            }
            Some(Err(_)) | None => Err(self
                .standing
                .trouble()
                .unwrap_or_else(|| "the relay does not answer; try again".to_owned())),
        }
    }

    fn drain(&self, id: &RequestId) -> Result<Value, String> {
        let (messages, remaining) = self.inbox.take(id, shown);
        let trouble = self.standing.trouble();
        if let (true, Reach::Refused, Some(trouble)) =
            (messages.is_empty(), self.standing.reach(), &trouble)
        {
            return Err(trouble.clone());
        }
        let mut drained = json!({"messages": messages, "remaining": remaining});
        if !messages.is_empty() {
            drained["about"] = ABOUT_BODIES.into();
        }
        if let Some(trouble) = trouble {
            drained["connection"] = trouble.into();
        }
        Ok(drained)
    }

    /// A result, with what is to be told of earlier calls.
    fn result(&self, outcome: Result<Value, String>) -> CallToolResult {
        let failures = self.outbox.take_failures();
        let failed = failures.iter().map(|failure| {
            json!({
                "id": failure.id, "to": failure.to, "reason": refusal(&failure.error, &failure.to),
            })
        });
        let failed: Vec<_> = failed.collect();
        match outcome {
            Ok(mut value) => {
                if !failed.is_empty() {
                    value["failed_earlier"] = failed.into();
                }
                CallToolResult::structured(value)
            }
            Err(mut text) => {
                if !failed.is_empty() {
                    let failed = Value::from(failed);
                    text = format!("{text}\nMessages that were queued and failed: {failed}");
                }
                CallToolResult::error(vec![ContentBlock::text(text)])
            }
        }
    }
}

/// What became of a message while its call waited.
enum Outcome {
    Sent { id: String, sent: Sent },
    Queued { id: String, waiting: usize, trouble: Option<String> },
}

impl Outcome {
    /// What the host is told: `done`, where the relay has the message.
    fn told(self, mut done: Value) -> Value {
        match self {
            Self::Sent { id, sent } => {
                done["id"] = id.into();
                done["result"] = match sent {
                    Sent::Stored => "stored",
                    Sent::Duplicate => "duplicate",
                    Sent::Written => "written",
                }
                .into();
            }
            Self::Queued { id, waiting, trouble } => {
                for member in ["sent", "broadcast"] {
                    if let Some(done) = done.get_mut(member) {
                        *done = false.into();
                    }
                }
                done["id"] = id.into();
                done["result"] = "queued".into();
                done["queued"] = waiting.into();
                let why = trouble.unwrap_or_else(|| "the relay has not answered yet".to_owned());
                done["connection"] = why.into();
            }
        }
        done
    }
}

/// Why a message was not sent, in words for an agent.
fn refusal(error: &SendError, to: &str) -> String {
    let said = match error {
        SendError::Refused { reason } => reason.as_str(),
        SendError::TooLarge { .. }
        | SendError::Body(_)
        | SendError::NoRecipient
        | SendError::NoRandomness
        | SendError::Ended
        | SendError::NoAnswer
        | _ => return format!("not sent: {error}"),
    };
    match said {
        "unknown_recipient" => format!("not sent: no peer {to:?} has ever been on this bus"),
        "no_recipients" => "not sent: nobody else is connected".to_owned(),
        "quota" => format!("not sent: the mailbox of {to:?} is full"),
        said => format!("not sent: the relay refused the message: {}", reason(said)),
    }
}

/// A message, as a host sees it.
fn shown(delivery: &Delivery) -> Value {
    let mut shown = json!({
        "id": delivery.id(),
        "from": delivery.from(),
        "source": delivery.source(),
        "kind": delivery.kind(),
        "ts": delivery.ts(),
    });
    match delivery.read::<Value>() {
        Ok(body) => shown["body"] = body,
        // JSON that is none here, such as half of a surrogate pair: as it is written.
        Err(_) => shown["body_json"] = delivery.body().into(),
    }
    shown
}

impl ServerHandler for Host {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools();
        let (capabilities, how) = if self.is_channel {
            let channel = [(CHANNEL.to_owned(), object(json!({})))].into();
            let capabilities = capabilities.enable_experimental_with(channel).build();
            let how = "Messages come to you as <channel> events; meta says who sent each.";
            (capabilities, how)
        } else {
            let how = "Call wait or drain to get messages; each is handed out once.";
            (capabilities.build(), how)
        };
        let instructions = format!(
            "You are the peer {:?} of a message bus of AI agents. {how} {ABOUT_BODIES}",
            self.name
        );
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("beacon-relay", env!("CARGO_PKG_VERSION")))
            .with_instructions(instructions)
    }

    async fn on_initialized(&self, _context: NotificationContext<RoleServer>) {
        self.ready.send_replace(true);
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        // Hosts of the latest version say no more that they are ready.
        self.ready.send_replace(true);
        Ok(ListToolsResult::with_all_items(self.tools.list()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        // Whatever it asks for, it shows what the host has received.
        self.inbox.acknowledge().await;
        let Ok(_place) = self.calls.try_acquire() else {
            let text = format!("{CALLS} calls have no result yet: wait for some of them");
            return Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into());
        };
        let CallToolRequestParams { name, arguments, .. } = request;
        let call = self.tools.read(&name, arguments);
        let carried_out = async { self.carry_out(call?, &context.id).await };
        let outcome = tokio::select! {
            outcome = carried_out => outcome,
            () = context.ct.cancelled() => Err("withdrawn".to_owned()),
        };
        Ok(self.result(outcome).into())
    }
}
