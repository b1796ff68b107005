//! A log that nobody reads stops nobody; one that is read loses nothing.

use std::io::{BufRead as _, BufReader, PipeReader, Read as _, Write as _, pipe};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionread;
use tempfile::TempDir;

use crate::harness::{Node, PATIENCE, Relay, http_get, look_until, write_directory};
use crate::peer::Peer;

/// Connections between two looks at the pipe.
const AT_A_TIME: usize = 50;

/// A relay whose log is read up to `listening` and no further.
struct Unread {
    child: Child,
    log: BufReader<PipeReader>,
    wss: SocketAddr,
    admin: SocketAddr,
    _state: TempDir,
}

impl Unread {
    fn start(nodes: &[&Node], drain_time: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        let keys = write_directory(state.path(), nodes);
        let (log, stderr) = pipe().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        command.args(["serve", "--log-level", "debug", "--drain-time", drain_time]);
        command.arg("--state-dir").arg(state.path()).arg("--keys").arg(keys);
        for bind in ["--wss-bind", "--udp-bind", "--admin-bind"] {
            command.args([bind, "127.0.0.1:0"]);
        }
        // Nobody reads stdout either.
        let (_stdout, unread) = pipe().unwrap();
        let child = command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(unread).stderr(stderr);
        let child = child.spawn().unwrap();
        drop(command);
        let mut log = BufReader::with_capacity(1, log);
        let mut line = String::new();
        while !line.contains("listening") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the relay has not started");
        }
        let address = |field: &str| {
            let mut words = line.split_whitespace();
            words.find_map(|word| word.strip_prefix(field)?.parse().ok()).unwrap()
        };
        let (wss, admin) = (address("wss="), address("admin="));
        Self { child, log, wss, admin, _state: state }
    }

    fn unread(&self) -> u64 {
        ioctl_fionread(self.log.get_ref()).unwrap()
    }

    /// Makes log lines until the pipe takes no more.
    fn fill_the_pipe(&self) {
        let mut before = self.unread();
        loop {
            for _ in 0..AT_A_TIME {
                ask_for_nothing(self.wss);
            }
            let now = self.unread();
            if now == before && now > 0 {
                return;
            }
            before = now;
        }
    }

    fn signal(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        let status = look_until(end, || self.child.try_wait().unwrap());
        status.expect("the relay ends").code()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request that is refused, which the log says at debug.
fn ask_for_nothing(wss: SocketAddr) {
    let mut stream = TcpStream::connect(wss).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer, though nobody reads the log");
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[test]
fn log_pipe_that_nobody_reads_stopped_sessions_operators_and_sigterm() {
    let (alice, bob) = (Node::new(1), Node::new(2));
    let mut relay = Unread::start(&[&alice, &bob], "10ms");
    relay.fill_the_pipe();

    let mut a = Peer::log_in(relay.wss, &alice);
    let mut b = Peer::log_in(relay.wss, &bob);
    for round in 0..100_u8 {
        a.relay(1, 2, &[round]);
        assert_eq!(b.read().unwrap().1.last(), Some(&round));
    }
    assert_eq!(http_get(relay.admin, "/healthz").0, 200);
    relay.signal();
    assert_eq!(relay.exit_code(), Some(0));
}

#[test]
fn log_pipe_that_nobody_reads_kept_a_relay_from_ending_at_once() {
    let alice = Node::new(1);
    let mut relay = Unread::start(&[&alice], "60s");
    let _first = Peer::log_in(relay.wss, &alice);
    relay.fill_the_pipe();
    relay.signal();
    let draining = || (http_get(relay.admin, "/readyz").0 == 503).then_some(());
    look_until(Instant::now() + PATIENCE, draining).expect("it drains");
    // Two within half a second count as one.
    thread::sleep(Duration::from_millis(600));
    relay.signal();
    assert_eq!(relay.exit_code(), Some(1));
}

#[test]
fn log_that_is_read_loses_no_line() {
    const COUNT: usize = 300;
    let relay = Relay::start(["--upgrade-rate", "0"]);
    for _ in 0..COUNT {
        ask_for_nothing(relay.wss);
    }
    let refused = || relay.log().matches("refused a connection").count();
    let all = || (refused() == COUNT).then_some(());
    look_until(Instant::now() + PATIENCE, all).unwrap_or_else(|| panic!("{} lines", refused()));
    for reason in ["queue_full", "write_failed"] {
        let lost = format!("pilot_beacon_log_lines_lost_total{{reason=\"{reason}\"}}");
        assert!(relay.metric(&lost).abs() < f64::EPSILON);
    }
}
