//! The message bus of the demo's relay: messages to a peer that is offline, and to all who are
//! connected.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::{Instant, timeout};

use super::Access;
use super::carry::Row;
use super::exchange::Exchange;
use crate::client::peerbus::{Client, Options, Sent};
use crate::wire::peerbus::EVERYBODY;

/// Messages to who is offline, at most.
const QUEUED: usize = 256;

/// Broadcasts, at most, and how many hear them.
const BROADCASTS: usize = 64;
const LISTENERS: usize = 3;

/// What was not acknowledged would have come again within this time.
const QUIET: Duration = Duration::from_millis(200);

async fn connect(bus: &Access, name: &str) -> anyhow::Result<Client> {
    let mut client = Client::start(Options::new(&bus.url, name, &bus.secret))?;
    client.connected().await.with_context(|| format!("registering {name}"))?;
    Ok(client)
}

/// Sends the beginning of `file` to a peer that is offline, which then comes and takes it, and to
/// all who are connected; reports each row when it is done. One that takes longer than `deadline`
/// has failed.
pub(super) async fn exchange(
    bus: &Access,
    file: &[u8],
    deadline: Duration,
    mut report: impl FnMut(Row),
) {
    let late = |_| Err(anyhow::anyhow!("it took longer than {deadline:?}"));
    // Names are their first owner's, also in a state folder that has seen another demo.
    let run = getrandom::u32().unwrap_or_default();

    let mut queued = Exchange::new(file, QUEUED, 1);
    let ended = timeout(deadline, queued.offline(bus, run)).await.unwrap_or_else(late);
    report(queued.into_row("offline", ended));
    let mut broadcast = Exchange::new(file, BROADCASTS, LISTENERS);
    let ended = timeout(deadline, broadcast.broadcast(bus, run)).await.unwrap_or_else(late);
    report(broadcast.into_row("broadcast", ended));
}

impl Exchange<'_> {
    /// The latencies are those from the return of the recipient.
    async fn offline(&mut self, bus: &Access, run: u32) -> anyhow::Result<()> {
        let [sender, recipient] = ["sender", "recipient"].map(|name| format!("{name}-{run:08x}"));
        // Who was never there cannot be written to.
        connect(bus, &recipient).await?.close().await?;
        let client = connect(bus, &sender).await?;
        let mut all = Vec::new();
        for piece in &self.pieces {
            all.push(client.sender().post(&recipient, &STANDARD.encode(piece)).await?);
        }
        for pending in all {
            ensure!(pending.sent().await? == Sent::Stored, "a message was taken for another");
        }

        let clock = Instant::now();
        let mut client = connect(bus, &recipient).await?;
        for piece in &self.pieces {
            receive(&mut client, piece).await?;
            self.latencies.push(clock.elapsed());
        }
        client.close().await?;
        let mut client = connect(bus, &recipient).await?;
        let again = timeout(QUIET, client.recv()).await;
        ensure!(again.is_err(), "what was acknowledged came again");
        client.close().await?;
        Ok(())
    }

    async fn broadcast(&mut self, bus: &Access, run: u32) -> anyhow::Result<()> {
        let speaker = connect(bus, &format!("speaker-{run:08x}")).await?;
        let mut listeners = Vec::new();
        for number in 0..self.copies {
            listeners.push(connect(bus, &format!("listener-{number}-{run:08x}")).await?);
        }
        for piece in &self.pieces {
            let clock = Instant::now();
            let pending = speaker.sender().post(EVERYBODY, &STANDARD.encode(piece)).await?;
            for listener in &mut listeners {
                receive(listener, piece).await?;
                self.latencies.push(clock.elapsed());
            }
            pending.sent().await?;
        }
        for client in listeners.into_iter().chain([speaker]) {
            client.close().await?;
        }
        Ok(())
    }
}

/// Takes the next message, which shall carry this piece, and acknowledges it.
async fn receive(client: &mut Client, piece: &[u8]) -> anyhow::Result<()> {
    let delivery = client.recv().await?.context("the client has ended")?;
    let text: String = delivery.read()?;
    ensure!(STANDARD.decode(text)? == piece, "a message is another, or out of order");
    delivery.ack().await;
    Ok(())
}
