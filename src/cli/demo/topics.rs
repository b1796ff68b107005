//! Publications and requests of the demo's relay, by services of middleman's protocol.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::{Instant, timeout};

use super::Access;
use super::carry::Row;
use super::exchange::Exchange;
use crate::client::middleman::{Client, Content, Event, Options};

/// Publications and requests, at most.
const PUBLICATIONS: usize = 256;
const REQUESTS: usize = 256;

/// How many hear a publication.
const LISTENERS: usize = 3;

async fn connect(topics: &Access) -> anyhow::Result<Client> {
    let mut client = Client::start(Options::new(&topics.url, &topics.secret))?;
    client.connected().await.context("logging in")?;
    Ok(client)
}

/// Publishes the beginning of `file` to some subscribers, and has a responder send it back;
/// reports each row when it is done. One that takes longer than `deadline` has failed.
pub(super) async fn exchange(
    topics: &Access,
    file: &[u8],
    deadline: Duration,
    mut report: impl FnMut(Row),
) {
    let late = |_| Err(anyhow::anyhow!("it took longer than {deadline:?}"));
    let mut published = Exchange::new(file, PUBLICATIONS, LISTENERS);
    let ended = timeout(deadline, published.publish(topics)).await.unwrap_or_else(late);
    report(published.into_row("PUB→SUB", ended));
    let mut asked = Exchange::new(file, REQUESTS, 1);
    let ended = timeout(deadline, asked.ask(topics)).await.unwrap_or_else(late);
    report(asked.into_row("REQ→RES", ended));
}

impl Exchange<'_> {
    async fn publish(&mut self, topics: &Access) -> anyhow::Result<()> {
        let speaker = connect(topics).await?;
        let mut listeners = Vec::new();
        for _ in 0..self.copies {
            let mut listener = connect(topics).await?;
            listener.sender().subscribe("demo").await?;
            // What a listener says itself shows that it is heard from then on.
            let own = format!("demo-{}", listeners.len());
            listener.sender().subscribe(&own).await?;
            listener.sender().publish(&own, "").await?;
            publication(&mut listener).await?;
            listeners.push(listener);
        }
        for piece in &self.pieces {
            let clock = Instant::now();
            speaker.sender().publish("demo", STANDARD.encode(piece)).await?;
            for listener in &mut listeners {
                let body = publication(listener).await?.body;
                ensure!(STANDARD.decode(body)? == *piece, "a message is another, or out of order");
                self.latencies.push(clock.elapsed());
            }
        }
        for client in listeners.into_iter().chain([speaker]) {
            client.close().await?;
        }
        Ok(())
    }

    async fn ask(&mut self, topics: &Access) -> anyhow::Result<()> {
        let asker = connect(topics).await?;
        let mut responder = connect(topics).await?;
        responder.sender().respond("demo").await?;
        // As above.
        responder.sender().subscribe("demo-ready").await?;
        responder.sender().publish("demo-ready", "").await?;
        publication(&mut responder).await?;
        for piece in &self.pieces {
            let clock = Instant::now();
            let asked = asker.sender().request("demo", STANDARD.encode(piece));
            let answered = async {
                let event = responder.recv().await?.context("the client has ended")?;
                let Event::Request(request) = event else {
                    anyhow::bail!("something else came instead of a request");
                };
                let body = request.content.body.clone();
                Ok(request.answer(Content::text(body)).await?)
            };
            let (answer, answered) = tokio::join!(asked, answered);
            answered?;
            ensure!(STANDARD.decode(answer?.body)? == *piece, "an answer is another's");
            self.latencies.push(clock.elapsed());
        }
        for client in [asker, responder] {
            client.close().await?;
        }
        Ok(())
    }
}

/// The next publication.
async fn publication(client: &mut Client) -> anyhow::Result<Content> {
    let event = client.recv().await?.context("the client has ended")?;
    let Event::Publication(publication) = event else {
        anyhow::bail!("something else came instead of a publication");
    };
    Ok(publication.content)
}
