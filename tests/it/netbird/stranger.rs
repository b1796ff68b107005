//! Runs tests/stranger/netbird.py, which was written from a description of the wire alone.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use super::{EXPOSED, SECRET, Site, frame, message};
use crate::cells::assert_balance;
use crate::deploy::{root, tools};
use crate::peer::Peer;

/// What the stranger says of each step.
const STEPS: [&str; 8] = [
    "vectors hold",
    "refused, without a word",
    "logged in",
    "exchanged packets",
    "told of coming and going",
    "took over",
    "answered a health check",
    "left",
];

/// What the stranger makes of a relay over this carrier.
fn meet(carrier: &str, address: SocketAddr, more: &[&str]) -> Output {
    Command::new("python3")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONPATH", tools())
        .arg(root("tests/stranger/netbird.py"))
        .args([carrier, &address.ip().to_string(), &address.port().to_string()])
        .args([SECRET, EXPOSED])
        .args(more)
        .output()
        .expect("python3 is missing; `make setup` installs it")
}

/// Sends back what alice sends, until she leaves for good; how often she has come and gone.
fn echo(mut peer: Peer) -> (usize, usize) {
    peer.stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let (mut came, mut went) = (0, 0);
    loop {
        let got = peer.read();
        match &got {
            // The source stands where the destination does.
            Some((2, packet)) if packet.starts_with(&[1, 3]) => peer.send(2, packet),
            Some((2, check)) if check[..] == [1, 5] => peer.send(2, check),
            _ if got == frame(10, "alice", b"") => came += 1,
            _ if got == frame(11, "alice", b"") => {
                went += 1;
                return (came, went);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn interoperates(site: &Site, carrier: &str, address: SocketAddr, more: &[&str]) {
    let mut peer = site.log_in("echo");
    peer.send(2, &message(8, "alice", b""));
    let echoing = thread::spawn(move || echo(peer));
    let output = meet(carrier, address, more);
    let said = String::from_utf8(output.stdout).unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}{complaint}{}", site.relay.log());
    assert_eq!(said.lines().collect::<Vec<_>>(), STEPS);
    // A takeover is no going and coming.
    assert_eq!(echoing.join().unwrap(), (1, 1));
    assert_balance(&site.relay);
}

#[test]
fn stranger_interoperates_over_quic() {
    let site = Site::with_tls(&[]);
    let ca = site.ca();
    interoperates(&site, "quic", site.quic.unwrap(), &[ca.to_str().unwrap()]);
}

#[test]
fn stranger_interoperates_over_websocket() {
    let site = Site::start(&[]);
    interoperates(&site, "ws", site.address, &[]);
}
