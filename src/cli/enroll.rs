//! `enroll`: adds a node's public key to the directory in the state folder.

use anyhow::Context as _;

use super::{Exit, output};
use crate::config::{Layers, Surroundings, create_state_dir};
use crate::doors::pilot::directory::{self, Enrolled};
use crate::ids::{NodeId, PublicKey};

/// What `enroll` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Enroll {
    /// Number of the node
    node_id: NodeId,
    /// Its Ed25519 public key, as base64
    key: PublicKey,
    /// Folder of what the relay keeps [default: that of `serve`]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
}

impl Enroll {
    /// Adds the key, and says what became of it.
    pub(super) fn run(self) -> Result<(), Exit> {
        let Self { node_id, key, state_dir: folder } = self;
        let folder = Layers::state_dir_of(folder, &Surroundings::of_this_process())?;
        create_state_dir(&folder)?;
        let enrolled = directory::enroll(&folder, node_id, key).with_context(|| {
            format!("node {node_id} cannot be enrolled in {}", folder.display())
        })?;
        let done = match enrolled {
            Enrolled::Added => "added",
            Enrolled::Replaced => "now has this key instead of its earlier one",
            Enrolled::Unchanged => "has this key already",
        };
        output::print(&format!("node {node_id}: {done}, in {}\n", folder.display()))
    }
}
