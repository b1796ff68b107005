//! Why something was not done, and what the wire says of it.

use beacon_wire::middleman::{Body, Command, ERROR, Encoder, Failure};

/// Why a message had no effect, or a request has no answer.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Refusal {
    /// No service has granted it.
    NotTrusted,
    /// The topic has no responder.
    NoResponder,
    /// The responder disconnected before it answered.
    ResponderGone,
    /// The responder has too much queued to be asked.
    ResponderBusy,
    /// The link to the relay that has the responder ended.
    RelayLost,
    /// No answer came in time.
    TimedOut,
    /// The connection has no such request to answer, or its requester has gone.
    NoRequest,
    /// No connection has the GUID whose user id is set.
    NoConnection,
    /// The topic is longer than [`super::Limits::text_bytes`].
    TopicTooLong,
    /// The id of a request or a user id is longer than that.
    IdTooLong,
    /// The message is longer than [`super::Limits::message_bytes`], or would be on its way.
    MessageTooLong,
    /// One more subscription would exceed a bound.
    TooManySubscriptions,
    /// One more grant would exceed a bound.
    TooManyGrants,
    /// One more worker would exceed a bound.
    TooManyWorkers,
    /// One more request would exceed a bound.
    TooManyRequests,
}

/// What belongs to a refusal.
struct Row {
    /// The fixed word for a metric's label.
    word: &'static str,
    /// What a `PUB ERROR` says, before command and target.
    text: &'static str,
    /// What the `Error` header of a failed request says.
    reason: &'static str,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::NotTrusted,
        Self::NoResponder,
        Self::ResponderGone,
        Self::ResponderBusy,
        Self::RelayLost,
        Self::TimedOut,
        Self::NoRequest,
        Self::NoConnection,
        Self::TopicTooLong,
        Self::IdTooLong,
        Self::MessageTooLong,
        Self::TooManySubscriptions,
        Self::TooManyGrants,
        Self::TooManyWorkers,
        Self::TooManyRequests,
    ];

    /// The texts of the original, where it has one.
    const fn row(self) -> Row {
        let (word, text, reason) = match self {
            Self::NotTrusted => ("not_trusted", "Not trusted", "Not trusted"),
            Self::NoResponder => ("no_responder", "No responder for", "No responder"),
            Self::ResponderGone => ("responder_gone", "No responder for", "Responder disconnected"),
            Self::ResponderBusy => ("responder_busy", "No responder for", "Responder busy"),
            Self::RelayLost => ("relay_lost", "No responder for", "Relay lost"),
            Self::TimedOut => ("timed_out", "No responder for", "Timed out"),
            Self::NoRequest => ("no_request", "No client for request ID ", "No request"),
            Self::NoConnection => ("no_connection", "No client for", "No client"),
            Self::TopicTooLong => ("topic_too_long", "Topic too long", "Topic too long"),
            Self::IdTooLong => ("id_too_long", "ID too long", "ID too long"),
            Self::MessageTooLong => ("message_too_long", "Too long", "Too long"),
            Self::TooManySubscriptions => {
                ("too_many_subscriptions", "Too many subscriptions", "Too many subscriptions")
            }
            Self::TooManyGrants => ("too_many_grants", "Too many grants", "Too many grants"),
            Self::TooManyWorkers => ("too_many_workers", "Too many workers", "Too many workers"),
            Self::TooManyRequests => {
                ("too_many_requests", "Too many requests", "Too many requests")
            }
        };
        Row { word, text, reason }
    }

    /// The fixed word for a metric's label.
    #[must_use]
    pub const fn word(self) -> &'static str {
        self.row().word
    }

    /// What the `Error` header of an answer to a failed request says.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.row().reason
    }

    /// What another relay is told.
    pub(super) const fn failure(self) -> Failure {
        match self {
            Self::ResponderGone => Failure::ResponderGone,
            Self::ResponderBusy => Failure::ResponderBusy,
            Self::TimedOut => Failure::TimedOut,
            Self::TooManyRequests => Failure::TooManyRequests,
            Self::MessageTooLong => Failure::MessageTooLong,
            Self::NotTrusted
            | Self::NoResponder
            | Self::RelayLost
            | Self::NoRequest
            | Self::NoConnection
            | Self::TopicTooLong
            | Self::IdTooLong
            | Self::TooManySubscriptions
            | Self::TooManyGrants
            | Self::TooManyWorkers => Failure::NoResponder,
        }
    }

    /// What another relay has told.
    pub(super) const fn of(failure: Failure) -> Self {
        match failure {
            Failure::NoResponder => Self::NoResponder,
            Failure::ResponderGone => Self::ResponderGone,
            Failure::ResponderBusy => Self::ResponderBusy,
            Failure::TimedOut => Self::TimedOut,
            Failure::TooManyRequests => Self::TooManyRequests,
            Failure::MessageTooLong => Self::MessageTooLong,
        }
    }

    /// Appends the `PUB ERROR` that tells the sender of `command` with `target`.
    ///
    /// A target that is longer than `most` bytes is cut.
    pub(super) fn encode(self, out: &mut Vec<u8>, command: Command<'_>, target: &str, most: usize) {
        let target = cut(target, most);
        // Only this one has a colon in the original.
        let is_subscription = self == Self::NotTrusted && command == Command::Sub;
        let colon = if is_subscription { ":" } else { "" };
        let text = format!("{}{colon} {} {target}", self.row().text, command.as_str());
        Encoder::begin(out, Command::Pub, ERROR).finish(Body::of(&text));
    }
}

/// The beginning of a text that is longer than `most` bytes.
pub(super) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}
