//! The client against a registry over real TCP, good and bad.
//!
//! The clock runs, since a paused one jumps to the next deadline while bytes are on
//! their way; `skip` moves it where a test would have to wait.

mod answers;
mod failures;
mod fake;
mod pace;

use std::fs;

use tokio::task::{JoinHandle, JoinSet, yield_now};
use tokio::time::{advance, pause, resume};
use tokio_util::sync::CancellationToken;

use self::fake::{Event, Fake, Modes, Reply};
use super::*;
use crate::doors::pilot::directory::{Change, Directory, Reload, Settings};
use crate::metrics::Registry as Scrape;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Time enough for what does not wait, and too little for what does.
const SOON: Duration = Duration::from_secs(1);

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn key(byte: u8) -> Lookup {
    Lookup::Key(PublicKey([byte; 32]))
}

async fn skip(time: Duration) {
    pause();
    advance(time).await;
    resume();
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        yield_now().await;
    }
}

/// A running directory; its tasks end with it.
struct Fixture {
    directory: Directory,
    state_dir: tempfile::TempDir,
    _running: JoinSet<()>,
}

impl Fixture {
    fn new(address: impl fmt::Display) -> Self {
        let address = address.to_string();
        Self::with(RegistrySettings::new(address), None)
    }

    fn with(registry: RegistrySettings, keys: Option<&str>) -> Self {
        let state_dir = tempfile::tempdir().unwrap();
        let keys = keys.map(|text| {
            let path = state_dir.path().join("given.json");
            fs::write(&path, text).unwrap();
            path
        });
        let (registry, dir) = (Some(registry), state_dir.path().to_owned());
        let directory = Directory::open(Settings { keys, registry, state_dir: dir }).unwrap();
        let mut running = JoinSet::new();
        running.spawn(directory.clone().run(CancellationToken::new()));
        Self { directory, state_dir, _running: running }
    }

    async fn lookup(&self, number: u32) -> Lookup {
        self.directory.lookup(node(number)).await
    }

    fn known(&self, number: u32) -> Option<PublicKey> {
        self.directory.known(node(number))
    }

    /// The value of one sample of a scrape.
    fn metric(&self, sample: &str) -> f64 {
        let scrape = Scrape::default();
        let directory = self.directory.clone();
        scrape.add(move |families| directory.metrics(families));
        let text = scrape.encode().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {sample} in\n{text}")).parse().unwrap()
    }

    fn failures(&self, reason: &str) -> f64 {
        self.metric(&format!("pilot_beacon_registry_failures_total{{reason=\"{reason}\"}}"))
    }

    fn outcomes(&self, outcome: &str) -> f64 {
        self.metric(&format!("pilot_beacon_directory_lookups_total{{outcome=\"{outcome}\"}}"))
    }

    fn start_lookup(&self, number: u32) -> JoinHandle<Lookup> {
        let directory = self.directory.clone();
        tokio::spawn(async move { directory.lookup(node(number)).await })
    }

    /// Passes the back-off until the registry answers again.
    async fn recovered(&self, number: u32, expected: Lookup) {
        while self.lookup(number).await != expected {
            skip(Duration::from_millis(500)).await;
        }
    }
}
