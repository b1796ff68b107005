//! `enroll`, `unenroll` and `enrolled`: the directory of keys in the state folder.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use clap::ValueHint;
use rustix::process::geteuid;
use serde_json::{Value, json};

use super::control::layout::{at, table};
use super::{Exit, output};
use crate::config::{Config, Flags, Layers, Source, Surroundings, create_state_dir};
use crate::control::Action;
use crate::control::client::{AskError, ask};
use crate::doors::pilot::directory::{self, Enrolled};
use crate::ids::{NodeId, PublicKey};

/// Longest wait for one answer of the relay.
const ANSWER: Duration = Duration::from_secs(5);

/// Longest wait of `--wait`: a relay looks at its key file each second, and takes it once it has been
/// still for one.
const PATIENCE: Duration = Duration::from_secs(15);

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// What `enroll` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Enroll {
    /// Number of the node
    node_id: NodeId,
    /// Its Ed25519 public key, as base64
    key: PublicKey,
    #[command(flatten)]
    place: Place,
}

/// What `unenroll` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Unenroll {
    /// Number of the node
    node_id: NodeId,
    #[command(flatten)]
    place: Place,
}

/// What `enrolled` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct List {
    /// Folder of what the relay keeps [default: that of `serve`]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    state_dir: Option<String>,
    /// Print the nodes as JSON, as a file for --keys has them
    #[arg(long)]
    json: bool,
}

/// Which directory is changed, and whether to wait for the relay.
#[derive(clap::Args, Debug)]
struct Place {
    /// Wait until the running relay has taken the change, 15 s at most
    #[arg(long)]
    wait: bool,
    /// Folder of what the relay keeps [default: that of `serve`]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    state_dir: Option<String>,
}

impl Enroll {
    /// Adds the key, and says what became of it.
    pub(super) fn run(self) -> Result<(), Exit> {
        let Self { node_id, key, place } = self;
        let folder = place.folder()?;
        let is_new = !folder.exists();
        create_state_dir(&folder)?;
        let enrolled = directory::enroll(&folder, node_id, key).with_context(|| {
            format!("node {node_id} cannot be enrolled in {}", folder.display())
        })?;
        let done = match enrolled {
            Enrolled::Added => "added",
            Enrolled::Replaced => "now has this key instead of its earlier one",
            Enrolled::Unchanged => "has this key already",
        };
        output::print(&format!("node {node_id}: {done}, in {}\n", folder.display()))?;
        if is_new && geteuid().is_root() {
            let folder = folder.display();
            output::warn(format!(
                "{folder} was made for root: a relay of another user cannot read it; give it to that \
                 user, as in `chown -R beacon-relay: {folder}`"
            ));
        }
        place.settle(&folder, node_id, Some(key))
    }
}

impl Unenroll {
    /// Removes the key, and says so.
    pub(super) fn run(self) -> Result<(), Exit> {
        let Self { node_id, place } = self;
        let folder = place.folder()?;
        let shown = folder.display();
        // Nothing is made where there is nothing to remove.
        let is_gone = folder.exists()
            && directory::unenroll(&folder, node_id)
                .with_context(|| format!("node {node_id} cannot be removed from {shown}"))?;
        if !is_gone {
            let advice = "`beacon-relay enrolled` lists those that are";
            return Err(anyhow!("node {node_id} is not enrolled in {shown}; {advice}").into());
        }
        output::print(&format!("node {node_id}: removed, from {shown}\n"))?;
        place.settle(&folder, node_id, None)
    }
}

impl List {
    /// Prints the nodes with their keys.
    pub(super) fn run(self) -> Result<(), Exit> {
        let Self { json: as_json, state_dir } = self;
        let folder = Layers::state_dir_of(state_dir, &Surroundings::of_this_process())?;
        let nodes = directory::enrolled(&folder)
            .with_context(|| format!("the nodes of {} cannot be listed", folder.display()))?;
        if as_json {
            let keys = nodes.iter().map(|(node, key)| (node.to_string(), key.to_string().into()));
            let keys: serde_json::Map<String, Value> = keys.collect();
            return output::print(&format!("{}\n", json!(keys)));
        }
        let rows = nodes.iter().map(|(node, key)| vec![node.to_string(), key.to_string()]);
        output::print(&table(&["NODE", "KEY"], &rows.collect::<Vec<_>>()))
    }
}

impl Place {
    fn folder(&self) -> Result<PathBuf, Exit> {
        Ok(Layers::state_dir_of(self.state_dir.clone(), &Surroundings::of_this_process())?)
    }

    /// Says where the relay has its keys from, if that is elsewhere; with `--wait`, waits until it
    /// has what was written: this key, or none.
    fn settle(&self, folder: &Path, node: NodeId, wanted: Option<PublicKey>) -> Result<(), Exit> {
        let wanted = wanted.map(|key| key.to_string()).unwrap_or_default();
        let action = Action::Enrolment { node: node.into() };
        let end = Instant::now() + PATIENCE;
        loop {
            let answer = match ask(folder, &action, ANSWER) {
                Ok(answer) => answer,
                Err(error) if self.wait => return Err(of_relay(error)),
                // Nobody runs there, or not as this user: the settings may say as much.
                Err(_) => {
                    if let Some(source) = source_of_settings() {
                        output::warn(elsewhere(&source));
                    }
                    return Ok(());
                }
            };
            if at(&answer, &["is_embedded"]) != "true" {
                let elsewhere = elsewhere(&at(&answer, &["source"]));
                if self.wait {
                    return Err(anyhow!(elsewhere).into());
                }
                output::warn(elsewhere);
                return Ok(());
            }
            if !self.wait {
                return Ok(());
            }
            if at(&answer, &["credential"]) == wanted {
                return output::print("the running relay has taken it\n");
            }
            if Instant::now() >= end {
                let seconds = PATIENCE.as_secs();
                return Err(anyhow!(
                    "the running relay has not taken it within {seconds} s; `beacon-relay status` may \
                     say why (keys)"
                )
                .into());
            }
            thread::sleep(PAUSE);
        }
    }
}

fn elsewhere(source: &str) -> String {
    format!(
        "the relay has its keys from {source}, and not from its state folder: this changes nothing \
         for it; change the key there"
    )
}

/// Where `serve` would have keys from by the environment and the file that it names, where that is
/// not the state folder.
fn source_of_settings() -> Option<String> {
    let source = Source::new(Flags::default(), Surroundings::of_this_process());
    let Config { keys, registry, .. } = source.read().ok()?.config;
    let registry = registry.map(|registry| format!("the registry at {}", registry.address));
    keys.map(|path| path.display().to_string()).or(registry)
}

fn of_relay(error: AskError) -> Exit {
    match error {
        AskError::NoRelay { .. } => Exit::NoRelay(error),
        AskError::Silent { .. } | AskError::NoAnswer { .. } => Exit::NoAnswer(error),
        AskError::Refused(_) => Exit::Failed(error.into()),
    }
}
