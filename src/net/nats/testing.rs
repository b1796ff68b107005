//! The real nats-server on a port that the system chooses.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time;

/// Longest wait for a server to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; it ends when this is dropped.
pub(crate) struct Server {
    child: Child,
    folder: TempDir,
    config: String,
    port: u16,
}

impl Server {
    /// Starts one with this configuration, which names neither address nor port.
    pub(crate) async fn start(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = run(folder.path(), config, -1);
        let mut server = Self { child, folder, config: config.to_owned(), port: 0 };
        server.port = server.ready().await;
        server
    }

    /// Where it is.
    pub(crate) fn url(&self) -> String {
        self.url_of("")
    }

    /// Where it is, for a user: `user:password@`.
    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("nats://{user}127.0.0.1:{}", self.port)
    }

    /// Kills it.
    pub(crate) fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was.
    pub(crate) async fn start_again(&mut self) {
        self.child = run(self.folder.path(), &self.config, self.port.into());
        self.ready().await;
    }

    /// Stops its process, or has it go on.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
    }

    /// Waits until it listens; its port.
    async fn ready(&mut self) -> u16 {
        let path = self.folder.path().join(format!("nats-server_{}.ports", self.child.id()));
        let end = Instant::now() + PATIENCE;
        let ports: Value = loop {
            assert!(self.child.try_wait().unwrap().is_none(), "nats-server has ended");
            let text = fs::read_to_string(&path).unwrap_or_default();
            if let Ok(ports) = serde_json::from_str(&text) {
                break ports;
            }
            time::sleep(Duration::from_millis(5)).await;
            assert!(Instant::now() < end, "waited in vain for nats-server to listen");
        };
        // Of a server in a cluster there is a port for the others as well.
        let url = ports["nats"][0].as_str().expect("it says where clients go");
        let (_, port) = url.rsplit_once(':').unwrap();
        port.parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(folder: &Path, config: &str, port: i32) -> Child {
    let file = write(folder, &format!("{config}\nhost: \"127.0.0.1\"\nport: {port}\n"));
    command()
        .arg("-c")
        .arg(file)
        .arg("--ports_file_dir")
        .arg(folder)
        .stderr(Stdio::null())
        .spawn()
        .expect("no nats-server: `make setup` installs it")
}

/// Has the real server check a configuration; what it says.
pub(crate) fn check(config: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = command().arg("-t").arg("-c").arg(write(folder.path(), config)).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

fn write(folder: &Path, config: &str) -> PathBuf {
    let file = folder.join("nats.conf");
    fs::write(&file, config).unwrap();
    file
}

/// That of scripts/tools.txt: Debian's does not know all that the streams of the message bus ask for.
fn command() -> Command {
    let test = env::current_exe().unwrap();
    let target = test.ancestors().nth(3).unwrap();
    let server = target.join("tools/bin/nats-server");
    assert!(server.is_file(), "{} is missing; `make setup` installs it", server.display());
    Command::new(server)
}
