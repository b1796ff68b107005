//! Pebble, the test authority of Let's Encrypt, and the names that it resolves.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::json;
use tempfile::TempDir;

use crate::deploy::nginx::write_certificates;
use crate::harness::{PATIENCE, Program, look_until, read_response};
use crate::ports::free_port;

/// An authority that can be down: its addresses, and the certificate of its own TLS.
pub(super) struct Authority {
    folder: TempDir,
    api: u16,
    management: u16,
    /// Where each name leads; none for a name that is not there.
    pub(super) names: Arc<Mutex<BTreeMap<String, Ipv4Addr>>>,
    dns: SocketAddr,
}

/// It running. Each start has a new root, and has forgotten everything.
pub(super) struct Pebble<'a> {
    authority: &'a Authority,
    _program: Program,
}

impl Authority {
    pub(super) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        write_certificates(folder.path(), &["127.0.0.1".to_owned()], 90);
        let names = Arc::<Mutex<BTreeMap<_, _>>>::default();
        let dns = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = dns.local_addr().unwrap();
        let known = Arc::clone(&names);
        // It ends with the process.
        thread::spawn(move || resolve(&dns, &known));
        Self { folder, api: free_port(), management: free_port(), names, dns: address }
    }

    /// Has a name lead to this machine's loopback.
    pub(super) fn name(&self, name: &str) {
        self.names.lock().insert(name.to_owned(), Ipv4Addr::LOCALHOST);
    }

    /// Who signed the certificate of its own TLS.
    pub(super) fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// What the relay is told of it.
    pub(super) fn flags(&self) -> [String; 4] {
        let ca = self.ca().to_str().unwrap().to_owned();
        let directory = format!("https://127.0.0.1:{}/dir", self.api);
        ["--acme-directory".to_owned(), directory, "--acme-directory-ca".to_owned(), ca]
    }

    /// Starts it: it looks at names at this port, and signs for so many seconds.
    pub(super) fn start(&self, tls_port: u16, seconds: u64) -> Pebble<'_> {
        let file = |name: &str| self.folder.path().join(name);
        let config = json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", self.api),
            "managementListenAddress": format!("127.0.0.1:{}", self.management),
            "certificate": file("cert.pem"),
            "privateKey": file("key.pem"),
            "httpPort": 1,
            "tlsPort": tls_port,
            "certificateValidityPeriod": seconds,
        }});
        fs::write(file("pebble.json"), config.to_string()).unwrap();
        let mut command = Command::new("pebble");
        command.arg("-config").arg(file("pebble.json"));
        command.args(["-dnsserver", &self.dns.to_string()]);
        // It would wait up to 15 s before it looks.
        command.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_AUTHZREUSE", "0");
        let program = Program::start(&mut command);
        let listens = |port| {
            look_until(Instant::now() + PATIENCE, || TcpStream::connect(("127.0.0.1", port)).ok())
        };
        assert!(
            listens(self.api).is_some() && listens(self.management).is_some(),
            "{}",
            program.log()
        );
        Pebble { authority: self, _program: program }
    }
}

impl Pebble<'_> {
    /// Writes the root that its certificates go back to; returns the file.
    pub(super) fn root(&self) -> PathBuf {
        let Authority { folder, management, .. } = self.authority;
        let ca = CertificateDer::from_pem_file(folder.path().join("ca.pem")).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().unwrap();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream =
            StreamOwned::new(client, TcpStream::connect(("127.0.0.1", *management)).unwrap());
        stream.write_all(b"GET /roots/0 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let (status, root) = read_response(&mut stream);
        assert_eq!(status, 200, "{root}");
        let path = folder.path().join("root.pem");
        fs::write(&path, root).unwrap();
        path
    }
}

/// Answers questions for IPv4 addresses (RFC 1035 §4), for ever.
fn resolve(socket: &UdpSocket, names: &Mutex<BTreeMap<String, Ipv4Addr>>) {
    let mut packet = [0; 512];
    while let Ok((length, from)) = socket.recv_from(&mut packet) {
        let question = &packet[12..length];
        let mut name = Vec::new();
        let mut at = 0;
        while question[at] != 0 {
            let end = at + 1 + usize::from(question[at]);
            name.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
            at = end;
        }
        let kind = u16::from_be_bytes([question[at + 1], question[at + 2]]);
        let address = names.lock().get(&name.join(".")).copied();
        let found = address.filter(|_| kind == 1);
        // A response with recursion: no error, or no such name.
        let code = if address.is_some() { 0x80 } else { 0x83 };
        let count = u8::from(found.is_some());
        let mut answer = vec![packet[0], packet[1], 0x81, code, 0, 1, 0, count, 0, 0, 0, 0];
        answer.extend_from_slice(&question[..at + 5]);
        if let Some(address) = found {
            // The name of the question, an address, for no time, of 4 bytes.
            answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            answer.extend_from_slice(&address.octets());
        }
        socket.send_to(&answer, from).unwrap();
    }
}
