//! What operators see of the message bus, and change: names, and what waits for them.
//!
//! The bus's own thread looks and changes, between two commits, so that nothing is half done.

use std::sync::Arc;

use serde::Serialize;

use super::Refused;
use crate::bus::{Desk, Handle, Outcome};
use crate::proto::bus::{
    self, Cause, Letter, Level, MailboxId, Millis, Named, Owner, Presence, Stored,
};
use crate::store::{DeadLetter, Most};
use crate::wire::name::Realm;

/// Most messages that one answer shows,
const MOST_MESSAGES: usize = 1_000;

/// and most bytes of them.
const MOST_BYTES: usize = 4 << 20;

/// Dead letters that are put back in one commit.
const PIECE: Most = Most { messages: 256, bytes: MOST_BYTES };

/// Characters of an owner without a label that are shown: enough to tell two apart.
const SHOWN: usize = 4;

/// The message bus, as operators reach it.
pub struct Queues {
    /// The bus.
    pub bus: Handle,
    /// The name space of its channels.
    pub channel_realm: Realm,
    /// The labels of credentials, each with the owner of what they have taken.
    pub labels: Box<dyn Fn() -> Vec<(String, Owner)> + Send + Sync>,
}

/// A name of the bus.
#[derive(Clone, Debug, Serialize)]
struct NameView {
    name: String,
    door: Option<&'static str>,
    /// The label, `token` and the beginning of what tells it from others, `nobody`, or `reserved`.
    owner: String,
    connected: bool,
    /// How long ago its owner came or left, in seconds.
    seen: f64,
    messages: u64,
}

/// The names of the bus.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Names {
    /// How many there are, listed or not.
    total: usize,
    names: Vec<NameView>,
}

/// What became of a name.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Bound {
    name: String,
    owner: String,
}

/// A mailbox; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct QueueView {
    #[serde(flatten)]
    name: NameView,
    bytes: u64,
    /// How long the oldest message has waited.
    oldest: f64,
    /// Messages that the peer has and has not acknowledged.
    in_flight: usize,
}

/// Mailboxes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct QueueList {
    /// How many have messages, listed or not.
    total: usize,
    queues: Vec<QueueView>,
}

/// A message; times in seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MessageView {
    key: String,
    from: String,
    age: f64,
    bytes: usize,
    attempts: u16,
    body: String,
    /// Why it is a dead letter, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead: Option<f64>,
}

/// Messages of a mailbox.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Messages {
    pub(super) name: String,
    pub(super) messages: Vec<MessageView>,
}

/// What was removed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Purged {
    pub(super) name: String,
    pub(super) purged: u64,
}

/// What became of dead letters that were put back.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Requeued {
    name: String,
    /// They wait again.
    requeued: u64,
    /// Their sender had sent them again, and that waits.
    waited: u64,
    /// Why the others are dead letters as before.
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<&'static str>,
}

/// Where a name is.
struct Place {
    realm: u8,
    name: Arc<str>,
    mailbox: MailboxId,
    level: Level,
}

impl Queues {
    /// The names, in their order.
    pub(super) async fn names(&self, limit: usize) -> Result<Names, Refused> {
        let labels = (self.labels)();
        let mut names: Vec<_> = self
            .ask(move |desk| Ok(desk.bus.names().map(|of| view(of, &labels, desk.now)).collect()))
            .await?;
        names.sort_by(|one: &NameView, other| one.name.cmp(&other.name));
        let total = names.len();
        names.truncate(limit);
        Ok(Names { total, names })
    }

    /// Has a name belong to nobody: who comes first gets it.
    pub(super) async fn release(&self, name: String) -> Result<Bound, Refused> {
        self.give(name, Owner::NOBODY, "nobody".to_owned()).await
    }

    /// Has a name belong to the credential of a label.
    pub(super) async fn bind(&self, name: String, label: String) -> Result<Bound, Refused> {
        let labels = (self.labels)();
        let Some((_, owner)) = labels.iter().find(|(known, _)| *known == label) else {
            return Err(Refused::Failed(format!(
                "no token in force has the label {label}; add it to the file of tokens, then reload"
            )));
        };
        self.give(name, *owner, label).await
    }

    async fn give(&self, name: String, owner: Owner, shown: String) -> Result<Bound, Refused> {
        self.ask(move |desk| {
            let Place { realm, name, .. } = find(desk, &name)?;
            let bound = desk.bus.bind(realm, &name, owner, desk.now, desk.turn);
            bound.map_err(|error| Refused::Failed(error.to_string()))?;
            Ok(Bound { name: name.to_string(), owner: shown })
        })
        .await
    }

    /// The mailboxes in which messages wait, those first that have most.
    pub(super) async fn queues(&self, limit: usize) -> Result<QueueList, Refused> {
        let labels = (self.labels)();
        let mut queues = self
            .ask(move |desk| {
                let names = desk.bus.names().filter(|(_, level, _)| level.messages > 0);
                Ok(names.map(|of| queue_view(of, &labels, desk.now)).collect::<Vec<_>>())
            })
            .await?;
        queues.sort_by(|one, other| {
            let of = |queue: &QueueView| queue.name.messages;
            of(other).cmp(&of(one)).then_with(|| one.name.name.cmp(&other.name.name))
        });
        let total = queues.len();
        queues.truncate(limit);
        Ok(QueueList { total, queues })
    }

    /// One mailbox.
    pub(super) async fn queue(&self, name: String) -> Result<QueueView, Refused> {
        let labels = (self.labels)();
        self.ask(move |desk| {
            let Place { mailbox, name, .. } = find(desk, &name)?;
            let mut names = desk.bus.names();
            let found = names.find(|(named, ..)| named.mailbox == mailbox);
            found.map(|of| queue_view(of, &labels, desk.now)).ok_or_else(|| unknown(&name))
        })
        .await
    }

    /// The first messages that wait in a mailbox.
    pub(super) async fn peek(&self, name: String, limit: usize) -> Result<Messages, Refused> {
        self.ask(move |desk| {
            let Place { name, mailbox, level, .. } = find(desk, &name)?;
            let most = most(limit);
            let stored = desk.store.read(mailbox, level.head, most).map_err(unavailable)?.stored;
            let messages = stored.iter().map(|stored| MessageView::of(stored, desk.now));
            Ok(Messages { name: name.to_string(), messages: messages.collect() })
        })
        .await
    }

    /// The dead letters of a mailbox.
    pub(super) async fn dead_letters(
        &self,
        name: String,
        limit: usize,
    ) -> Result<Messages, Refused> {
        self.ask(move |desk| {
            let Place { name, mailbox, .. } = find(desk, &name)?;
            let most = most(limit);
            let letters = desk.store.dead_letters(mailbox, most).map_err(unavailable)?;
            let messages = letters.iter().map(|letter| MessageView {
                cause: Some(match letter.cause {
                    Cause::Attempts => "attempts",
                }),
                dead: Some(ago(letter.at, desk.now)),
                ..MessageView::of(&letter.stored, desk.now)
            });
            Ok(Messages { name: name.to_string(), messages: messages.collect() })
        })
        .await
    }

    /// Puts the dead letters of a mailbox back, a piece at a time, until there is none or no room.
    pub(super) async fn requeue(&self, name: &str) -> Result<Requeued, Refused> {
        let mut all = Requeued { name: name.to_owned(), ..Requeued::default() };
        loop {
            let name = name.to_owned();
            let piece = self.ask(move |desk| requeue_piece(desk, &name)).await?;
            all.requeued += piece.requeued;
            all.waited += piece.waited;
            all.refused = piece.refused;
            if all.refused.is_some() || piece.requeued + piece.waited == 0 {
                return Ok(all);
            }
        }
    }

    /// Removes all that waits in a mailbox.
    pub(super) async fn purge(&self, name: String) -> Result<Purged, Refused> {
        self.ask(move |desk| {
            let Place { realm, name, .. } = find(desk, &name)?;
            let purged = desk.bus.purge(realm, &name, desk.turn).ok_or_else(|| unknown(&name))?;
            Ok(Purged { name: name.to_string(), purged })
        })
        .await
    }

    /// Has the bus's thread do something, and waits until what it changes is committed.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk<'_>) -> Result<T, Refused> + Send + 'static,
    ) -> Result<T, Refused> {
        let elsewhere = || unavailable(self.bus.health());
        let answer = self.bus.leading().ok_or_else(elsewhere)?.ask(work).await;
        answer.map_err(unavailable)?
    }
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues").field("bus", &self.bus).finish_non_exhaustive()
    }
}

impl MessageView {
    pub(super) fn of(stored: &Stored, now: Millis) -> Self {
        let message = &stored.message;
        Self {
            key: message.key.to_string(),
            from: message.from.to_string(),
            age: ago(message.accepted, now),
            bytes: message.body.len(),
            attempts: stored.attempts,
            body: String::from_utf8_lossy(&message.body).into_owned(),
            cause: None,
            dead: None,
        }
    }
}

fn view(
    (named, level, presence): (&Named, &Level, Presence),
    labels: &[(String, Owner)],
    now: Millis,
) -> NameView {
    NameView {
        name: named.name.to_string(),
        door: Realm(named.realm).door(),
        owner: owner(named.owner, labels),
        connected: presence.unacknowledged.is_some(),
        seen: ago(named.seen, now),
        messages: level.messages,
    }
}

fn queue_view(
    (named, level, presence): (&Named, &Level, Presence),
    labels: &[(String, Owner)],
    now: Millis,
) -> QueueView {
    QueueView {
        name: view((named, level, presence), labels, now),
        bytes: level.bytes,
        oldest: if level.messages > 0 { ago(level.oldest, now) } else { 0.0 },
        in_flight: presence.unacknowledged.unwrap_or_default(),
    }
}

/// An owner as operators know it.
fn owner(owner: Owner, labels: &[(String, Owner)]) -> String {
    if owner == Owner::NOBODY {
        return "nobody".to_owned();
    }
    if owner == Owner::RESERVED {
        return "reserved".to_owned();
    }
    match labels.iter().find(|(_, of)| *of == owner) {
        Some((label, _)) => label.clone(),
        None => {
            let first = owner.0.iter().take(SHOWN);
            first.fold("token ".to_owned(), |text, byte| format!("{text}{byte:02x}"))
        }
    }
}

/// As many messages as an answer shows.
pub(super) fn most(limit: usize) -> Most {
    Most { messages: limit.min(MOST_MESSAGES), bytes: MOST_BYTES }
}

/// How long ago something was, in seconds.
#[allow(clippy::cast_precision_loss)] // far below 2^53
pub(super) fn ago(then: Millis, now: Millis) -> f64 {
    now.since(then) as f64 / 1e3
}

/// The mailbox of a name, written as the peer has it or as `door:name`.
fn find(desk: &Desk<'_>, text: &str) -> Result<Place, Refused> {
    let with_door = text.split_once(':');
    let is_meant = |named: &Named| {
        let door = Realm(named.realm).door();
        *named.name == *text
            || with_door.is_some_and(|(of, name)| door == Some(of) && *named.name == *name)
    };
    let found: Vec<_> = desk.bus.names().filter(|(named, ..)| is_meant(named)).collect();
    match &*found {
        [(named, level, _)] => Ok(Place {
            realm: named.realm,
            name: Arc::clone(&named.name),
            mailbox: named.mailbox,
            level: **level,
        }),
        [] => Err(unknown(text)),
        several => {
            let names = several.iter().map(|(named, ..)| {
                format!("{}:{}", Realm(named.realm).door().unwrap_or_default(), named.name)
            });
            let names: Vec<_> = names.collect();
            Err(Refused::Failed(format!("several may be meant; write one of {}", names.join(", "))))
        }
    }
}

/// Puts back as many dead letters of a mailbox as one commit takes.
fn requeue_piece(desk: &mut Desk<'_>, name: &str) -> Result<Requeued, Refused> {
    let Place { mailbox, .. } = find(desk, name)?;
    let Desk { bus, turn, store, now } = desk;
    let letters = store.dead_letters(mailbox, PIECE).map_err(unavailable)?;
    let mut piece = Requeued::default();
    for DeadLetter { stored, at, .. } in letters {
        let letter = Letter { seq: stored.seq, at, message: stored.message };
        let find = |mailbox, key| store.find(mailbox, key);
        match bus.requeue(mailbox, &letter, *now, turn, find).map_err(unavailable)? {
            bus::Requeued::Waits => piece.requeued += 1,
            bus::Requeued::Waited => piece.waited += 1,
            bus::Requeued::Refused(refused) => {
                piece.refused = Some(Outcome::Refused(refused).word());
                break;
            }
        }
    }
    Ok(piece)
}

fn unknown(name: &str) -> Refused {
    Refused::Failed(format!(
        "nobody has the name {name}, nor is it reserved; `names` lists those that are"
    ))
}

#[allow(clippy::needless_pass_by_value)] // for `map_err`
pub(super) fn unavailable(reason: impl std::fmt::Display) -> Refused {
    Refused::Unavailable(format!("{reason}; `beacon-relay doctor` looks at the store of messages"))
}
