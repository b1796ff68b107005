//! What the door counts, beside what every door's messages are counted by.

use prometheus::proto::MetricFamily;

use crate::metrics::{Counter, HALF_DECADES, Histogram, Labelled, Sharded, Word, family};
use crate::proto::middleman::{Class, Counts, Ended, Refusal};
use crate::wire::middleman::Command;
use crate::words;

words! {
    /// What messages that had an effect, or none by intent, were.
    pub(super) enum Handled {
        /// Of the command `PUB`.
        Publication => "pub",
        /// `SUB`.
        Subscription => "sub",
        /// `REQ`.
        Request => "req",
        /// `RES`.
        Answer => "res",
        /// `EPUB`.
        GrantPublications => "epub",
        /// `ESUB`.
        GrantSubscriptions => "esub",
        /// `EREQ`.
        Respond => "ereq",
        /// `INT`.
        Internal => "int",
        /// One that means nothing.
        Ignored => "ignored",
    }
}

words! {
    /// What was queued for peers.
    pub(super) enum Delivered {
        /// A copy of a publication.
        Publication => "publication",
        /// A request, for its responder.
        Request => "request",
        /// An answer, or that there is none.
        Answer => "answer",
        /// An error.
        Error => "error",
    }
}

words! {
    /// What became of requests of connections here.
    pub(super) enum Request {
        /// The requester has its answer.
        Answered => "answered",
        /// It was accepted, and the requester was told that there is no answer.
        Failed => "failed",
        /// It was refused at once.
        Refused => "refused",
        /// The requester disconnected before the answer.
        Abandoned => "abandoned",
    }
}

impl Word for Refusal {
    const ALL: &'static [Self] = &Self::ALL;

    fn word(self) -> &'static str {
        Self::word(self)
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl Handled {
    /// What a message of this command was.
    pub(super) const fn of(command: &Command<'_>) -> Self {
        match command {
            Command::Pub => Self::Publication,
            Command::Sub => Self::Subscription,
            Command::Req => Self::Request,
            Command::Res => Self::Answer,
            Command::Epub => Self::GrantPublications,
            Command::Esub => Self::GrantSubscriptions,
            Command::Ereq => Self::Respond,
            Command::Int => Self::Internal,
            Command::Other(_) => Self::Ignored,
        }
    }
}

impl From<Class> for Delivered {
    fn from(class: Class) -> Self {
        match class {
            Class::Publication => Self::Publication,
            Class::Request { .. } => Self::Request,
            Class::Answer => Self::Answer,
            Class::Error => Self::Error,
        }
    }
}

/// The meters.
#[derive(Debug)]
pub(super) struct Meters {
    pub(super) handled: Sharded<Handled>,
    pub(super) delivered: Sharded<Delivered>,
    /// Messages that were refused, and requests that failed.
    pub(super) refused: Labelled<Refusal>,
    /// Publications that subscribers or other relays were too slow for.
    pub(super) lost: Counter,
    pub(super) requests: Sharded<Request>,
    /// How long requesters waited for their answers.
    answers: Histogram,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            handled: Sharded::default(),
            delivered: Sharded::default(),
            refused: Labelled::default(),
            lost: Counter::default(),
            requests: Sharded::default(),
            answers: Histogram::new(HALF_DECADES),
        }
    }
}

impl Meters {
    /// Counts what became of a request that was accepted.
    pub(super) fn note(&self, ended: Ended) {
        let result = match ended {
            Ended::Answered { waited } => {
                self.answers.observe(waited);
                Request::Answered
            }
            Ended::Failed(refusal) => {
                self.refused.of(refusal).increment();
                Request::Failed
            }
            Ended::Abandoned => Request::Abandoned,
        };
        self.requests.add(result, 1);
    }

    /// Appends the families; the broker has so much.
    pub(super) fn families(&self, counts: Counts, families: &mut Vec<MetricFamily>) {
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        let gauge = |name, help, value: usize| family::gauge_value(name, help, value as f64);
        families.extend([
            family::sharded(
                "beacon_relay_middleman_handled_total",
                "Messages of peers that were good, by their command.",
                "kind",
                &self.handled,
            ),
            family::sharded(
                "beacon_relay_middleman_delivered_total",
                "Messages that were queued for peers, by what they are.",
                "class",
                &self.delivered,
            ),
            family::labelled(
                "beacon_relay_middleman_refused_total",
                "Messages that were refused and requests that failed, by the reason.",
                "reason",
                &self.refused,
            ),
            family::counter(
                "beacon_relay_middleman_lost_total",
                "Publications that were dropped since their subscriber or another relay was too slow.",
                &self.lost,
            ),
            family::sharded(
                "beacon_relay_middleman_requests_total",
                "Requests of connections here that are over, by what became of them.",
                "result",
                &self.requests,
            ),
            self.answers.family(
                "beacon_relay_middleman_answer_seconds",
                "How long requesters waited for the answers that they got.",
            ),
            gauge("beacon_relay_middleman_peers", "Connections.", counts.connections),
            gauge("beacon_relay_middleman_topics", "Topics in use.", counts.topics),
            gauge(
                "beacon_relay_middleman_subscriptions",
                "Subscriptions, without those to their own messages.",
                counts.subscriptions,
            ),
            gauge(
                "beacon_relay_middleman_grants",
                "What services let clients do: a topic and publish, or subscribe.",
                counts.grants,
            ),
            gauge(
                "beacon_relay_middleman_workers",
                "Workers that answer requests.",
                counts.workers,
            ),
            gauge(
                "beacon_relay_middleman_links",
                "Other relays whose topics are one with those here.",
                counts.links,
            ),
            gauge(
                "beacon_relay_middleman_requests",
                "Requests without an answer.",
                counts.requests,
            ),
        ]);
    }
}
