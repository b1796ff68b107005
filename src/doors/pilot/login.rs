//! The login of nodes: challenge, reply, verdict (SPEC §4).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use getrandom::SysRng;
use rand_core::TryRng as _;
use tokio::time::{Instant, sleep_until};

use super::Pilot;
use super::canary::NODE as CANARY;
use crate::doors::pilot::directory::Lookup;
use crate::ids::NodeId;
use crate::metrics::Word as _;
use crate::peers::{Credential, Overflow, Principal, Takeover};
use crate::proto::login::{self, RefusalReason};
use crate::session::{Conversation, Kind, Outcome, Refusal, Welcome, refusal};
use crate::wire::Framing;
use crate::wire::auth::{Challenge, Nonce, Reply};

/// From a reply to its refusal: longer than any look-up at hand, so that an unknown node and
/// a wrong signature look alike (SPEC §4.4).
const REFUSAL_DELAY: Duration = Duration::from_millis(250);

impl Pilot {
    /// Challenges the client and judges its reply.
    pub(super) async fn log_in(
        &self,
        conversation: &mut Conversation<'_>,
    ) -> Result<Welcome, Refusal> {
        let challenge = challenge(self.login.load().relay_name.clone());
        conversation.send(Kind::Text, challenge.encode().as_bytes()).await?;
        let (kind, reply) = conversation.receive().await?;
        if kind == Kind::Binary {
            // Packets before the login are nobody's.
            return Err(self.refuse(RefusalReason::Malformed));
        }
        let replied = Instant::now();
        let is_probe = conversation.client().is_probe;
        let judged = self.judge(&challenge, &reply, is_probe).await;
        if judged.is_err() {
            // The client may go on talking meanwhile; nobody listens.
            sleep_until(replied + REFUSAL_DELAY).await;
        }
        judged
    }

    /// Whether the key still is the node's: its session would have ended in the meantime.
    pub(super) async fn look_again(&self, welcome: &Welcome) -> Result<(), Refusal> {
        let Principal { name, credential } = welcome.principal;
        let node = name.node_id().expect("whom this door welcomes is a node");
        match self.lookup(node, false).await {
            Lookup::Key(key) if Credential::from(key) == credential => Ok(()),
            Lookup::Key(_) => Err(self.refuse(RefusalReason::OtherKey)),
            Lookup::Unknown => Err(self.refuse(RefusalReason::UnknownNode)),
            Lookup::Unavailable => Err(unavailable()),
        }
    }

    /// Counts a refusal, and makes it.
    pub(super) fn refuse(&self, reason: RefusalReason) -> Refusal {
        self.refusals.of(reason).increment();
        let outcome = Outcome::AuthFail;
        Refusal { reason: Some(reason.word()), ..Refusal::new(outcome, refusal(outcome)) }
    }

    async fn lookup(&self, node: NodeId, is_probe: bool) -> Lookup {
        match (node == CANARY, is_probe) {
            (true, true) => Lookup::Key(self.canary_key()),
            // It is nobody's but the canary's.
            (true, false) | (false, true) => Lookup::Unknown,
            (false, false) => self.keys.lookup(node).await,
        }
    }

    async fn judge(
        &self,
        challenge: &Challenge,
        reply: &[u8],
        is_probe: bool,
    ) -> Result<Welcome, Refusal> {
        let reply = Reply::decode(reply).map_err(|_| self.refuse(RefusalReason::Malformed))?;
        let node = reply.node;
        let key = match self.lookup(node, is_probe).await {
            Lookup::Key(key) => key,
            Lookup::Unknown => return Err(self.refuse(RefusalReason::UnknownNode).of(node.into())),
            Lookup::Unavailable => return Err(unavailable().of(node.into())),
        };
        let min_generation = self.login.load().min_generation;
        match login::check(challenge, &reply, &key, min_generation, unix_seconds()) {
            Ok(generation) => {
                let generation = generation.number();
                tracing::debug!(%node, generation, "proved its key");
                Ok(Welcome {
                    principal: Principal { name: node.into(), credential: reply.public_key.into() },
                    takeover: Takeover::Always,
                    framing: Framing::Binary,
                    overflow: Overflow::DropOldest,
                    takes: reply.max_message.bytes(),
                    outbox_bytes: None,
                    is_patient: false,
                    data: None,
                })
            }
            Err(reason) => Err(self.refuse(reason).of(node.into())),
        }
    }
}

fn unavailable() -> Refusal {
    Refusal::new(Outcome::Unavailable, refusal(Outcome::Unavailable))
}

fn challenge(relay: Option<String>) -> Challenge {
    let mut nonce = [0; 32];
    SysRng.try_fill_bytes(&mut nonce).expect("the system has randomness once it has booted");
    Challenge { nonce: Nonce(nonce).to_string(), ts: unix_seconds(), relay }
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
