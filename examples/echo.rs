//! A relay with one more door, which is all in this file: `echo`, whose peers exchange text.
//!
//! A peer connects to `/echo`, and its first message is its name and a secret: the name is its
//! own as long as it is connected. From then on `bob hi` brings `alice hi` to bob, on whichever
//! relay of the cluster he is, and `alice hi` back to her.
//!
//! ```text
//! printf '[[listener]]\nbind = "127.0.0.1:7070"\ndoors = ["echo"]\n' > relay.toml
//! cargo run --example echo -- serve --config relay.toml
//! cargo run --example echo -- explain echo:alice
//! ```

use std::process::ExitCode;
use std::sync::{Arc, Weak};
use std::time::Instant;

use beacon_relay::config::{DoorKind, DoorPaths};
use beacon_relay::doors::Plan;
use beacon_relay::metrics::Owner;
use beacon_relay::peers::{Credential, Overflow, Principal, Takeover};
use beacon_relay::relay::{Delivery, Flow, Head, Message, Router};
use beacon_relay::session::{
    Answer, Conversation, Door, Kind, Messages, Outcome, Refusal, Session, Welcome,
};
use beacon_relay::wire::Framing;
use beacon_relay::wire::name::{MAX_LENGTH, Name, Realm, Spelling};
use beacon_relay::wire::websocket::Opcode;
use sha2::{Digest as _, Sha256};

/// What the configuration knows of the door.
static ECHO: DoorKind = DoorKind { name: "echo", paths: DoorPaths::Fixed(&["/echo"]), quic: None };

/// The name space of its peers, which no other door of the cluster has.
const REALM: Realm = Realm(200);

/// How operators write their names: `echo:alice`.
const SPELLING: Spelling = Spelling {
    door: ECHO.name,
    show: |bytes, f| f.write_str(&String::from_utf8_lossy(bytes)),
    parse: |text| Some(text.into()),
};

/// Longest message, in bytes.
const LONGEST: usize = 4_096;

/// Why its peers' messages are dropped, beside what every door's are dropped for.
struct EchoDrop;

beacon_relay::reasons! {
    impl EchoDrop of Owner::Door(REALM, ECHO.name);

    NO_MESSAGE = "no_message", "it is not a name, a space and text", "the client's software";
}

struct Echo {
    router: Arc<Router>,
}

impl Door for Echo {
    fn name(&self) -> &'static str {
        ECHO.name
    }

    fn max_greeting(&self) -> usize {
        256
    }

    fn max_message(&self) -> usize {
        LONGEST
    }

    fn greet<'a>(
        &'a self,
        conversation: &'a mut Conversation<'_>,
    ) -> Answer<'a, Result<Welcome, Refusal>> {
        Box::pin(async move {
            let (kind, text) = conversation.receive().await?;
            let said = str::from_utf8(&text).ok().and_then(|text| text.split_once(' '));
            let (name, secret) = match (kind, said) {
                (Kind::Text, Some((name, secret))) if name.len() <= MAX_LENGTH => (name, secret),
                _ => return Err(Refusal::new(Outcome::AuthFail, self.refusal(Outcome::AuthFail))),
            };
            Ok(Welcome {
                principal: Principal {
                    name: Name::new(REALM, name.as_bytes()),
                    credential: Credential(Sha256::digest(secret).into()),
                },
                takeover: Takeover::SameCredential,
                framing: Framing::Text,
                overflow: Overflow::DropOldest,
                takes: LONGEST,
                outbox_bytes: None,
                is_patient: false,
                data: None,
            })
        })
    }

    fn accept(&self, session: &Session) {
        session.push_control(Opcode::Text, b"welcome");
    }

    fn messages(&self, session: &Arc<Session>, messages: Messages<'_>, now: Instant) {
        let kind = messages.kind;
        self.router.take(self, session, messages.frames, now, |turn, message| {
            let text = str::from_utf8(message).ok().filter(|_| kind == Kind::Text);
            let Some((name, _)) = text.and_then(|text| text.split_once(' ')) else {
                return Message::Dropped { reason: EchoDrop::NO_MESSAGE, dest: None };
            };
            let dest = Name::new(REALM, name.as_bytes());
            match turn.admit(message.len()) {
                Ok(()) => Message::Packet { dest, header: name.len() + 1 },
                Err(reason) => Message::Dropped { reason, dest: Some(dest) },
            }
        });
    }
}

impl Delivery for Echo {
    fn head(&self, flow: &Flow, _: &Session) -> Head {
        Head::new(&[flow.sender.bytes(), b" "])
    }

    /// Names are text, and short; another relay could send anything.
    fn has(&self, name: Name) -> bool {
        !name.is_hashed() && str::from_utf8(name.bytes()).is_ok()
    }
}

/// The door, for a program that serves it.
fn plan() -> Plan {
    Plan::new(&ECHO, REALM, SPELLING, |parts| {
        let echo = Arc::new(Echo { router: Arc::clone(parts.router) });
        // So that it gets what other relays send to its peers.
        let weak: Weak<dyn Delivery> = Arc::<Echo>::downgrade(&echo);
        parts.router.serve(REALM, weak);
        parts.router.traffic().register(EchoDrop::REASONS);
        echo
    })
}

fn main() -> ExitCode {
    beacon_relay::cli::run_with(std::env::args_os(), vec![plan()])
}
