//! `man`: the manual's pages, one for each command and one for the configuration file.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_mangen::Man as Page;

use super::roff::plain;
use super::{examples, settings};
use crate::cli::{CODES, Cli, Exit};

/// What `man` is asked.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Man {
    /// Folder to write the pages to, one for each subcommand
    #[arg(value_hint = clap::ValueHint::DirPath)]
    folder: PathBuf,
}

impl Man {
    /// Writes the pages.
    pub(in crate::cli) fn run(&self) -> Result<(), Exit> {
        let folder = &self.folder;
        let context = || format!("the pages cannot be written to {}", folder.display());
        fs::create_dir_all(folder).with_context(context)?;
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        write_all(&command, folder).with_context(context)?;
        fs::write(folder.join("beacon-relay.toml.5"), settings::page()).with_context(context)?;
        Ok(())
    }
}

/// Writes the page of a command, and those of its subcommands.
fn write_all(command: &Command, folder: &Path) -> std::io::Result<()> {
    for subcommand in command.get_subcommands().filter(|subcommand| !subcommand.is_hide_set()) {
        write_all(subcommand, folder)?;
    }
    let page = Page::new(command.clone());
    let mut text = Vec::new();
    page.render(&mut text)?;
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    text.extend_from_slice(rest(name).as_bytes());
    fs::write(folder.join(page.get_filename()), text)
}

/// The sections of a page that the arguments do not tell.
fn rest(name: &str) -> String {
    let mut out = String::new();
    let command = name.strip_prefix("beacon-relay-").unwrap_or_default();
    let examples = examples::of(command);
    if !examples.is_empty() {
        out.push_str(".SH EXAMPLES\n");
    }
    for (line, about) in examples {
        // Writing to a string does not fail.
        let _ = write!(out, ".TP\n{}\n.B beacon\\-relay {}\n", plain(about), plain(line));
    }
    out.push_str(".SH \"EXIT STATUS\"\n");
    for (code, meaning) in CODES {
        let _ = write!(out, ".TP\n.B {code}\n{}\n", plain(meaning));
    }
    out.push_str(FILES);
    if name != "beacon-relay" {
        out.push_str(".SH \"SEE ALSO\"\n.BR beacon\\-relay (1),\n.BR beacon\\-relay.toml (5)\n");
    } else {
        out.push_str(".SH \"SEE ALSO\"\n.BR beacon\\-relay.toml (5)\n");
    }
    out
}

/// The files of a relay that people look for.
const FILES: &str = ".SH FILES
.TP
.I /etc/beacon\\-relay/beacon\\-relay.toml
The settings, where the Debian package runs the relay.
.TP
.I /var/lib/beacon\\-relay
The state folder there, and of root elsewhere; of other users
.IR ~/.local/state/beacon\\-relay .
.TP
.I control.sock
In the state folder: where commands ask the running relay.
.TP
.I keys.json
In the state folder: the nodes that
.B beacon\\-relay enroll
has added.
.TP
.I audit.jsonl
In the state folder: what operators have done.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_has_examples_exit_codes_and_files() {
        let page = rest("beacon-relay-status");
        for part in [
            ".SH EXAMPLES\n",
            ".B beacon\\-relay status \\-\\-ready\n",
            ".SH \"EXIT STATUS\"\n",
            ".B 3\nstatus: degraded.",
            ".SH FILES\n",
            ".BR beacon\\-relay.toml (5)\n",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
    }
}
