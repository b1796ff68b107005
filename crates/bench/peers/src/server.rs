//! A server under measurement: a process of its own, ended by its id.

use std::io;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use beacon_bench::process::Usage;

/// What peers speak WebSocket over.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Channel {
    Plain,
    Tls,
}

/// A running server; it ends when this is dropped, or when the benchmark itself ends.
pub(crate) struct Server {
    pub(crate) child: Child,
}

impl Server {
    /// Starts `program`, with its output going where `stdout` says.
    ///
    /// # Errors
    /// The program, or setpriv(1) before it, is not there.
    pub(crate) fn start(
        program: &str,
        arguments: &[String],
        stdout: Stdio,
    ) -> anyhow::Result<Self> {
        // setpriv becomes the program, so the id is the server's own.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {program} by setpriv"))?;
        Ok(Self { child })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the server has used so far.
    ///
    /// # Errors
    /// The server has ended.
    pub(crate) fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
