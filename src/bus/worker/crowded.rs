//! Says in the log which limit ends the sessions of subscribers, which come again and again.

use std::time::Instant;

use tracing::{debug, warn};

use crate::metrics::Rarely;
use crate::proto::bus::{MOST_CHANNELS_OF_PEER, Withdrawn};

/// What was said lately.
#[derive(Debug, Default)]
pub(super) struct Crowded {
    of_peer: Rarely,
    channels: Rarely,
    cursors: Rarely,
}

impl Crowded {
    /// A peer meets a limit, if that is why its session ends.
    pub(super) fn note(&self, peer: &str, why: Withdrawn, now: Instant) {
        let (rarely, reason) = match why {
            Withdrawn::NotItsName => return,
            Withdrawn::ChannelsOfPeer => (&self.of_peer, "channels_of_peer"),
            Withdrawn::Channels => (&self.channels, "channels"),
            Withdrawn::Cursors => (&self.cursors, "cursors"),
        };
        let most_of_peer = MOST_CHANNELS_OF_PEER;
        if rarely.is_due(now) {
            warn!(peer, reason, most_of_peer, "a subscriber is refused: it meets a limit");
        } else {
            debug!(peer, reason, "a subscriber is refused: it meets a limit");
        }
    }
}
