//! A program that is measured, or that what is measured cannot do without.

use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::process::Usage;

/// A running program; it ends when this is dropped, and when the main thread of this process is over,
/// however that ends.
pub(super) struct Program(Child);

impl Program {
    /// Starts it, and waits for the line of its log that contains `word`.
    pub(super) fn start(command: &Command, word: &str) -> anyhow::Result<(Self, String)> {
        let name = command.get_program().display().to_string();
        let child = ending_with_us(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .env("NO_COLOR", "1")
            .spawn()
            .with_context(|| format!("cannot start {name} by setpriv"))?;
        let mut program = Self(child);
        let stderr = program.0.stderr.take().context("stderr was piped")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        let found = lines.by_ref().map_while(Result::ok).find(|line| {
            let found = line.contains(word);
            if !found {
                said.push(line.clone());
            }
            found
        });
        let Some(line) = found else {
            bail!("{name} does not start; it says:\n{}", said.join("\n"));
        };
        // A full pipe would stop it.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| is_worth_seeing(line)) {
                let _closed = io::Write::write_fmt(&mut io::stderr(), format_args!("{line}\n"));
            }
        });
        Ok((program, line))
    }

    /// Has it end in its own way.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.0), Signal::TERM)?;
        let status = self.0.wait()?;
        anyhow::ensure!(status.success(), "the server ends with {status}");
        Ok(())
    }

    /// What it has used so far.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.0.id()).context("the server has ended")
    }
}

/// The same command by setpriv(1), which becomes the program: the id is that of the program itself.
///
/// The kernel kills it when the thread that starts it ends; servers are started on the main thread.
fn ending_with_us(command: &Command) -> Command {
    let mut by = Command::new("setpriv");
    by.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
    by.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    by
}

/// What a server says as it goes on; Caddy and nats-server talk of each step, in their own forms.
fn is_worth_seeing(line: &str) -> bool {
    ![" INFO ", "\"level\":\"info\"", "[INF]"].iter().any(|info| line.contains(info))
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
