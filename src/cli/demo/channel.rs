//! A channel of the demo's relay, as a hub of keyop-messenger: records for a peer that is offline, which
//! goes on at its cursor. Both sides show certificates of an authority that lasts as long as the demo.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::{Instant, timeout};

use super::TemporaryState;
use super::carry::Row;
use super::exchange::Exchange;
use crate::cli::Exit;
use crate::cli::certs::{self, Pair};
use crate::client::keyop::{
    Batch, Client, HubName, Identity, Options, Publication, Published, Transport,
};

/// Names of certificates: the relay's, and the peers'.
const HUB: &str = "localhost";
const PUBLISHER: &str = "publisher";
const SUBSCRIBER: &str = "subscriber";

/// How long the certificates are good for, in days: longer than anybody shows a demo.
const DAYS: u32 = 30;

/// Records, at most.
const RECORDS: usize = 256;

/// What payloads are: a piece of the file, or nothing, to see that records arrive.
const PIECE: &str = "piece";
const READY: &str = "ready";

/// What was not acknowledged would have come again within this time.
const QUIET: Duration = Duration::from_millis(200);

/// The certificates of the relay and its peers.
pub(super) struct Files(TemporaryState);

impl Files {
    /// Makes all of them.
    pub(super) fn create() -> Result<Self, Exit> {
        let folder = TemporaryState::create().context("cannot make a temporary folder")?;
        let pair = |name: &str| {
            let beside = |ending: &str| folder.path().join(format!("{name}.{ending}"));
            Pair { cert: beside("crt"), key: beside("key") }
        };
        let (authority, issuer) = certs::authority("demo", DAYS)?;
        pair("ca").write(&authority, false)?;
        for name in [HUB, PUBLISHER, SUBSCRIBER] {
            pair(name).write(&certs::instance(name, DAYS, &issuer)?, false)?;
        }
        Ok(Self(folder))
    }

    /// The settings of the listener.
    pub(super) fn settings(&self) -> [(&'static str, String); 4] {
        let path = |name: &str| self.0.path().join(name).display().to_string();
        [
            ("keyop_bind", "127.0.0.1:0".to_owned()),
            ("keyop_cert", path("localhost.crt")),
            ("keyop_key", path("localhost.key")),
            ("keyop_client_ca", path("ca.crt")),
        ]
    }

    /// How peers find the hub at its address.
    pub(super) fn hub(&self, address: SocketAddr) -> Hub {
        Hub { address, folder: self.0.path().to_owned() }
    }
}

/// A hub, as its peers know it.
#[derive(Clone, Debug)]
pub struct Hub {
    address: SocketAddr,
    /// Where the certificates of the peers are.
    folder: PathBuf,
}

impl Hub {
    async fn connect(
        &self,
        name: &str,
        transport: Transport,
        channel: Option<&str>,
    ) -> anyhow::Result<Client> {
        let file =
            |name: &str, ending: &str| self.folder.join(Path::new(name).with_extension(ending));
        let identity = Identity::new(file(name, "crt"), file(name, "key"));
        let mut options = Options::new(self.address.to_string(), name, identity, file("ca", "crt"));
        options.transport = transport;
        options.hub_name = HubName::Is(HUB.to_owned());
        options.subscribe = channel.map(str::to_owned).into_iter().collect();
        let mut client = Client::start(options)?;
        client.connected().await.with_context(|| format!("logging in as {name}"))?;
        Ok(client)
    }
}

/// Publishes the beginning of `file` while its subscriber is offline, which then comes and takes it;
/// the row. It has failed if it takes longer than `deadline`.
pub(super) async fn exchange(
    hub: &Hub,
    file: &[u8],
    deadline: Duration,
    mut report: impl FnMut(Row),
) {
    let mut resumed = Exchange::new(file, RECORDS, 1);
    let ended = timeout(deadline, resumed.resume(hub)).await;
    let late = |_| Err(anyhow::anyhow!("it took longer than {deadline:?}"));
    report(resumed.into_row("channel", ended.unwrap_or_else(late)));
}

impl Exchange<'_> {
    /// The latencies are those from the return of the subscriber.
    async fn resume(&mut self, hub: &Hub) -> anyhow::Result<()> {
        // One that nobody has read: a state folder may have seen another demo.
        let channel = format!("demo-{:08x}", getrandom::u32().unwrap_or_default());
        let publisher = hub.connect(PUBLISHER, Transport::WebSocket, None).await?;
        let subscribe = || hub.connect(SUBSCRIBER, Transport::Grpc, Some(&channel));
        // Who is new begins at the end of a channel, wherever that is when the hub hears of it.
        let mut subscriber = subscribe().await?;
        let ready = loop {
            publisher.publish(&Publication::new(&channel, READY, "")).await?;
            if let Ok(batch) = timeout(QUIET, subscriber.recv()).await {
                break batch?;
            }
        };
        ready.context("the client has ended")?.ack().await;
        subscriber.close().await?;

        let mut all = Vec::new();
        for piece in &self.pieces {
            let payload = STANDARD.encode(piece);
            let publication = Publication::new(&channel, PIECE, &payload);
            all.push(publisher.publisher().post(&publication).await?);
        }
        for pending in all {
            ensure!(pending.published().await? == Published::Acknowledged, "a record was not new");
        }

        let clock = Instant::now();
        let mut subscriber = subscribe().await?;
        while self.latencies.len() < self.pieces.len() {
            let batch = subscriber.recv().await?.context("the client has ended")?;
            self.take(&batch, clock)?;
            batch.ack().await;
        }
        subscriber.close().await?;
        let mut subscriber = subscribe().await?;
        let again = timeout(QUIET, subscriber.recv()).await;
        ensure!(again.is_err(), "what was acknowledged came again");
        subscriber.close().await?;
        publisher.close().await?;
        Ok(())
    }

    /// Takes records, which shall carry the next pieces.
    fn take(&mut self, batch: &Batch, clock: Instant) -> anyhow::Result<()> {
        for record in batch.envelopes() {
            let record = record.context("a record that cannot be read")?;
            if record.payload_type == READY {
                continue;
            }
            let piece = self.pieces.get(self.latencies.len()).context("a record came twice")?;
            let payload: String = serde_json::from_slice(record.payload().as_bytes())?;
            ensure!(STANDARD.decode(payload)? == *piece, "a record is another, or out of order");
            self.latencies.push(clock.elapsed());
        }
        Ok(())
    }
}
