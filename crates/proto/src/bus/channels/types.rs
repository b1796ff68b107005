//! What a bus remembers of its channels, and what operators see of them.

use std::sync::Arc;

use super::super::types::{ChannelState, Cursor, MailboxId, Millis};

/// What the name of a channel of dead letters ends with, behind that of the channel they are of.
pub const DEAD_LETTERS: &str = ".dead-letter";

/// What a session is subscribed to.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Subscription {
    /// The names of the channels.
    pub channels: Vec<Arc<str>>,
    /// Whether it begins at the end of each, and leaves no cursor behind.
    pub is_ephemeral: bool,
}

/// What the channels of a bus are bounded by. Times are in milliseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChannelLimits {
    /// Channels, at most.
    pub channels: usize,
    /// Cursors, of all channels.
    pub cursors: usize,
    /// A record that is so old is removed, also for peers that have not got it.
    pub retention: u64,
    /// What the records of one channel count as, in bytes: the oldest are removed beyond that.
    pub bytes: u64,
    /// Records of one channel.
    pub records: u64,
    /// A dead letter that is so old is removed.
    pub dead_letter_retention: u64,
    /// A cursor whose peer was away for so long is forgotten.
    pub cursor_expiry: u64,
    /// A batch that is not acknowledged for so long is delivered again.
    pub ack_timeout: u64,
    /// A batch that was tried so often is taken apart: its records are delivered one at a time.
    pub attempts: u16,
}

impl Default for ChannelLimits {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60 * 1_000;
        Self {
            channels: 10_000,
            cursors: 100_000,
            retention: 7 * DAY,
            bytes: 1 << 30,
            records: 10_000_000,
            dead_letter_retention: 7 * DAY,
            cursor_expiry: 7 * DAY,
            ack_timeout: 30_000,
            attempts: 16,
        }
    }
}

/// Records that were counted. Those recovered and stored are those consumed, expired, purged and
/// kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ChannelTotals {
    /// Were kept when the bus began.
    pub recovered: u64,
    /// Accepted and stored.
    pub stored: u64,
    /// Accepted and not stored: nobody was to get them.
    pub unread: u64,
    /// Removed once all cursors were behind them.
    pub consumed: u64,
    /// Removed for their age, or since their channel had too much.
    pub expired: u64,
    /// Purged by an operator.
    pub purged: u64,
    /// Are kept.
    pub kept: u64,
    /// What those count as, in bytes.
    pub bytes: u64,
    /// Handed to peers: each record once for each peer, and once more each time it is repeated.
    pub delivered: u64,
    /// Acknowledged by peers.
    pub acknowledged: u64,
    /// Delivered again since they stayed without an acknowledgement.
    pub redelivered: u64,
    /// Removed before a peer had them.
    pub skipped: u64,
    /// Not to be read any more, when they were to be delivered.
    pub lost: u64,
    /// Given up for one peer, and put into the channel of dead letters.
    pub dead: u64,
    /// Channels.
    pub channels: u64,
    /// Cursors that are kept, of peers that are connected or away.
    pub cursors: u64,
    /// Cursors whose peer is connected and subscribed.
    pub live: u64,
    /// Cursors that were forgotten since their peer was away for too long.
    pub forgotten: u64,
    /// Records that the cursor which is furthest behind has not passed.
    pub lag: u64,
}

/// A channel, as an operator sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChannelView {
    /// What is known of it.
    pub state: ChannelState,
    /// Its cursors.
    pub cursors: usize,
    /// Peers that are connected and subscribed, with a cursor or without.
    pub live: usize,
    /// Records that the cursor which is furthest behind has not passed.
    pub lag: u64,
    /// The age of the first of those, in milliseconds, at most; 0 where there is none.
    pub lag_age: u64,
}

/// Whether the peer of a cursor is connected and subscribed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CursorPeer {
    /// It is.
    Live,
    /// It is not, since then.
    AwaySince(Millis),
}

/// A cursor, as an operator sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CursorView {
    /// The mailbox of its peer.
    pub peer: MailboxId,
    /// The name of its peer; empty where that is forgotten.
    pub name: Arc<str>,
    /// Whether it goes with its session.
    pub is_ephemeral: bool,
    /// Whether its peer is there.
    pub state: CursorPeer,
    /// Where it is.
    pub cursor: Cursor,
    /// Records that it has not passed,
    pub records: u64,
    /// what they count as, in bytes,
    pub bytes: u64,
    /// and the age of the first of them, in milliseconds, at most; 0 where there is none.
    pub age: u64,
}
