//! `cluster-id`: what the other relays of a cluster know this one by.

use super::{Exit, output};
use crate::cluster::{identity_file, load_or_create, relay_id};
use crate::config::{Flags, Layers, Surroundings, create_state_dir};

/// What `cluster-id` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct ClusterId {
    /// Folder of what the relay keeps [default: that of `serve`]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<String>,
}

impl ClusterId {
    /// Prints the id; the key behind it is made where there is none.
    pub(super) fn run(self) -> Result<(), Exit> {
        let flags = Flags::state_dir(self.state_dir);
        let layers = Layers::collect(flags, &Surroundings::of_this_process())?;
        let folder = layers.state_dir()?;
        create_state_dir(&folder)?;
        let key = load_or_create(&folder).map_err(|error| {
            layers.refuse_file("state_dir", &identity_file(&folder), error.to_string())
        })?;
        output::print(&format!("{}\n", relay_id(&key)))
    }
}
