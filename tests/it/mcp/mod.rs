//! `beacon-relay mcp` between real relays and hosts that are built with the protocol's own SDK.

mod ends;
mod exchange;
mod hostile;
mod tools;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::deploy::{root, tools as packages};
use crate::peerbus::{Site, write_secret};

const SECRET: &str = "peerbus-test-peerbus-test-peerbu";

/// Longest wait for an answer: a machine that is busy starts Python slowly.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a peer is let in with.
struct Pass {
    url: String,
    token: PathBuf,
    secret: PathBuf,
}

impl Pass {
    /// For a relay that has the door.
    fn of(site: &Site) -> Self {
        Self::at(site.address, site.folder.path(), "tok")
    }

    fn at(address: SocketAddr, folder: &Path, token: &str) -> Self {
        let paths = ["mcp-token", "mcp-secret"].map(|name| folder.join(name));
        write_secret(&paths[0], token);
        write_secret(&paths[1], SECRET);
        let [token, secret] = paths;
        Self { url: format!("ws://{address}"), token, secret }
    }

    /// The arguments that a host starts the server with.
    fn arguments(&self, name: &str, more: &[&str]) -> Vec<String> {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let own = [
            "mcp".to_owned(),
            format!("--url={}", self.url),
            format!("--name={name}"),
            format!("--token-file={}", path(&self.token)),
            format!("--hmac-secret-file={}", path(&self.secret)),
        ];
        own.into_iter().chain(more.iter().map(ToString::to_string)).collect()
    }
}

/// A host, with its server as its child.
struct Host {
    child: Child,
    orders: Option<ChildStdin>,
    answers: Receiver<Value>,
    log: Arc<Mutex<String>>,
    /// What the server said of itself.
    greeting: Value,
}

impl Host {
    fn start(pass: &Pass, name: &str) -> Self {
        Self::start_with(pass, name, &[])
    }

    fn start_with(pass: &Pass, name: &str, more: &[&str]) -> Self {
        let mut child = Command::new("python3")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", packages())
            .arg(root("tests/stranger/mcp_host.py"))
            .arg(env!("CARGO_BIN_EXE_beacon-relay"))
            .args(pass.arguments(name, more))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("python3 is missing; `make setup` installs it");
        let orders = child.stdin.take();
        let (answer, answers) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let Ok(()) = answer.send(serde_json::from_str(&line).unwrap()) else { return };
            }
        });
        let log = Arc::new(Mutex::new(String::new()));
        let written = Arc::clone(&log);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                written.lock().push_str(&format!("{line}\n"));
            }
        });
        let mut host = Self { child, orders, answers, log, greeting: Value::Null };
        host.greeting = host.answer();
        host
    }

    /// What the host and its server have logged.
    fn log(&self) -> String {
        self.log.lock().clone()
    }

    fn order(&mut self, order: &Value) {
        let orders = self.orders.as_mut().unwrap();
        writeln!(orders, "{order}").unwrap();
        orders.flush().unwrap();
    }

    fn answer(&mut self) -> Value {
        let answer = self.answers.recv_timeout(PATIENCE);
        answer.unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    /// The result of a tool.
    fn call(&mut self, tool: &str, arguments: &Value) -> Value {
        self.order(&json!({"tool": tool, "arguments": arguments}));
        self.answer()
    }

    /// What a tool says is wrong.
    fn error(&mut self, tool: &str, arguments: &Value) -> String {
        let answer = self.call(tool, arguments);
        answer["error"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    fn send(&mut self, to: &str, body: impl Into<Value>) -> Value {
        let answer = self.call("bus.send", &json!({"to": to, "body": body.into()}));
        assert!(answer["sent"].is_boolean(), "{answer}");
        answer
    }

    /// The bodies of what has arrived, or arrives within a time.
    fn wait(&mut self, timeout: Duration) -> Vec<Value> {
        let timeout = u64::try_from(timeout.as_millis()).unwrap();
        bodies(&self.call("bus.wait", &json!({"timeout_ms": timeout})))
    }

    fn drain(&mut self) -> Vec<Value> {
        bodies(&self.call("bus.drain", &json!({})))
    }

    /// Waits for so many bodies, in as many calls as it takes.
    fn gather(&mut self, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        while all.len() < count {
            let more = self.wait(Duration::from_secs(30));
            assert!(!more.is_empty(), "{} of {count}: {}", all.len(), self.log());
            all.extend(more);
        }
        all
    }

    /// Leaves as hosts do: ends the server's input, and waits for the server.
    fn leave(mut self) {
        drop(self.orders.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{}", self.log());
    }

    /// Ends the host at once, which its server notices by its input.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bodies(result: &Value) -> Vec<Value> {
    let messages = result["messages"].as_array().unwrap_or_else(|| panic!("{result}"));
    messages.iter().map(|message| message["body"].clone()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}
