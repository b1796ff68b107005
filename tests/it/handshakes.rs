//! Handshakes that are slow, broken or ask for what there is not, by OpenSSL's own client and by
//! hand: refused and counted, and nobody else notices.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use beacon_relay::client::Client;
use beacon_relay::ids::NodeId;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

use crate::deploy::nginx::write_certificates;
use crate::harness::{Node, PATIENCE, Relay, look_until};
use crate::tls::{certificates, handshakes, log_in, next, relay, run, stranger};

/// Connections whose handshake never ends.
const SLOW: usize = 300;

/// What `openssl s_client` prints that is told `input`, up to the end of the connection.
fn s_client(to: SocketAddr, more: &[&str], input: &[u8]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &to.to_string()]).args(more);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // One that has ended takes nothing.
    let _gone = stdin.write_all(input);
    let id = child.id();
    let said = thread::spawn(move || child.wait_with_output().unwrap());
    let ended = look_until(Instant::now() + PATIENCE, || said.is_finished().then_some(()));
    drop(stdin);
    assert!(ended.is_some(), "openssl ({id}) waits");
    let said = said.join().unwrap();
    [said.stdout, said.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat()
}

fn loopback(relay: &Relay) -> SocketAddr {
    ([127, 0, 0, 1], relay.wss.port()).into()
}

/// Two clients still exchange packets.
async fn exchange(one: &mut Client, other: &mut Client) {
    one.send_to(NodeId::new(12).unwrap(), b"unharmed").await.unwrap();
    assert_eq!(next(other).await, b"unharmed");
}

#[test]
fn client_gets_the_certificate_of_the_name_that_it_asks_for() {
    let folders = [certificates(), certificates()];
    let config = folders[0].path().join("relay.toml");
    let mut pairs = Vec::new();
    for (folder, name) in folders.iter().zip(["a.test", "b.test"]) {
        write_certificates(folder.path(), &[name.to_owned()], 90);
        let [cert, key] = ["cert.pem", "key.pem"].map(|file| folder.path().join(file));
        pairs.push(format!("{{ cert = {cert:?}, key = {key:?} }}"));
    }
    let listener = format!(
        "[[listener]]\nbind = \"127.0.0.1:0\"\ndoors = [\"pilot\"]\ntls = [{}]\n",
        pairs.join(", ")
    );
    fs::write(&config, listener).unwrap();
    let relay = Relay::start(["--config", config.to_str().unwrap(), "--log-level", "debug"]);
    let line = relay.wait_for_line("also listening");
    let to = line.split_once("bind=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    let ca = |number: usize| folders[number].path().join("ca.pem").to_str().unwrap().to_owned();
    // Without a name, and for one that nobody has, it is the first.
    for (asked, expected) in [("a.test", 0), ("b.test", 1), ("c.test", 0), ("", 0)] {
        let name =
            if asked.is_empty() { vec!["-noservername"] } else { vec!["-servername", asked] };
        for version in ["-tls1_2", "-tls1_3"] {
            let trust = ca(expected);
            let more = [&name[..], &[version, "-CAfile", &trust, "-verify_return_error"]].concat();
            // A request for no path ends the connection.
            let said = s_client(to, &more, b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n");
            assert!(said.contains("Verification: OK"), "{asked} {version}: {said}");
        }
    }
    assert_eq!(relay.metric(&handshakes("full")), 8.0);
}

#[test]
fn handshakes_that_never_end_keep_nobody_out() {
    let folder = certificates();
    let nodes = [11, 12].map(Node::new);
    let relay = relay(folder.path(), &nodes, &["--auth-timeout", "2s", "--upgrade-rate", "0"]);
    let to = loopback(&relay);
    // The head of a hello of 512 bytes, and a part of it.
    let begun = [&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 40]].concat();
    let slow: Vec<_> = (0..SLOW)
        .map(|number| {
            let mut stream = TcpStream::connect(to).unwrap();
            stream.write_all(&begun[..number % begun.len()]).unwrap();
            stream
        })
        .collect();
    run(async {
        let mut one = log_in(&relay, folder.path(), &nodes[0]).await;
        let mut other = log_in(&relay, folder.path(), &nodes[1]).await;
        exchange(&mut one, &mut other).await;
    });
    // Each is ended by the deadline, those that drip on too.
    for (number, mut stream) in slow.into_iter().enumerate() {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut heard = [0];
        let ended = stream.read(&mut heard);
        assert!(!ended.is_ok_and(|read| read > 0), "{number} is answered");
    }
    #[expect(clippy::cast_precision_loss, reason = "hundreds")]
    relay.wait_for_metric(&handshakes("not_done"), SLOW as f64);
    assert_eq!(relay.metric(&handshakes("full")), 2.0);
    relay.wait_for_metric("pilot_beacon_wss_waiting", 0.0);
}

#[test]
fn renegotiation_is_refused_and_the_connection_goes_on_or_ends() {
    let folder = certificates();
    let nodes = [11, 12].map(Node::new);
    let relay = relay(folder.path(), &nodes, &["--auth-timeout", "2s"]);
    run(async {
        let mut one = log_in(&relay, folder.path(), &nodes[0]).await;
        let mut other = log_in(&relay, folder.path(), &nodes[1]).await;
        // A line of R asks for it; OpenSSL ends when it is refused.
        let said = s_client(loopback(&relay), &["-tls1_2"], b"R\n");
        assert!(said.contains("RENEGOTIATING"), "{said}");
        assert!(said.contains("no renegotiation"), "{said}");
        exchange(&mut one, &mut other).await;
    });
    relay.wait_for_metric("pilot_beacon_wss_waiting", 0.0);
    assert_eq!(relay.metric(&handshakes("full")), 3.0);
}

/// A server that takes early data.
fn generous_server(folder: &Path) -> ServerConfig {
    let certificate = CertificateDer::from_pem_file(folder.join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(vec![certificate], key).unwrap();
    config.max_early_data_size = 16_384;
    config
}

#[test]
fn early_data_is_not_read() {
    let folder = certificates();
    let nodes = [11, 12].map(Node::new);
    let relay = relay(folder.path(), &nodes, &[]);
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let request = b"GET /v1/compat HTTP/1.1\r\nHost: early\r\n\r\n";
    fs::write(at("early"), request.repeat(100)).unwrap();

    // A server that takes early data gives the ticket that OpenSSL sends it with.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let generous = listener.local_addr().unwrap();
    let server = generous_server(folder.path());
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut connection = ServerConnection::new(Arc::new(server)).unwrap();
        // Up to the client's first line, behind the handshake and its tickets.
        let mut tls = Stream::new(&mut connection, &mut stream);
        tls.read_exact(&mut [0; 4]).unwrap();
        tls.write_all(b"well").unwrap();
        connection.send_close_notify();
        connection.complete_io(&mut stream).unwrap();
    });
    let session = at("session");
    s_client(generous, &["-tls1_3", "-sess_out", &session], b"line");
    served.join().unwrap();

    run(async {
        let mut one = log_in(&relay, folder.path(), &nodes[0]).await;
        let mut other = log_in(&relay, folder.path(), &nodes[1]).await;
        let more = ["-sess_in", &session, "-early_data", &at("early")];
        let said = s_client(loopback(&relay), &more, b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n");
        assert!(said.contains("Early data was rejected"), "{said}");
        // What came after the handshake is answered, and nothing of what came before it.
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
        assert!(said.contains("HTTP/1.1 404 "), "{said}");
        exchange(&mut one, &mut other).await;
    });
    assert_eq!(relay.metric(&handshakes("full")), 3.0);
}

#[test]
fn records_longer_than_any_and_hellos_without_an_end_are_refused() {
    let folder = certificates();
    let nodes = [11, 12].map(Node::new);
    let relay = relay(folder.path(), &nodes, &["--upgrade-rate", "0"]);
    run(async {
        let mut one = log_in(&relay, folder.path(), &nodes[0]).await;
        let mut other = log_in(&relay, folder.path(), &nodes[1]).await;
        // A record of 65,535 bytes; a hello of 16 MB in records of one byte, and in long ones.
        let in_bytes: Vec<_> = (0..40_000).flat_map(|_| [22, 3, 1, 0, 1, 1]).collect();
        let long = [&[22, 3, 1, 0x3f, 0xf0, 1, 0xff, 0xff, 0xff][..], &[0; 16_364]].concat();
        for bytes in [vec![22, 3, 1, 0xff, 0xff, 1, 0, 0], in_bytes, long.repeat(8)] {
            let before = relay.metric(&handshakes("invalid"));
            stranger(&relay, &bytes);
            relay.wait_for_metric(&handshakes("invalid"), before + 1.0);
        }
        exchange(&mut one, &mut other).await;
    });
    assert!(relay.anonymous_memory() < 50 << 20);
}

#[test]
fn old_versions_and_foreign_ciphers_are_told_so() {
    let folder = certificates();
    let relay = relay(folder.path(), &[], &[]);
    for more in [
        &["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"][..],
        &["-tls1_2", "-cipher", "AES128-SHA"],
        &["-alpn", "h2"],
    ] {
        let before = relay.metric(&handshakes("incompatible"));
        let said = s_client(loopback(&relay), more, b"");
        assert!(said.contains("alert"), "{more:?}: {said}");
        relay.wait_for_metric(&handshakes("incompatible"), before + 1.0);
    }
    assert_eq!(relay.metric(&handshakes("full")), 0.0);
}
