//! The real Caddy with deploy/Caddyfile in front of the relay, on loopback, with Caddy's
//! own CA: what passes, what does not, and whose address the relay sees.

use std::fs;
use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::deploy::{deploy, run, tool};
use crate::harness::{
    Node, PATIENCE, Program, Relay, http_get, look_until, read_response, write_directory,
};
use crate::proxy::{self, CLIENT, FORGED, Tls, UPGRADE, read_head, recorder};

/// Caddy, ready to serve `https://localhost:PORT`.
pub(crate) struct Caddy {
    program: Program,
    /// Starts it, the first time and again.
    command: Command,
    caddy: PathBuf,
    /// The name that its certificate has.
    host: String,
    pub(crate) address: SocketAddr,
    /// Its own control port.
    pub(crate) admin: SocketAddr,
    /// The root of its own CA.
    pub(crate) ca: PathBuf,
    storage: TempDir,
    _ports: [Socket; 2],
}

impl Caddy {
    /// Debian's Caddy with deploy/Caddyfile.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        Self::of("caddy".into(), "Caddyfile", upstream)
    }

    /// Debian's Caddy with deploy/Caddyfile, for clients elsewhere that know it by this name.
    pub(crate) fn public(host: &str, listen: Ipv4Addr, upstream: SocketAddr) -> Self {
        Self::site("caddy".into(), "Caddyfile", host, listen, upstream)
    }

    /// The later Caddy of scripts/tools.txt, with the file that keeps WebSockets over a reload.
    pub(crate) fn that_keeps(upstream: SocketAddr) -> Self {
        Self::of(tool("caddy"), "Caddyfile.stream-close-delay", upstream)
    }

    /// A Caddy with a file of deploy/.
    pub(crate) fn of(caddy: PathBuf, file: &str, upstream: SocketAddr) -> Self {
        Self::site(caddy, file, "localhost", Ipv4Addr::LOCALHOST, upstream)
    }

    fn site(
        caddy: PathBuf,
        file: &str,
        host: &str,
        listen: Ipv4Addr,
        upstream: SocketAddr,
    ) -> Self {
        let storage = tempfile::tempdir().unwrap();
        let ca = storage.path().join("caddy/pki/authorities/local/root.crt");
        let file = deploy(file);
        // Caddy cannot say which ports the system chose for it, so they are chosen for it.
        let ports = [listen, Ipv4Addr::LOCALHOST].map(reserve_port);
        let [address, admin] =
            ports.each_ref().map(|port| port.local_addr().unwrap().as_socket().unwrap());
        let variables = [
            ("RELAY_HOST", host.to_owned()),
            ("RELAY_TLS", "internal".to_owned()),
            ("RELAY_LISTEN", address.ip().to_string()),
            ("RELAY_HTTPS_PORT", address.port().to_string()),
            ("RELAY_UPSTREAM", upstream.to_string()),
            ("RELAY_CADDY_ADMIN", admin.to_string()),
        ];
        let mut command = Command::new(&caddy);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&file).envs(variables);
        command.env("XDG_DATA_HOME", storage.path()).env("XDG_CONFIG_HOME", storage.path());
        let program = Self::run(&mut command);
        let host = host.to_owned();
        let caddy =
            Self { program, command, caddy, host, address, admin, ca, storage, _ports: ports };
        caddy.wait_for_tls();
        caddy
    }

    fn run(command: &mut Command) -> Program {
        // It listens before it has its certificate. While it gets that it cleans its storage as
        // well, which can fail the first attempt; the next one would come after a minute.
        let program = look_until(Instant::now() + PATIENCE, || {
            let program = Program::start(command);
            let line =
                program.wait_for_line_of(&["certificate obtained successfully", "will retry"]);
            let obtained = line.contains("obtained");
            if !obtained {
                eprintln!("Caddy is started again:\n{}", program.log());
            }
            obtained.then_some(program)
        });
        program.expect("Caddy gets no certificate from itself")
    }

    /// Stops it as its service does, and starts it again, with the certificate that it has.
    pub(crate) fn restart(&mut self) {
        self.program.signal("TERM");
        self.program.wait_for_success();
        self.program = Program::start(&mut self.command);
        self.wait_for_tls();
    }

    fn wait_for_tls(&self) {
        let mut error = None;
        let shaken = look_until(Instant::now() + PATIENCE, || {
            self.dial().inspect_err(|cause| error = Some(cause.to_string())).ok()
        });
        assert!(shaken.is_some(), "no TLS with Caddy ({error:?}):\n{}", self.program.log());
    }

    /// `caddy reload` with another configuration: one that waits a little longer.
    pub(crate) fn reload(&self) {
        let (status, running) = http_get(self.admin, "/config/");
        assert_eq!(status, 200, "{running}");
        let changed =
            running.replace("\"idle_timeout\":60000000000", "\"idle_timeout\":61000000000");
        assert_ne!(running, changed, "there is no idle_timeout to change");
        let file = self.storage.path().join("changed.json");
        fs::write(&file, changed).unwrap();
        run(Command::new(&self.caddy)
            .args(["reload", "--address", &self.admin.to_string(), "--config"])
            .arg(&file)
            .env("XDG_DATA_HOME", self.storage.path()));
    }

    pub(crate) fn url(&self) -> String {
        format!("wss://{}:{}/v1/compat", self.host, self.address.port())
    }

    /// A TLS connection that trusts nobody but Caddy's CA, from [`CLIENT`] if both are on loopback.
    fn dial(&self) -> io::Result<Tls> {
        let from = if self.address.ip().is_loopback() { CLIENT } else { Ipv4Addr::UNSPECIFIED };
        proxy::dial_as(&self.host, from, self.address, &self.ca)
    }

    /// Sends a request that claims to come from [`FORGED`].
    fn request(&self, path: &str, headers: &str) -> Tls {
        let mut tls = self.dial().unwrap();
        proxy::request(&mut tls, path, headers);
        tls
    }

    fn get(&self, path: &str) -> (u16, String) {
        read_response(&mut self.request(path, "Connection: close\r\n"))
    }
}

/// A port of this address that nobody else gets while this lives. Caddy gets it: as this socket, it
/// binds with SO_REUSEPORT. So two Caddys that were told the same port would share it, and each
/// get half of the other's clients.
fn reserve_port(address: Ipv4Addr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    socket.bind(&SocketAddr::from((address, 0)).into()).unwrap();
    socket
}

#[test]
fn only_the_two_public_paths_get_through_caddy() {
    let (upstream, heads) = recorder();
    let caddy = Caddy::start(upstream);

    for path in
        ["/", "/metrics", "/healthz", "/readyz", "/v1", "/v1/compat/", "/v1/compat/../../metrics"]
    {
        assert_eq!(caddy.get(path).0, 404, "{path}");
    }
    assert_eq!(heads.try_recv().ok(), None, "a request for another path reached the upstream");

    for path in ["/health", "/v1/compat"] {
        assert_eq!(caddy.get(path).0, 200, "{path}");
        let head = heads.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
    }
}

#[test]
fn caddy_replaces_the_forwarded_address_that_a_client_claims() {
    let (upstream, heads) = recorder();
    let caddy = Caddy::start(upstream);

    caddy.get("/health");

    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.contains(&format!("X-Forwarded-For: {CLIENT}\r\n")), "{head}");
    assert!(!head.contains(FORGED), "{head}");
}

#[test]
fn file_arrives_byte_for_byte_through_caddy() {
    let folder = tempfile::tempdir().unwrap();
    let (sender, receiver) = (Node::new(1), Node::new(2));
    let keys = write_directory(folder.path(), &[&sender, &receiver]);
    let relay = Relay::start(["--keys".as_ref(), keys.as_os_str()]);
    let caddy = Caddy::start(relay.wss);
    // Less than an outbox, so that a slow reader cannot make the relay drop a part of it; not
    // a whole number of packets, and no two packets alike.
    let file: Vec<u8> =
        (0..150_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let path = folder.path().join("file");
    fs::write(&path, &file).unwrap();

    let receiving = Program::start(
        receiver.connect(&caddy.url(), folder.path()).arg("--ca").arg(&caddy.ca).arg("--raw"),
    );
    receiving.wait_for_line("connected to");
    let mut sending = Program::start(
        sender
            .connect(&caddy.url(), folder.path())
            .arg("--ca")
            .arg(&caddy.ca)
            .args(["--to", "2", "--file"])
            .arg(&path),
    );
    sending.wait_for_success();

    let arrived = receiving.wait_for_stdout(file.len());
    assert!(arrived == file, "{} bytes arrived, and not those that were sent", arrived.len());
    relay.wait_for_metric("pilot_beacon_wss_active", 1.0);
    assert!(relay.metric("pilot_beacon_wss_frames_in_total") >= 126.0);
}

#[test]
fn relay_behind_caddy_sees_the_client_and_refuses_it_through_the_proxy() {
    let relay = Relay::start([] as [&str; 0]);
    let caddy = Caddy::start(relay.wss);

    let mut tls = caddy.request("/v1/compat", UPGRADE);
    let head = read_head(&mut tls);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.to_ascii_lowercase().contains("sec-websocket-protocol: pilot.v1\r\n"), "{head}");
    let (opcode, challenge) = read_frame(&mut tls);
    assert_eq!(opcode, 0x81);
    assert!(challenge.starts_with(br#"{"type":"auth_challenge","#), "{challenge:?}");

    // Nobody's key: refused with 1008, in the client's name.
    let signature = "A".repeat(86);
    let key = "A".repeat(43);
    let reply = format!(
        r#"{{"type":"auth_reply","node_id":7,"public_key":"{key}=","sig":"{signature}=="}}"#
    );
    tls.write_all(&masked_text(&reply)).unwrap();
    assert_eq!(
        read_frame(&mut tls),
        (0x88, [&1008_u16.to_be_bytes()[..], b"auth failed"].concat())
    );

    let line = relay.wait_for_line(&format!("remote_addr={CLIENT}"));
    let log = relay.log();
    assert!(!log.contains(FORGED), "{log}");
    assert!(!log.contains("remote_addr=127.0.0.1"), "the proxy's address beside {line}:\n{log}");
}

#[test]
fn metrics_are_not_reachable_from_outside() {
    let relay = Relay::start([] as [&str; 0]);
    let caddy = Caddy::start(relay.wss);

    assert_eq!(caddy.get("/health").0, 200);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(caddy.get(path).0, 404, "{path} through Caddy");
        let (status, body) = http_get(relay.wss, path);
        assert_eq!(status, 404, "{path} at the public listener: {body}");
    }
    assert!(relay.metrics().contains("pilot_beacon_wss_active 0"));
}

/// Reads one unmasked frame of less than 65,536 bytes: its first byte and its payload.
fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let length = if head[1] == 126 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        usize::from(u16::from_be_bytes(length))
    } else {
        usize::from(head[1])
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

/// A whole text message as a client sends it, with a mask of zeros.
fn masked_text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    assert!(length > 125, "shorter messages have another header");
    let [high, low] = length.to_be_bytes();
    [&[0x81, 0x80 | 126, high, low, 0, 0, 0, 0], text.as_bytes()].concat()
}
