//! The real nginx with deploy/nginx/nginx.conf in front of the relay.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use super::{put_in, run};
use crate::harness::{Node, PATIENCE, Program, Relay, look_until, read_response};
use crate::ports::free_address;
use crate::proxy::{self, CLIENT, FORGED, Tls, UPGRADE, read_head, recorder};

const DAY: u64 = 24 * 60 * 60;

/// nginx, ready to serve `https://localhost:PORT`; it and its workers end with this.
pub(crate) struct Nginx {
    program: Program,
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

impl Nginx {
    fn start(upstream: SocketAddr) -> Self {
        Self::with(upstream, &["localhost".to_owned()], 1, ("", ""))
    }

    /// nginx with a certificate for these names that lasts so many days, and a part of its
    /// configuration replaced.
    pub(crate) fn with(
        upstream: SocketAddr,
        names: &[String],
        days: i64,
        part: (&str, &str),
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(folder.path(), names, days);
        let end = Instant::now() + PATIENCE;
        // As Caddy, nginx cannot say which port the system chose for it.
        let started = look_until(end, || {
            let address = free_address();
            let config = folder.path().join("nginx.conf");
            let text = configuration(folder.path(), address, upstream);
            assert!(text.contains(part.0), "{text}");
            fs::write(&config, text.replace(part.0, part.1)).unwrap();
            let nginx = |more: &[&str]| {
                let mut command = Command::new("nginx");
                command.arg("-c").arg(&config).args(["-e", "stderr"]).args(more);
                command
            };
            run(&mut nginx(&["-t"]));
            let program = Program::start(&mut nginx(&["-g", "daemon off;"]));
            let line =
                program.wait_for_line_of(&["start worker process ", "Address already in use"]);
            line.contains("start worker").then_some((program, address))
        });
        let (program, address) = started.expect("no port is free");
        Self { program, address, folder }
    }

    fn dial(&self) -> io::Result<Tls> {
        proxy::dial(CLIENT, self.address, &self.ca())
    }

    /// The CA that has signed its certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(crate) fn url(&self) -> String {
        format!("wss://localhost:{}", self.address.port())
    }

    fn request(&self, path: &str, headers: &str) -> Tls {
        let mut tls = self.dial().unwrap();
        proxy::request(&mut tls, path, headers);
        tls
    }

    fn get(&self, path: &str) -> u16 {
        read_response(&mut self.request(path, "Connection: close\r\n")).0
    }

    /// `beacon-relay connect` through this nginx.
    fn connect(&self, node: &Node) -> Command {
        let mut command = node.connect(&self.url(), self.folder.path());
        command.arg("--ca").arg(self.ca());
        command
    }

    /// `nginx -s reload`; returns when the old workers know of it.
    pub(crate) fn reload(&self) {
        self.signal("HUP");
        self.program.wait_for_line("gracefully shutting down");
    }

    fn signal(&self, name: &str) {
        run(Command::new("kill").args([&format!("-{name}"), &self.program.id().to_string()]));
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Killed, the master would leave its workers behind.
        self.signal("TERM");
        self.program.wait_for_success();
    }
}

/// The file with what an operator would put in, and without what only root may use.
fn configuration(folder: &Path, address: SocketAddr, upstream: SocketAddr) -> String {
    let at = |name: &str| folder.join(name).display().to_string();
    let http = format!(
        "http {{\n{}",
        ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("\t{kind}_temp_path {};\n", at(kind)))
            .concat()
    );
    put_in(
        "nginx/nginx.conf",
        &[
            ("user www-data;\n", ""),
            ("pid /run/nginx.pid;", &format!("pid {};", at("nginx.pid"))),
            ("/var/log/nginx/error.log warn", "stderr notice"),
            ("worker_processes auto", "worker_processes 1"),
            ("worker_rlimit_nofile 131072;", ""),
            ("worker_connections 65536", "worker_connections 4096"),
            ("http {\n", &http),
            ("server 127.0.0.1:8443;", &format!("server {upstream};")),
            ("listen 443 ssl;", &format!("listen {address} ssl;")),
            ("\t\tlisten [::]:443 ssl;\n", ""),
            ("server_name relay.example.net", "server_name localhost"),
            ("/etc/letsencrypt/live/relay.example.net/fullchain.pem", &at("cert.pem")),
            ("/etc/letsencrypt/live/relay.example.net/privkey.pem", &at("key.pem")),
        ],
    )
}

pub(crate) fn write_certificates(folder: &Path, names: &[String], days: i64) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Of two that bear one name, OpenSSL takes the one for the other.
    params.distinguished_name.push(DnType::CommonName, "authority");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(names).unwrap();
    let begin = SystemTime::now() - Duration::from_secs(400 * DAY);
    params.not_before = begin.into();
    // A minute more, so that so many whole days are left while a test runs.
    let lasts = Duration::from_secs((400 + days).unsigned_abs() * DAY + 60);
    params.not_after = (begin + lasts).into();
    let certificate = params.signed_by(&key, &ca).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn only_the_two_public_paths_get_through_nginx() {
    let (upstream, heads) = recorder();
    let nginx = Nginx::start(upstream);
    for path in ["/", "/metrics", "/readyz", "/v1", "/v1/compat/", "/v1/compat/../../metrics"] {
        assert_eq!(nginx.get(path), 404, "{path}");
    }
    assert_eq!(heads.try_recv().ok(), None, "a request for another path reached the upstream");
    for path in ["/health", "/v1/compat"] {
        assert_eq!(nginx.get(path), 200, "{path}");
        let head = heads.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{head}");
        assert!(head.contains(&format!("X-Forwarded-For: {CLIENT}\r\n")), "{head}");
        assert!(!head.contains(FORGED), "{head}");
    }
}

#[test]
fn upgrade_passes_nginx_with_subprotocol_and_host() {
    let (upstream, heads) = recorder();
    let nginx = Nginx::start(upstream);
    let mut tls = nginx.request("/v1/compat", UPGRADE);
    let head = heads.recv_timeout(PATIENCE).unwrap();
    for part in [
        "Upgrade: websocket\r\n",
        "Connection: upgrade\r\n",
        "Sec-WebSocket-Protocol: pilot.v1\r\n",
        &format!("Host: localhost:{}\r\n", nginx.address.port()),
    ] {
        assert!(head.contains(part), "no {part:?} in {head}");
    }
    assert!(read_head(&mut tls).starts_with("HTTP/1.1 200 "));
}

#[test]
fn websockets_stay_over_a_reload_of_nginx() {
    let (sender, receiver) = (Node::new(1), Node::new(2));
    let relay = Relay::with_nodes(&[&sender, &receiver], &[]);
    let nginx = Nginx::start(relay.wss);
    let receiving = Program::start(nginx.connect(&receiver).arg("--raw"));
    receiving.wait_for_line("connected to");

    nginx.reload();

    let file = nginx.folder.path().join("file");
    fs::File::create(&file).unwrap().write_all(b"still there").unwrap();
    let mut sending =
        Program::start(nginx.connect(&sender).args(["--to", "2", "--file"]).arg(&file));
    sending.wait_for_success();
    assert_eq!(receiving.wait_for_stdout(11), b"still there");
    assert!(!receiving.log().contains("not connected"), "{}", receiving.log());
    let replaced = "pilot_beacon_wss_connections_total{outcome=\"auth_ok\"}";
    relay.wait_for_metric(replaced, 2.0);
}
