//! Runs real programs for the tests: starts them, waits for what they say, reads the
//! relay's metrics, and ends each by its own id when its handle goes.

use std::any::Any;
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;
use parking_lot::{Condvar, Mutex};
use tempfile::TempDir;

use crate::last_words::show_log;
use crate::wording::assert_plain;

/// Longest wait for anything that a test expects.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Pause between two looks at what cannot announce itself, such as a metric.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A running program; it ends when this is dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    stdout: Arc<Stream>,
    stderr: Arc<Stream>,
}

impl Program {
    /// Starts a command and collects what it writes.
    pub(crate) fn start(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {name} ({error}); `make setup` installs it")
            });
        let stdout = Stream::collect(child.stdout.take().unwrap());
        let stderr = Stream::collect(child.stderr.take().unwrap());
        Self { name, child, stdout, stderr }
    }

    /// Waits until stderr has a whole line that contains `needle`; returns that line.
    pub(crate) fn wait_for_line(&self, needle: &str) -> String {
        self.wait_for_line_of(&[needle])
    }

    /// Waits until stderr has a whole line that contains one of `needles`; returns that line.
    pub(crate) fn wait_for_line_of(&self, needles: &[&str]) -> String {
        self.wait(&self.stderr, &needles.join(" or "), |text| {
            let whole = &text[..text.rfind('\n')?];
            let wanted = |line: &&str| needles.iter().any(|needle| line.contains(needle));
            whole.lines().find(wanted).map(str::to_owned)
        })
    }

    /// Waits until stdout has `length` bytes; returns all that it has.
    pub(crate) fn wait_for_stdout(&self, length: usize) -> Vec<u8> {
        let end = Instant::now() + PATIENCE;
        let bytes = self.stdout.wait(end, |bytes| (bytes.len() >= length).then(|| bytes.to_vec()));
        bytes.unwrap_or_else(|got| {
            panic!("{}: {} of {length} bytes; stderr:\n{}", self.name, got.len(), self.log())
        })
    }

    /// Waits until so many whole lines of stdout contain `needle`; returns all that it has.
    pub(crate) fn wait_for_stdout_lines(&self, needle: &str, count: usize) -> Vec<String> {
        self.wait(&self.stdout, needle, |text| {
            let whole = &text[..text.rfind('\n')?];
            let found = whole.lines().filter(|line| line.contains(needle)).count();
            (found >= count).then(|| whole.lines().map(str::to_owned).collect())
        })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal by its own id, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    /// Waits for the program's own end, whatever its status.
    pub(crate) fn wait_for_end(&mut self) {
        let ended = look_until(Instant::now() + PATIENCE, || self.child.try_wait().unwrap());
        assert!(ended.is_some(), "{} does not end:\n{}", self.name, self.log());
    }

    /// Waits for the program's own end, which must be a success.
    pub(crate) fn wait_for_success(&mut self) {
        let end = Instant::now() + PATIENCE;
        let status = look_until(end, || self.child.try_wait().unwrap());
        let status =
            status.unwrap_or_else(|| panic!("{} does not end:\n{}", self.name, self.log()));
        assert!(status.success(), "{}: {status}\n{}", self.name, self.log());
    }

    /// All of stderr so far.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&self.stderr.state.lock().bytes).into_owned()
    }

    fn wait<T>(&self, stream: &Stream, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        let found = stream.wait(end, |bytes| find(&String::from_utf8_lossy(bytes)));
        found.unwrap_or_else(|_| panic!("{} never said {what:?}:\n{}", self.name, self.log()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Both fail only if the program has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log();
        show_log(&self.name, self.child.id(), &log);
        // What it wrote to stderr is for people, whichever test it is of.
        if !thread::panicking() && self.name == env!("CARGO_BIN_EXE_beacon-relay") {
            assert_plain("the log", &log);
        }
    }
}

/// What a program has written to one of its outputs.
#[derive(Default)]
struct Stream {
    state: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    closed: bool,
}

impl Stream {
    fn collect(mut from: impl Read + Send + 'static) -> Arc<Self> {
        let stream = Arc::new(Self::default());
        let writer = Arc::clone(&stream);
        thread::spawn(move || {
            let mut buffer = [0; 8_192];
            loop {
                let length = from.read(&mut buffer).unwrap_or(0);
                let mut state = writer.state.lock();
                state.bytes.extend_from_slice(&buffer[..length]);
                state.closed = length == 0;
                writer.changed.notify_all();
                if state.closed {
                    return;
                }
            }
        });
        stream
    }

    /// Waits until `find` finds something, or returns what there is at the end.
    fn wait<T>(&self, end: Instant, find: impl Fn(&[u8]) -> Option<T>) -> Result<T, Vec<u8>> {
        let mut state = self.state.lock();
        loop {
            if let Some(found) = find(&state.bytes) {
                return Ok(found);
            }
            if state.closed || self.changed.wait_until(&mut state, end).timed_out() {
                return Err(state.bytes.clone());
            }
        }
    }
}

/// A relay with its own state folder, its ports chosen by the system, its log at debug.
pub(crate) struct Relay {
    program: Program,
    /// The public listener; of a Unix socket, no address.
    pub(crate) wss: SocketAddr,
    /// The UDP sockets.
    pub(crate) udp: SocketAddr,
    /// The admin listener.
    pub(crate) admin: SocketAddr,
    keys: Option<TempDir>,
    /// What else lives as long as it.
    company: Vec<Box<dyn Any + Send + Sync>>,
    state: Arc<TempDir>,
}

impl Relay {
    /// Starts `beacon-relay serve` with these further arguments and waits until it listens:
    /// on loopback, where the arguments do not say otherwise.
    pub(crate) fn start<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_beacon-relay")), arguments)
    }

    pub(crate) fn start_by<A: AsRef<OsStr>>(
        command: Command,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), command, arguments)
    }

    /// Starts the relay whose state this folder has: a new one, or one that has ended.
    pub(crate) fn start_in<A: AsRef<OsStr>>(
        state: Arc<TempDir>,
        mut command: Command,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        command.arg("serve").arg("--state-dir").arg(state.path());
        command.args(["--log-format", "text"]).args(arguments);
        // A configuration file may want to say it itself.
        if command.get_args().all(|argument| argument != "--config") {
            command.args(["--log-level", "debug"]);
        }
        // With a listener for others, that for nodes is there only where somebody asks for it.
        let of_doors = ["--netbird-bind", "--peerbus-bind", "--middleman-bind", "--keyop-bind"];
        let has_own = command.get_args().any(|argument| of_doors.iter().any(|of| argument == *of));
        for bind in ["--wss-bind", "--udp-bind", "--admin-bind"] {
            let is_wanted = !(has_own && bind == "--wss-bind");
            if is_wanted && command.get_args().all(|argument| argument != bind) {
                command.args([bind, "127.0.0.1:0"]);
            }
        }
        let program = Program::start(&mut command);
        let line = program.wait_for_line("listening");
        let address = |field: &str| -> Option<SocketAddr> {
            let mut words = line.split_whitespace();
            words.find_map(|word| word.strip_prefix(field)?.strip_prefix('=')?.parse().ok())
        };
        let wss = address("wss").unwrap_or_else(|| ([0; 4], 0).into());
        let (udp, admin) = (address("udp").unwrap(), address("admin").unwrap());
        Self { program, wss, udp, admin, keys: None, company: Vec::new(), state }
    }

    /// Starts a relay whose key file has these nodes.
    pub(crate) fn with_nodes(nodes: &[&Node], arguments: &[&str]) -> Self {
        Self::with_nodes_by(Command::new(env!("CARGO_BIN_EXE_beacon-relay")), nodes, arguments)
    }

    /// Starts such a relay by this command, which becomes the relay with the arguments added.
    pub(crate) fn with_nodes_by(command: Command, nodes: &[&Node], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = write_directory(folder.path(), nodes);
        let keys = keys.to_str().unwrap();
        let mut relay = Self::start_by(command, [&["--keys", keys], arguments].concat());
        // The key file is watched, so it lives as long as the relay.
        relay.keys = Some(folder);
        relay
    }

    /// Has its peers come through a tunnel from here on, which lives as long as the relay.
    pub(crate) fn go_through(&mut self, address: SocketAddr, tunnel: impl Any + Send + Sync) {
        self.wss = address;
        self.company.push(Box::new(tunnel));
    }

    /// The folder of the key file that [`Self::with_nodes`] wrote.
    pub(crate) fn keys(&self) -> &Path {
        self.keys.as_ref().unwrap().path()
    }

    /// Sends the relay a signal by its own id, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    /// Waits for the relay's own end; its exit code.
    pub(crate) fn wait_for_end(&mut self) -> i32 {
        let child = &mut self.program.child;
        let status = look_until(Instant::now() + PATIENCE, || child.try_wait().unwrap());
        status.expect("the relay ends").code().expect("the relay is not killed")
    }

    /// Sends a signal again and again until the relay has ended; its exit code.
    pub(crate) fn signal_until_gone(&mut self, name: &str) -> i32 {
        let ended = look_until(Instant::now() + PATIENCE, || {
            self.signal(name);
            self.program.child.try_wait().unwrap()
        });
        ended.expect("the relay ends").code().expect("the relay is not killed")
    }

    /// Waits until the relay is no more, whatever ended it.
    pub(crate) fn wait_until_gone(&mut self) {
        self.program.wait_for_end();
    }

    /// The relay's process id, to look it up in /proc.
    pub(crate) fn id(&self) -> u32 {
        self.program.child.id()
    }

    /// Waits until the log has a line that contains `needle`; returns that line.
    pub(crate) fn wait_for_line(&self, needle: &str) -> String {
        self.program.wait_for_line(needle)
    }

    /// The log so far.
    pub(crate) fn log(&self) -> String {
        self.program.log()
    }

    /// How many packets were dropped for this reason.
    #[allow(clippy::cast_possible_truncation)] // a count, far below 2^53
    pub(crate) fn dropped(&self, reason: &str) -> usize {
        let name = format!("pilot_beacon_packets_dropped_total{{reason=\"{reason}\"}}");
        self.metric(&name) as usize
    }

    /// Waits until so many packets were dropped for this reason.
    pub(crate) fn wait_for_dropped(&self, reason: &str, count: usize) {
        let reached = || (self.dropped(reason) == count).then_some(());
        look_until(Instant::now() + PATIENCE, reached)
            .unwrap_or_else(|| panic!("not {count} of {reason}:\n{}", self.metrics()));
    }

    /// The text of a scrape.
    pub(crate) fn metrics(&self) -> String {
        let (status, body) = http_get(self.admin, "/metrics");
        assert_eq!(status, 200, "{body}");
        body
    }

    /// The value of one sample, named as it is written: `name` or `name{label="value"}`.
    pub(crate) fn metric(&self, name_with_labels: &str) -> f64 {
        let text = self.metrics();
        let value =
            text.lines().find_map(|line| line.strip_prefix(name_with_labels)?.strip_prefix(' '));
        let value = value.unwrap_or_else(|| panic!("no {name_with_labels} in\n{text}"));
        value.parse().unwrap()
    }

    /// Waits until a sample has this value.
    pub(crate) fn wait_for_metric(&self, name_with_labels: &str, value: f64) {
        let reached = || (self.metric(name_with_labels).total_cmp(&value).is_eq()).then_some(());
        look_until(Instant::now() + PATIENCE, reached)
            .unwrap_or_else(|| panic!("{name_with_labels} is not {value}:\n{}", self.metrics()));
    }
}

/// A node with a key that its id makes, so that a test can be repeated.
#[derive(Clone)]
pub(crate) struct Node {
    /// Its id.
    pub(crate) id: u32,
    /// Its key.
    pub(crate) key: SigningKey,
}

impl Node {
    /// The node of this id.
    pub(crate) fn new(id: u32) -> Self {
        let mut seed = [0x5a; 32];
        seed[..4].copy_from_slice(&id.to_be_bytes());
        Self { id, key: SigningKey::from_bytes(&seed) }
    }

    /// The node of the vectors (SPEC §4.6).
    pub(crate) fn of_the_vectors() -> Self {
        let seed: Vec<u8> = (0..32).collect();
        Self { id: 4242, key: SigningKey::from_bytes(&seed.try_into().unwrap()) }
    }

    /// Writes its key as `beacon-relay keygen --out` does.
    pub(crate) fn write_key(&self, folder: &Path) -> PathBuf {
        let path = folder.join(format!("{}.key", self.id));
        fs::write(&path, format!("{}\n", STANDARD.encode(self.key.to_bytes()))).unwrap();
        path
    }

    /// `beacon-relay connect` as this node, its key kept in `folder`.
    pub(crate) fn connect(&self, url: &str, folder: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
        command.args(["connect", url, "--node-id", &self.id.to_string(), "--key"]);
        command.arg(self.write_key(folder));
        command
    }
}

/// Writes the key file that `serve --keys` reads.
pub(crate) fn write_directory(folder: &Path, nodes: &[&Node]) -> PathBuf {
    let path = folder.join("keys.json");
    let keys = nodes.iter().map(|node| {
        (node.id.to_string(), STANDARD.encode(node.key.verifying_key().to_bytes()).into())
    });
    fs::write(&path, serde_json::Value::Object(keys.collect()).to_string()).unwrap();
    path
}

/// A plain HTTP GET: the status and the body.
pub(crate) fn http_get(server: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    read_response(&mut stream)
}

/// Reads one HTTP response up to the end of the connection: the status and the body, which
/// may be chunked.
pub(crate) fn read_response(stream: &mut impl Read) -> (u16, String) {
    let mut bytes = Vec::new();
    // A server that closes without a TLS goodbye is an error here, after the whole response.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    (status.unwrap_or_else(|| panic!("no status: {head}")), body)
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        // Trailers may follow the last chunk.
        if length == 0 {
            break;
        }
        whole.push_str(&rest[..length]);
        body = rest[length..].strip_prefix("\r\n").unwrap();
    }
    whole
}

/// Looks again and again until something is there or the time is over.
pub(crate) fn look_until<T>(end: Instant, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(LOOK_AGAIN);
    }
}

/// What a test looks up about the relay's process.
impl Relay {
    /// The folder of what the relay keeps.
    pub(crate) fn state_dir(&self) -> &Path {
        self.state.path()
    }

    /// How many descriptors the relay has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// The relay's resident memory that no file backs, in bytes.
    pub(crate) fn anonymous_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1_024
    }
}
