//! Sockets that are open before the relay, words to the service manager, and a restart that
//! refuses nobody.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::harness::{Node, PATIENCE, Program, Relay, http_get, look_until, write_directory};
use crate::peer::{Peer, UdpNode};

/// Numbers that nothing else in this process has.
const FREE: i32 = 100;

/// A command that gets these sockets as systemd would hand them over, each with its name.
pub(crate) fn hand_over(sockets: &[(&str, BorrowedFd<'_>)]) -> (Command, Vec<OwnedFd>) {
    hand_over_to(Path::new(env!("CARGO_BIN_EXE_beacon-relay")), sockets)
}

/// The same for the relay that this program is.
pub(crate) fn hand_over_to(
    program: &Path,
    sockets: &[(&str, BorrowedFd<'_>)],
) -> (Command, Vec<OwnedFd>) {
    let mut script = String::new();
    let mut kept = Vec::new();
    for (number, (_, socket)) in (3..).zip(sockets) {
        let copy = fcntl_dupfd_cloexec(socket, FREE).unwrap();
        fcntl_setfd(&copy, FdFlags::empty()).unwrap();
        let from = copy.as_raw_fd();
        writeln!(script, "exec {number}<&{from} {from}<&-").unwrap();
        kept.push(copy);
    }
    let names: Vec<_> = sockets.iter().map(|(name, _)| *name).collect();
    writeln!(script, "export LISTEN_PID=$$ LISTEN_FDS={}", sockets.len()).unwrap();
    writeln!(script, "export LISTEN_FDNAMES={}", names.join(":")).unwrap();
    script.push_str("exec \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &script, "bash"]).arg(program);
    (command, kept)
}

/// So many UDP sockets on one address, as ReusePort=yes has them.
pub(crate) fn udp_sockets(count: usize) -> Vec<UdpSocket> {
    let mut sockets = Vec::<UdpSocket>::new();
    for _ in 0..count {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        let first = sockets.first().map(|socket| socket.local_addr().unwrap());
        let address = first.unwrap_or_else(|| ([127, 0, 0, 1], 0).into());
        socket.bind(&address.into()).unwrap();
        sockets.push(socket.into());
    }
    sockets
}

/// What systemd would keep while relays come and go.
struct Kept {
    wss: TcpListener,
    admin: TcpListener,
    udp: Vec<UdpSocket>,
    folder: TempDir,
    nodes: Vec<Node>,
}

impl Kept {
    fn new(udp: usize) -> Self {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let nodes = (11..15).map(Node::new).collect();
        let folder = tempfile::tempdir().unwrap();
        Self { wss: listen(), admin: listen(), udp: udp_sockets(udp), folder, nodes }
    }

    /// Starts a relay on these sockets, with the addresses of others in its settings.
    fn start(&self, arguments: &[&str]) -> Relay {
        let mut sockets = vec![("wss", self.wss.as_fd()), ("admin", self.admin.as_fd())];
        sockets.extend(self.udp.iter().map(|socket| ("udp", socket.as_fd())));
        let (command, _kept) = hand_over(&sockets);
        let nodes: Vec<_> = self.nodes.iter().collect();
        let keys = write_directory(self.folder.path(), &nodes);
        Relay::start_by(command, [&["--keys", keys.to_str().unwrap()], arguments].concat())
    }
}

#[test]
fn inherited_sockets_are_served_by_as_many_threads_and_ours_stay_closed() {
    let kept = Kept::new(3);
    let relay = kept.start(&[]);
    assert_eq!(relay.wss, kept.wss.local_addr().unwrap());
    assert_eq!(relay.admin, kept.admin.local_addr().unwrap());
    assert_eq!(relay.udp, kept.udp[0].local_addr().unwrap());
    let line = relay.wait_for_line("took over sockets");
    assert!(line.contains("wss=true admin=true udp=3"), "{line}");
    let threads = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", relay.id())).unwrap();
        let comms = tasks.map(|task| task.unwrap().path().join("comm"));
        // A thread of another kind may have ended.
        let names = comms.filter_map(|comm| std::fs::read_to_string(comm).ok());
        names.filter(|name| name.starts_with("udp-")).count()
    };
    // A thread names itself, once it runs.
    let named = look_until(Instant::now() + PATIENCE, || (threads() == 3).then_some(()));
    assert!(named.is_some(), "{} threads", threads());

    // Whichever socket the kernel gives a flow to, somebody reads it.
    let mut peer = Peer::log_in(relay.wss, &kept.nodes[0]);
    for id in 100..140 {
        let node = UdpNode::register(relay.udp, id);
        peer.relay(11, id, b"there");
        assert_eq!(node.delivery(), (11, b"there".to_vec()));
        node.relay(11, b"and back");
        assert_eq!(peer.delivery(), (id, b"and back".to_vec()));
    }
    assert_eq!(http_get(relay.admin, "/readyz").0, 200);
}

#[test]
fn inherited_unix_socket_keeps_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wss.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (command, kept) = hand_over(&[("beacon-relay.socket", listener.as_fd())]);
    let node = Node::new(11);
    let mut relay = Relay::with_nodes_by(command, &[&node], &["--drain-time", "0s"]);
    drop(kept);
    let mut peer = Peer::over(UnixStream::connect(&path).unwrap());
    assert_eq!(peer.ask_for_upgrade(""), 101);
    peer.authenticate(&node, 2);
    assert_eq!(relay.metric("pilot_beacon_ready"), 1.0);
    relay.signal("TERM");
    assert_eq!(relay.wait_for_end(), 0);
    assert!(path.exists());
}

#[test]
fn inherited_socket_of_a_tables_name_takes_the_place_of_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("relay.toml");
    let lan = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = lan.local_addr().unwrap();
    // An address that is in use, which nobody binds to then.
    let table =
        format!("[[listener]]\nname = \"lan\"\nbind = \"{address}\"\ndoors = [\"pilot\"]\n");
    std::fs::write(&config, table).unwrap();
    let (command, _kept) = hand_over(&[("lan", lan.as_fd())]);
    let node = Node::new(11);
    let relay = Relay::with_nodes_by(command, &[&node], &["--config", config.to_str().unwrap()]);
    let line = relay.wait_for_line("took over sockets");
    assert!(line.contains("wss=false admin=false udp=0 listeners=1"), "{line}");
    relay.wait_for_line(&format!("listener=\"lan\" bind={address} "));
    drop(Peer::log_in(address, &node));
    assert_eq!(relay.metric("pilot_beacon_ready"), 1.0);
}

#[test]
fn sockets_of_no_use_are_refused_in_one_line() {
    let (tcp, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let public = TcpListener::bind("0.0.0.0:0").unwrap();
    let (udp, elsewhere) = (udp_sockets(1), udp_sockets(1));
    let stream = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
    for (sockets, reason) in [
        (vec![("a", tcp.as_fd()), ("b", other.as_fd())], "FileDescriptorName=wss or admin"),
        (vec![("wss", public.as_fd())], "add --public-plaintext"),
        (vec![("u", udp[0].as_fd()), ("u", elsewhere[0].as_fd())], "with ReusePort=yes"),
        (vec![("wss", stream.as_fd())], "leave Accept=yes out"),
        (vec![("wss", udp[0].as_fd())], "is not a listening socket"),
    ] {
        let state = tempfile::tempdir().unwrap();
        let (mut command, _kept) = hand_over(&sockets);
        command.args(["serve", "--udp-bind=127.0.0.1:0", "--admin-bind=127.0.0.1:0"]);
        command.args(["--wss-bind=127.0.0.1:0", "--log-level=error", "--state-dir"]);
        let output = command.arg(state.path()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(64), 1), "{said}");
        assert!(said.contains(reason), "{said}");
    }
}

/// A client that asks again and again; it must be answered each time.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Traffic {
    pub(crate) fn start(wss: SocketAddr, udp: SocketAddr) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut threads = Vec::new();
        for _ in 0..3 {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(health(wss).unwrap(), 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(2));
                }
            }));
        }
        let (stopped, node) = (Arc::clone(&stop), UdpNode::register(udp, 200));
        threads.push(thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                // A Discover waits in its socket until somebody reads that.
                node.discover();
                node.observed();
                thread::sleep(Duration::from_millis(2));
            }
        }));
        Self { stop, answered, threads }
    }

    pub(crate) fn wait_for_more(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let more = || (self.answered.load(Ordering::Relaxed) > before + 50).then_some(());
        look_until(Instant::now() + PATIENCE, more).expect("answers");
    }

    pub(crate) fn stop(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.answered.load(Ordering::Relaxed)
    }
}

/// The status of one health check on a connection of its own.
fn health(wss: SocketAddr) -> Result<u16, std::io::Error> {
    let mut stream = TcpStream::connect(wss)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let mut text = String::new();
    match stream.read_to_string(&mut text) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset && !text.is_empty() => {}
        Err(error) => return Err(error),
    }
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| std::io::Error::other(format!("no answer: {text:?}")))
}

#[test]
fn restart_under_traffic_refuses_nobody() {
    let kept = Kept::new(2);
    // Its node asks for its address all the time.
    let flags = ["--drain-time", "300ms", "--discover-rate", "0"];
    let mut relay = kept.start(&flags);
    let mut peer = Peer::log_in(relay.wss, &kept.nodes[0]);
    let traffic = Traffic::start(relay.wss, relay.udp);
    for _ in 0..3 {
        traffic.wait_for_more();
        relay.signal("TERM");
        assert_eq!(peer.read_close().0, 1001);
        assert_eq!(relay.wait_for_end(), 0);
        // Nobody serves here, and the listener is still open: this login waits in its backlog.
        let waiting = TcpStream::connect(kept.wss.local_addr().unwrap()).unwrap();
        relay = kept.start(&flags);
        peer = Peer::over(waiting);
        assert_eq!(peer.ask_for_upgrade(""), 101);
        peer.authenticate(&kept.nodes[0], 2);
        traffic.wait_for_more();
    }
    let answered = traffic.stop();
    eprintln!("{answered} health checks over three restarts, none refused");
}

#[test]
fn service_manager_hears_how_the_relay_fares() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 1_024];
        loop {
            let length = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{wanted}: {e}"));
            let words = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if words.starts_with(wanted) {
                return words;
            }
        }
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let started = Instant::now();
    let mut relay = Relay::start_by(command, ["--drain-time", "1s"]);
    let ready = hear("READY=1");
    // Other tests may keep the machine busy, which degrades the scheduler.
    let is_told =
        ready.contains("STATUS=ready; 0") || ready.contains("STATUS=ready, but degraded;");
    assert!(is_told && ready.contains("0 peers over WebSocket"), "{ready}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    hear("WATCHDOG=1");
    hear("WATCHDOG=1");
    relay.signal("HUP");
    assert!(hear("RELOADING=1").contains("\nMONOTONIC_USEC="));
    hear("READY=1");
    let _node = UdpNode::register(relay.udp, 21);
    assert!(hear("STATUS=").contains("nodes over UDP"));
    relay.signal("TERM");
    assert!(hear("STOPPING=1").contains("EXTEND_TIMEOUT_USEC=6000000"));
    assert_eq!(relay.wait_for_end(), 0);
}

#[test]
fn watchdog_hears_nothing_of_a_relay_that_is_stuck() {
    let folder = tempfile::tempdir().unwrap();
    let (path, socket) = (folder.path().join("notify"), folder.path().join("wss.sock"));
    let manager = UnixDatagram::bind(&path).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let bind = format!("unix:{}", socket.display());
    let relay = Relay::start_by(command, ["--wss-bind", &bind, "--canary-interval", "10ms"]);
    // Somebody else takes what the canary sends, and never answers.
    std::fs::remove_file(&socket).unwrap();
    let _deaf = UnixListener::bind(&socket).unwrap();
    relay.wait_for_metric("pilot_beacon_ready", 0.0);
    assert!(relay.metric("pilot_beacon_canary_total{result=\"timeout\"}") >= 2.0);
    // Three times the watchdog's time: whatever was said before is read, and nothing follows.
    manager.set_nonblocking(true).unwrap();
    let words = || {
        let mut buffer = [0; 1_024];
        std::iter::from_fn(|| manager.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()))
            .filter(|words| words.starts_with(b"WATCHDOG"))
            .count()
    };
    words();
    thread::sleep(Duration::from_millis(600));
    assert_eq!(words(), 0);
}

#[test]
fn relay_is_started_by_its_first_client() {
    let folder = tempfile::tempdir().unwrap();
    let (socket, node) = (folder.path().join("wss.sock"), Node::new(11));
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--listen").arg(&socket).arg("--fdname=wss");
    command.args([env!("CARGO_BIN_EXE_beacon-relay"), "serve", "--log-level=debug"]);
    command.args(["--udp-bind=127.0.0.1:0", "--admin-bind=127.0.0.1:0", "--keys"]);
    command.arg(write_directory(folder.path(), &[&node])).arg("--state-dir").arg(folder.path());
    let relay = Program::start(&mut command);
    relay.wait_for_line("Listening on");
    let mut peer = Peer::over(UnixStream::connect(&socket).unwrap());
    assert_eq!(peer.ask_for_upgrade("X-Forwarded-For: 203.0.113.9\r\n"), 101);
    peer.authenticate(&node, 2);
    relay.wait_for_line("took over sockets");
    peer.send(9, b"there?");
    assert_eq!(peer.read(), Some((10, b"there?".to_vec())));
}
