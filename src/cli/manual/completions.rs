//! `completions`: the script by which a shell completes the words of this program.

use std::fmt::Write as _;

use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::cli::{Cli, Exit, output};

/// What `completions` is asked.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(in crate::cli) fn run(&self) -> Result<(), Exit> {
        output::print(&script(self.shell, &mut Cli::command()))
    }
}

fn script(shell: Shell, command: &mut Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "beacon-relay", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    if shell == Shell::Bash {
        // The script tells commands apart by names that it spells in two ways where the program's own
        // has a dash (clap_complete 4.6), so that it would offer nothing behind the first word.
        return script.replace("beacon__subcmd__relay", "beacon__relay");
    }
    // That of fish has no values of what stands without a flag.
    if shell == Shell::Fish { script + &values_for_fish(command) } else { script }
}

/// What fish offers behind a command that takes one of a few words.
fn values_for_fish(command: &Command) -> String {
    let mut lines = String::new();
    for subcommand in command.get_subcommands() {
        let positionals = subcommand.get_positionals();
        let words: Vec<_> = positionals
            .flat_map(clap::Arg::get_possible_values)
            .map(|value| value.get_name().to_owned())
            .collect();
        if !words.is_empty() {
            let (name, words) = (subcommand.get_name(), words.join(" "));
            // Writing to a string does not fail.
            let _ = writeln!(
                lines,
                "complete -c beacon-relay -n \"__fish_beacon_relay_using_subcommand {name}\" -f -a \"{words}\""
            );
        }
    }
    lines
}
