//! `bus move`: messages from the state folder to NATS JetStream, and back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use anyhow::{Context as _, anyhow};
use clap::{Subcommand, ValueEnum};
use tokio::runtime::Builder;

use super::{Exit, output};
use crate::cluster::{load_or_create, relay_id};
use crate::config::{Flags, Layers, Surroundings};
use crate::server::jetstream_settings;
use crate::store::{
    Embedded, Handover, JetStream, Leadership, StoreError, bus_folder, replica_folder,
};

/// How long another relay may take to let go of the log.
const LEAD: Duration = Duration::from_secs(10);

/// What is done with the store of messages.
#[derive(Debug, Subcommand)]
pub(super) enum Bus {
    /// Move messages between the state folder and NATS JetStream, while no relay runs
    Move {
        /// Where they go
        #[arg(long)]
        to: Target,
        /// The settings of `serve`, with --bus-nats
        #[command(flatten)]
        flags: Flags,
    },
}

/// Where messages are.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Target {
    /// NATS JetStream
    Nats,
    /// The state folder
    Embedded,
}

impl Bus {
    pub(super) fn run(self) -> Result<(), Exit> {
        let Self::Move { to, flags } = self;
        let layers = Layers::collect(flags, &Surroundings::of_this_process())?;
        let state_dir = layers.state_dir()?;
        let nats = layers.bus_nats()?;
        let nats = nats.ok_or_else(|| {
            Exit::Usage("bus move: --bus-nats is missing; add the URL of the NATS".to_owned())
        })?;
        let began = Instant::now();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("there is no runtime")?;
        let _entered = runtime.enter();
        let key = load_or_create(&state_dir).context("the relay's key")?;
        let replica = replica_folder(&state_dir);
        // Before anything is connected to: a relay that runs has it.
        let embedded = (to == Target::Nats).then(|| source(&state_dir)).transpose()?;
        let log = JetStream::open(&jetstream_settings(&nats), &replica, relay_id(&key));
        let log = Arc::new(
            log.map_err(|error| anyhow!("{error}; does a relay run here? Stop it first"))?,
        );
        let epoch = runtime.block_on(lead(&log))?;
        let moved = match &embedded {
            Some(embedded) => log.take_in(epoch, embedded),
            None => log.give_out(epoch, &bus_folder(&state_dir)),
        };
        let moved = moved.map_err(anyhow::Error::from)?;
        log.resign();
        drop((log, embedded));
        let rest = match to {
            Target::Nats => set_aside(&bus_folder(&state_dir))?,
            Target::Embedded => {
                fs::remove_dir_all(&replica).context("the replica is left")?;
                "the streams are removed".to_owned()
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        output::print(&format!("moved {moved} in {seconds:.2} s; {rest}\n"))
    }
}

/// Why there is nothing to work on in a state folder.
pub(super) fn no_store(folder: &Path, error: &io::Error) -> anyhow::Error {
    let folder = folder.display();
    anyhow!(
        "there is no store of messages at {folder}: {error}; name the relay's state folder by --state-dir"
    )
}

/// The store of a relay that does not run.
fn source(state_dir: &Path) -> Result<Embedded, Exit> {
    let folder = bus_folder(state_dir);
    fs::metadata(&folder).map_err(|error| no_store(&folder, &error))?;
    Embedded::open(&folder, Handover::Kernel).map_err(|error| {
        if matches!(error, StoreError::Locked) {
            return anyhow!("a relay uses {}; stop it first", folder.display()).into();
        }
        Exit::Failed(error.into())
    })
}

/// Waits until this process leads the log; the number of its epoch.
async fn lead(log: &JetStream) -> Result<u64, Exit> {
    let mut leadership = log.leadership();
    let leads = leadership.wait_for(|known| matches!(known, Leadership::Here { .. }));
    let leads = tokio::time::timeout(LEAD, leads).await;
    match leads.map(|known| known.map(|known| *known)) {
        Ok(Ok(Leadership::Here { epoch })) => Ok(epoch),
        _ => Err(match *log.leadership().borrow() {
            Leadership::There { relay, .. } => {
                anyhow!("relay {relay} has the messages in NATS; stop it first").into()
            }
            Leadership::Nobody | Leadership::Here { .. } => {
                let trouble = log.outage();
                let trouble =
                    trouble.map_or_else(|| "the log says why".to_owned(), |outage| outage.reason);
                anyhow!("the log of messages cannot be used: {trouble}; `beacon-relay doctor` checks NATS").into()
            }
        }),
    }
}

/// Keeps the folder of messages that have moved, where no relay takes it for its store.
fn set_aside(folder: &Path) -> Result<String, Exit> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Another move may have ended in the same second.
    let mut names = (since_epoch.as_secs()..).map(|second| format!("moved-{second}"));
    let aside = names
        .find_map(|name| Some(folder.with_extension(name)).filter(|aside| !aside.exists()))
        .expect("one of so many is free");
    fs::rename(folder, &aside).context("the messages have moved, and their folder is left")?;
    Ok(format!("what they were is in {}", aside.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_moves_in_one_second_are_all_kept() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join("bus");
        for number in 0..3 {
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("messages"), [number]).unwrap();
            set_aside(&folder).unwrap();
        }
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 3);
    }
}
