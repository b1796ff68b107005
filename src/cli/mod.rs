//! The subcommands: what the program is asked, and how it ends.

mod audit;
mod bus;
mod certs;
mod check;
mod cluster_id;
pub mod connect;
mod control;
pub mod demo;
mod doctor;
mod enroll;
mod exit;
mod keygen;
mod logging;
mod manual;
mod mcp;
mod migrate;
mod output;
mod serve;
mod way_out;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Parser, Subcommand};

pub use exit::{CODES, Exit};
pub use logging::{LogControl, Logs, start as start_logging};
pub use serve::serve;

use self::way_out::completed;
use crate::build;
use crate::config::{Flags, Source, Surroundings, shown};
use crate::doors::{Plan, plans};
use crate::ids::PRIVATE_KEY_MARK;

/// Carries packets between peers that cannot reach each other.
#[derive(Debug, Parser)]
#[command(
    name = "beacon-relay",
    version = build::VERSION,
    long_version = build::ABOUT,
    term_width = 0,
    arg_required_else_help = false
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay
    Serve(Flags),
    /// Show a relay at work: carry a file between peers in all four cells
    Demo(demo::Demo),
    /// Be a node at the terminal, connected to a relay
    Connect(connect::Args),
    /// Put an agent's program on the message bus: a server of the Model Context Protocol over stdio
    Mcp(Box<mcp::Args>),
    /// Check the whole way of a peer, and this machine, and say what to do about each finding
    Doctor(Box<doctor::Args>),
    /// Check the settings of `serve`, and print what they come to as TOML
    CheckConfig(Flags),
    /// Print the settings of another program's relay as a configuration of this one
    Migrate(migrate::Migrate),
    /// Make a new Ed25519 key
    Keygen(keygen::Keygen),
    /// Make and show the certificates that hubs and their clients know each other by
    #[command(subcommand)]
    Certs(certs::Certs),
    /// Add a node's public key to the directory in the state folder
    Enroll(enroll::Enroll),
    /// Remove a node's public key from the directory in the state folder
    Unenroll(enroll::Unenroll),
    /// List the nodes of the directory in the state folder, with their keys
    Enrolled(enroll::List),
    /// Print the id that other relays of a cluster know this one by
    ClusterId(cluster_id::ClusterId),
    /// Move the messages of a relay
    #[command(subcommand)]
    Bus(bus::Bus),
    /// Check or print the audit log of messages
    #[command(subcommand)]
    Audit(audit::Audit),
    /// Print the completions of a shell
    Completions(manual::Completions),
    /// Write the manual's pages to a folder
    #[command(hide = true)]
    Man(manual::Man),
    #[command(flatten)]
    Control(control::Control),
}

/// Subcommands that earlier versions had, and what to run instead.
const GONE: [(&str, &str); 1] = [(
    "bench",
    "the load generator is a program of its own: in the sources, run `make beacon-bench`, then \
     target/release/beacon-bench with the same options",
)];

/// Does what the arguments ask, the first of which is the program's name.
///
/// Whatever goes wrong is a line on stderr for each mistake, and an exit code of [`Exit`].
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    run_with(arguments, Vec::new())
}

/// Does the same in a program that brings further doors.
pub fn run_with(arguments: impl IntoIterator<Item = OsString>, doors: Vec<Plan>) -> ExitCode {
    // First: names and configurations that the arguments hold may be of these doors.
    let registered = plans().iter().chain(&doors).try_for_each(Plan::register);
    let registered = registered.map_err(|error| Exit::Failed(error.into()));
    let done = registered.and_then(|()| parse(arguments));
    match done.and_then(|command| dispatch(command, doors)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            let lines = exit.lines().into_iter().map(|line| format!("beacon-relay: {line}\n"));
            output::say_last(lines.collect());
            exit.code().into()
        }
    }
}

/// The command to carry out; `None` where the arguments asked for help or the version.
fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Option<Command>, Exit> {
    let error = match Cli::try_parse_from(arguments) {
        Ok(cli) => return Ok(Some(cli.command)),
        Err(error) => error,
    };
    if let Some(ContextValue::String(name)) = error.get(ContextKind::InvalidSubcommand)
        && let Some((_, instead)) = GONE.iter().find(|(gone, _)| gone == name)
    {
        return Err(Exit::Usage(format!("unrecognized subcommand '{name}'; {instead}")));
    }
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output::print(&text)?;
        return Ok(None);
    }
    Err(Exit::Usage(completed(&one_line(&text), "`--help` lists what it takes")))
}

/// What clap says over several lines, without its title and its advice to read the help.
fn one_line(text: &str) -> String {
    let is_advice = |text: &str| text.starts_with("Usage:") || text.starts_with("For more");
    let paragraphs: Vec<_> = text
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|paragraph| !is_advice(paragraph))
        .collect();
    let line = paragraphs.join("; ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    // A URL in a wrong place is quoted, and may have a password.
    without_private_keys(&shown("", line))
}

/// The text without the private keys in it, which somebody gave for public ones.
fn without_private_keys(text: &str) -> String {
    let mut parts = text.split(PRIVATE_KEY_MARK);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let is_of_a_key = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        out.push_str(PRIVATE_KEY_MARK);
        out.push('…');
        out.push_str(part.trim_start_matches(is_of_a_key));
    }
    out
}

fn dispatch(command: Option<Command>, doors: Vec<Plan>) -> Result<(), Exit> {
    match command {
        None => Ok(()),
        Some(Command::Serve(flags)) => serve(flags, doors),
        Some(Command::Demo(demo)) => demo.run(),
        Some(Command::Connect(arguments)) => Ok(serve::run_to_end(connect::run(arguments))??),
        Some(Command::Mcp(arguments)) => mcp::run(*arguments),
        Some(Command::Doctor(arguments)) => serve::run_to_end(doctor::run(*arguments))?,
        Some(Command::CheckConfig(flags)) => {
            let source = Source::new(flags, Surroundings::of_this_process());
            check::check(&source.read()?)
        }
        Some(Command::Migrate(migrate)) => migrate.run(),
        Some(Command::Keygen(keygen)) => keygen.run(),
        Some(Command::Certs(certs)) => certs.run(),
        Some(Command::Enroll(enroll)) => enroll.run(),
        Some(Command::Unenroll(unenroll)) => unenroll.run(),
        Some(Command::Enrolled(list)) => list.run(),
        Some(Command::ClusterId(id)) => id.run(),
        Some(Command::Bus(bus)) => bus.run(),
        Some(Command::Audit(audit)) => audit.run(),
        Some(Command::Completions(completions)) => completions.run(),
        Some(Command::Man(man)) => man.run(),
        Some(Command::Control(control)) => control.run(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_a_commands_own_flags_before_those_of_all_commands() {
        fn check(command: &clap::Command) {
            let own: Vec<_> = command
                .get_arguments()
                .filter(|flag| flag.get_long().is_some() && flag.get_help_heading().is_none())
                .map(|flag| flag.get_id().as_str())
                .filter(|id| !["help", "version"].contains(id))
                .collect();
            let is_shared = |id: &&str| ["state_dir", "json"].contains(id);
            if own.contains(&"state_dir") {
                assert!(own.iter().is_sorted_by_key(is_shared), "{}: {own:?}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn what_clap_refuses_is_one_line() {
        for (arguments, part) in [
            (&["serve", "--idle-timout", "1s"] as &[_], "--idle-timeout"),
            (&["serve", "--keys"], "--keys <FILE>"),
            (&["serve", "--keys", "a", "--keys", "b"], "--keys <FILE>"),
            (&["enroll"], "<NODE_ID> <KEY>"),
            (&["enroll", "0", "AAAA"], "`0` is not a node id"),
            (&["sreve"], "serve"),
            (&["bench", "--scenario", "login"], "beacon-bench with the same options"),
            (&["serve", "nats://relay:hunter2@a"], "'nats://***@a'"),
            (&[], "subcommand"),
        ] {
            let arguments = ["beacon-relay"].iter().chain(arguments).map(OsString::from);
            let Err(Exit::Usage(line)) = parse(arguments) else { panic!("{part}") };
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
            assert!(!line.contains("Usage") && !line.starts_with("error"), "{line}");
        }
    }
}
