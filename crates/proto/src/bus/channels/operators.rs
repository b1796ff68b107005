//! What operators see of channels, and remove of them.

use std::cmp::Reverse;
use std::sync::Arc;

use super::super::turn::Turn;
use super::super::types::{Event, EventKind, MailboxId, Millis};
use super::types::{ChannelLimits, ChannelView, CursorPeer, CursorView};
use super::{Channel, Channels, Reader, ReaderId};

impl Channel {
    fn view(&self, now: Millis) -> ChannelView {
        let durable = self.readers.iter().filter(|(id, _)| !id.is_ephemeral);
        let last = durable.clone().min_by_key(|(_, reader)| reader.cursor.seq);
        let last = last.map(|(_, reader)| reader);
        ChannelView {
            state: self.state.clone(),
            cursors: durable.count(),
            live: self.live,
            lag: last.map_or(0, |reader| self.state.next.0 - reader.cursor.seq.0),
            lag_age: last.map_or(0, |reader| self.age_behind(reader, now)),
        }
    }
}

impl Channels {
    /// The channels of a name space, by their names.
    pub(in super::super) fn views(&self, realm: u8, now: Millis) -> Vec<ChannelView> {
        let of_it = self.channels.values().filter(|channel| channel.state.realm == realm);
        let mut views: Vec<_> = of_it.map(|channel| channel.view(now)).collect();
        views.sort_by(|a, b| a.state.name.cmp(&b.state.name));
        views
    }

    /// One channel.
    pub(in super::super) fn view(&self, realm: u8, name: &str, now: Millis) -> Option<ChannelView> {
        Some(self.channels.get(&self.find(realm, name)?)?.view(now))
    }

    /// The cursors that are furthest behind, so many, each with its channel.
    pub(in super::super) fn behind(&self, most: usize, now: Millis) -> Vec<(Arc<str>, CursorView)> {
        let cursors = self.channels.values().flat_map(|channel| {
            let durable = channel.readers.iter().filter(|(id, _)| !id.is_ephemeral);
            durable.map(move |(id, reader)| {
                (Reverse(channel.state.next.0 - reader.cursor.seq.0), channel, id, reader)
            })
        });
        let mut cursors: Vec<_> = cursors.collect();
        let key = |(lag, channel, id, _): &(Reverse<u64>, &Channel, &ReaderId, &Reader)| {
            (*lag, channel.id(), **id)
        };
        if cursors.len() > most {
            cursors.select_nth_unstable_by_key(most, key);
            cursors.truncate(most);
        }
        cursors.sort_unstable_by_key(key);
        let view = |(_, channel, id, reader): (_, &Channel, &ReaderId, &Reader)| {
            (Arc::clone(&channel.state.name), self.cursor_view(channel, *id, reader, now))
        };
        cursors.into_iter().map(view).collect()
    }

    /// The number of a channel.
    pub(in super::super) fn find(&self, realm: u8, name: &str) -> Option<MailboxId> {
        self.names.get(&(realm, Arc::from(name))).copied()
    }

    /// The cursors of a channel, and where sessions without one are.
    pub(in super::super) fn cursors(&self, channel: MailboxId, now: Millis) -> Vec<CursorView> {
        let Some(channel) = self.channels.get(&channel) else { return Vec::new() };
        let readers = channel.readers.iter();
        readers.map(|(id, reader)| self.cursor_view(channel, *id, reader, now)).collect()
    }

    fn cursor_view(
        &self,
        channel: &Channel,
        id: ReaderId,
        reader: &Reader,
        now: Millis,
    ) -> CursorView {
        let of_session = self.subscribers.get(&id.peer).map(|of| &of.name);
        let name = of_session.or_else(|| self.peers.get(&id.peer).map(|(name, _)| name));
        let state = if reader.is_live {
            CursorPeer::Live
        } else {
            CursorPeer::AwaySince(reader.cursor.seen)
        };
        CursorView {
            peer: id.peer,
            name: name.map_or_else(|| "".into(), Arc::clone),
            is_ephemeral: id.is_ephemeral,
            state,
            cursor: reader.cursor,
            records: channel.state.next.0 - reader.cursor.seq.0,
            bytes: channel.state.end - reader.cursor.offset.min(channel.state.end),
            age: channel.age_behind(reader, now),
        }
    }

    /// Removes the cursor of a peer that is not connected; false where there is none.
    pub(in super::super) fn drop_cursor(
        &mut self,
        channel: MailboxId,
        peer: &str,
        turn: &mut Turn,
    ) -> bool {
        let Some(of) = self.channels.get(&channel) else { return false };
        let readers = of.readers.iter().filter(|(id, reader)| !id.is_ephemeral && !reader.is_live);
        let is_its =
            |id: &&ReaderId| self.peers.get(&id.peer).is_some_and(|(name, _)| **name == *peer);
        let Some(id) = readers.map(|(id, _)| id).find(is_its).copied() else { return false };
        self.remove_cursor(channel, id.peer, turn);
        true
    }

    /// Removes all records that a channel has at this moment: cursors go behind them. Returns how
    /// many that will be.
    pub(in super::super) fn purge(
        &mut self,
        channel: MailboxId,
        limits: &ChannelLimits,
        turn: &mut Turn,
    ) -> u64 {
        let Some(of) = self.channels.get_mut(&channel) else { return 0 };
        let records = of.state.records();
        if records == 0 {
            return 0;
        }
        let next = of.state.next;
        of.purge_before = next;
        turn.events.push(Event {
            kind: EventKind::Purge,
            key: format!("{records} records").into(),
            from: Arc::clone(&of.state.name),
            to: "".into(),
        });
        self.undercut(channel, next, 0, limits, turn);
        self.trimming.insert(channel);
        records
    }

    /// Removes the records of a channel, and the cursors of those who are not connected: it is
    /// forgotten where nobody reads it. Returns how many records that will be.
    pub(in super::super) fn drop_channel(
        &mut self,
        channel: MailboxId,
        limits: &ChannelLimits,
        turn: &mut Turn,
    ) -> u64 {
        let purged = self.purge(channel, limits, turn);
        let Some(of) = self.channels.get(&channel) else { return purged };
        let away = of.readers.iter().filter(|(id, reader)| !id.is_ephemeral && !reader.is_live);
        let away: Vec<_> = away.map(|(id, _)| id.peer).collect();
        for peer in away {
            self.remove_cursor(channel, peer, turn);
        }
        purged
    }
}
