//! What operators see of channels and of the peers that read them, and change.

use serde::Serialize;

use super::Refused;
use super::queues::{MessageView, Messages, Purged, Queues, ago, most, unavailable};
use crate::bus::Desk;
use crate::proto::bus::{ChannelView, CursorPeer, CursorView};

/// A channel; times in seconds.
#[derive(Clone, Debug, Serialize)]
struct ChannelRow {
    name: String,
    /// Records that are kept, and what they count as.
    records: u64,
    bytes: u64,
    /// How long the oldest of them has been here.
    oldest: f64,
    /// Peers with a cursor, and those that are subscribed at the moment.
    cursors: usize,
    connected: usize,
    /// Records that the cursor which is furthest behind has not passed, and the age of the first.
    lag: u64,
    behind: f64,
}

/// The channels.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ChannelList {
    /// How many there are, listed or not.
    total: usize,
    channels: Vec<ChannelRow>,
}

/// How far a peer has come in a channel; times in seconds.
#[derive(Clone, Debug, Serialize)]
struct CursorRow {
    peer: String,
    connected: bool,
    /// Whether it goes with its session.
    ephemeral: bool,
    /// How long its peer has been away; nothing where it is subscribed.
    #[serde(skip_serializing_if = "Option::is_none")]
    away: Option<f64>,
    /// Records that it has not passed, what they count as, and the age of the first.
    records: u64,
    bytes: u64,
    behind: f64,
    /// How often the records behind it stayed without an acknowledgement.
    attempts: u16,
}

/// A channel and who reads it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ChannelReport {
    #[serde(flatten)]
    channel: ChannelRow,
    /// How many readers there are, listed or not.
    total: usize,
    readers: Vec<CursorRow>,
}

/// A cursor that is no more.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Forgotten {
    name: String,
    peer: String,
}

impl Queues {
    /// The channels, those first whose last reader is furthest behind.
    pub(super) async fn channels(&self, limit: usize) -> Result<ChannelList, Refused> {
        let realm = self.channel_realm.0;
        let work = move |desk: &mut Desk<'_>| {
            let views = desk.bus.channels(realm, desk.now);
            Ok(views.iter().map(|view| row(view, desk)).collect::<Vec<_>>())
        };
        let mut channels = self.ask(work).await?;
        channels.sort_by(|one, other| {
            let of = |row: &ChannelRow| (row.lag, row.records);
            of(other).cmp(&of(one)).then_with(|| one.name.cmp(&other.name))
        });
        let total = channels.len();
        channels.truncate(limit);
        Ok(ChannelList { total, channels })
    }

    /// One channel, and who reads it: those first that are furthest behind.
    pub(super) async fn channel(
        &self,
        name: String,
        limit: usize,
    ) -> Result<ChannelReport, Refused> {
        let realm = self.channel_realm.0;
        self.ask(move |desk| {
            let view = find(desk, realm, &name)?;
            let mut readers = desk.bus.cursors(realm, &name, desk.now).unwrap_or_default();
            readers.sort_by(|one, other| {
                other.records.cmp(&one.records).then_with(|| one.name.cmp(&other.name))
            });
            let total = readers.len();
            readers.truncate(limit);
            let readers = readers.iter().map(|reader| CursorRow::of(reader, desk)).collect();
            Ok(ChannelReport { channel: row(&view, desk), total, readers })
        })
        .await
    }

    /// The first records that a channel has.
    pub(super) async fn peek_channel(
        &self,
        name: String,
        limit: usize,
    ) -> Result<Messages, Refused> {
        let realm = self.channel_realm.0;
        self.ask(move |desk| {
            let state = find(desk, realm, &name)?.state;
            let most = most(limit);
            let stored = desk.store.read(state.channel, state.head, most).map_err(unavailable)?;
            let messages = stored.stored.iter().map(|stored| MessageView::of(stored, desk.now));
            Ok(Messages { name, messages: messages.collect() })
        })
        .await
    }

    /// Removes the records that a channel has at this moment: nobody gets them any more.
    pub(super) async fn purge_channel(&self, name: String) -> Result<Purged, Refused> {
        let realm = self.channel_realm.0;
        self.ask(move |desk| {
            let purged = desk.bus.purge_channel(realm, &name, desk.turn);
            Ok(Purged { purged: purged.ok_or_else(|| unknown(&name))?, name })
        })
        .await
    }

    /// Removes a channel: its records, and the cursors of peers that are away.
    pub(super) async fn remove_channel(&self, name: String) -> Result<Purged, Refused> {
        let realm = self.channel_realm.0;
        self.ask(move |desk| {
            let purged = desk.bus.drop_channel(realm, &name, desk.turn);
            Ok(Purged { purged: purged.ok_or_else(|| unknown(&name))?, name })
        })
        .await
    }

    /// Removes the cursor of a peer that is away: what waits for it there waits no more.
    pub(super) async fn forget_cursor(
        &self,
        name: String,
        peer: String,
    ) -> Result<Forgotten, Refused> {
        let realm = self.channel_realm.0;
        self.ask(move |desk| {
            find(desk, realm, &name)?;
            if desk.bus.drop_cursor(realm, &name, &peer, desk.turn) {
                return Ok(Forgotten { name, peer });
            }
            Err(Refused::Failed(format!(
                "{peer} has no cursor in {name}, or is connected; stop that client, or give the name of \
                 another: `beacon-relay channel {name}` shows them"
            )))
        })
        .await
    }
}

impl CursorRow {
    fn of(view: &CursorView, desk: &Desk<'_>) -> Self {
        let away = match view.state {
            CursorPeer::Live => None,
            CursorPeer::AwaySince(at) => Some(ago(at, desk.now)),
        };
        Self {
            peer: view.name.to_string(),
            connected: away.is_none(),
            ephemeral: view.is_ephemeral,
            away,
            records: view.records,
            bytes: view.bytes,
            behind: seconds(view.age),
            attempts: view.cursor.attempts,
        }
    }
}

fn row(view: &ChannelView, desk: &Desk<'_>) -> ChannelRow {
    let state = &view.state;
    ChannelRow {
        name: state.name.to_string(),
        records: state.records(),
        bytes: state.bytes,
        oldest: if state.records() > 0 { ago(state.oldest, desk.now) } else { 0.0 },
        cursors: view.cursors,
        connected: view.live,
        lag: view.lag,
        behind: seconds(view.lag_age),
    }
}

fn find(desk: &Desk<'_>, realm: u8, name: &str) -> Result<ChannelView, Refused> {
    desk.bus.channel(realm, name, desk.now).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Refused {
    Refused::Failed(format!("there is no channel {name}; `channels` lists them"))
}

/// Milliseconds in seconds.
fn seconds(milliseconds: u64) -> f64 {
    std::time::Duration::from_millis(milliseconds).as_secs_f64()
}
