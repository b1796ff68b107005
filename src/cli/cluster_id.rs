//! `cluster-id`: what the other relays of a cluster know this one by.

use super::way_out::{completed, of_identity};
use super::{Exit, output};
use crate::cluster::{identity_file, load_or_create, relay_id};
use crate::config::{Error, Layers, Place, Surroundings, create_state_dir};

/// What `cluster-id` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct ClusterId {
    /// Folder of what the relay keeps [default: that of `serve`]
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    state_dir: Option<String>,
}

impl ClusterId {
    /// Prints the id; the key behind it is made where there is none.
    pub(super) fn run(self) -> Result<(), Exit> {
        let folder = Layers::state_dir_of(self.state_dir, &Surroundings::of_this_process())?;
        create_state_dir(&folder)?;
        let key = load_or_create(&folder).map_err(|error| Error::File {
            place: Place::flag("state_dir"),
            path: identity_file(&folder),
            reason: completed(&error.to_string(), of_identity(&error)),
        })?;
        output::print(&format!("{}\n", relay_id(&key)))
    }
}
