//! Man pages and shell completions, made from the declaration of the arguments.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Exit, output};

/// What `completions` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(super) fn run(&self) -> Result<(), Exit> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "beacon-relay", &mut script);
        output::print(&String::from_utf8_lossy(&script))
    }
}

/// What `man` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Man {
    /// Folder to write the pages to, one for each subcommand
    folder: PathBuf,
}

impl Man {
    /// Writes the pages.
    pub(super) fn run(&self) -> Result<(), Exit> {
        let folder = &self.folder;
        let context = || format!("the pages cannot be written to {}", folder.display());
        fs::create_dir_all(folder).with_context(context)?;
        clap_mangen::generate_to(Cli::command(), folder).with_context(context)?;
        Ok(())
    }
}
