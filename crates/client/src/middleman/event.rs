//! What an application is told.

use super::Sender;
use super::error::SendError;
use super::message::{Content, write};
use super::outgoing::Outgoing;
use crate::wire::middleman::Command;

/// What a client is told.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A publication of a topic, or one that is for this connection alone (`MSG:…`).
    Publication(Publication),
    /// A request that this client shall answer.
    Request(Request),
    /// The broker says that it has not done something, in its own words.
    Complaint(String),
}

/// A message to all subscribers of a topic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Publication {
    /// The topic.
    pub topic: String,
    /// What it says, with the broker's `Cid` and `Uid` of its sender.
    pub content: Content,
}

/// A request of somebody. Dropped without an answer, it fails when the broker's time is over.
#[derive(Debug)]
pub struct Request {
    /// The topic.
    pub topic: String,
    /// What it says, with the broker's `Cid` and `Uid` of its sender.
    pub content: Content,
    pub(super) rid: String,
    /// The session that it came in: no other can answer it.
    pub(super) session: u64,
    pub(super) sender: Sender,
}

impl Request {
    /// Answers it. An answer that its session can no longer send is dropped: the broker has told
    /// the requester already.
    ///
    /// # Errors
    /// An answer that no message can be; a client that has ended.
    pub async fn answer(self, content: impl Into<Content> + Send) -> Result<(), SendError> {
        let content = content.into();
        let text = write(Command::Res, &self.topic, Some(&self.rid), &content)?;
        self.sender.queue(Outgoing::Answer { text, session: self.session }).await
    }
}
