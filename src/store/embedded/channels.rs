//! The channels and cursors that the rows have, and the log behind them.

use std::collections::BTreeMap;

use super::codec::{CHANNEL, CURSOR, channel_key, read_channel, read_cursor};
use super::database::{Database, damaged, failure};
use super::key_value;
use super::pending::Pending;
use crate::proto::bus::{ChannelState, Cursor, MailboxId, Seq};
use crate::store::StoreError;

/// Channels, and cursors by channel and mailbox of their peer.
pub(super) type Read = (Vec<ChannelState>, Vec<(MailboxId, MailboxId, Cursor)>);

impl Database {
    /// Reads all of them.
    pub(super) fn channels_and_cursors(&self, pending: &Pending) -> Result<Read, StoreError> {
        let stored = self.channel_rows()?.into_iter();
        let mut channels: BTreeMap<_, _> =
            stored.map(|state| (state.channel, Some(state))).collect();
        channels.extend(pending.channels.iter().map(|(id, state)| (*id, state.clone())));
        let mut cursors = BTreeMap::new();
        for row in self.meta.prefix(CURSOR) {
            let (key, value) = key_value(row)?;
            let (channel, peer, cursor) =
                read_cursor(&key, &value).map_err(|error| damaged(&self.meta, &key, error))?;
            cursors.insert((channel, peer), Some(cursor));
        }
        cursors.extend(pending.cursors.iter().map(|(place, cursor)| (*place, *cursor)));
        let cursors = cursors.into_iter();
        let cursors =
            cursors.filter_map(|((channel, peer), cursor)| Some((channel, peer, cursor?)));
        Ok((channels.into_values().flatten().collect(), cursors.collect()))
    }

    /// The channels that the rows have.
    pub(super) fn channel_rows(&self) -> Result<Vec<ChannelState>, StoreError> {
        let read = |row| {
            let (key, value) = key_value(row)?;
            read_channel(&key, &value).map_err(|error| damaged(&self.meta, &key, error))
        };
        self.meta.prefix(CHANNEL).map(read).collect()
    }

    /// Where a channel ended when its records became rows; none where it is no channel.
    pub(super) fn channel_end(&self, id: MailboxId) -> Result<Option<Seq>, StoreError> {
        let key = channel_key(id);
        let Some(value) = self.meta.get(key).map_err(failure)? else { return Ok(None) };
        let state = read_channel(&key, &value).map_err(|error| damaged(&self.meta, &key, error))?;
        Ok(Some(state.next))
    }
}
