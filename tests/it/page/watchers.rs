//! A thousand who watch, and most of them badly: what it costs, and who pays.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::start;
use crate::cluster::flow::Flow;
use crate::descriptors::Descriptors;
use crate::harness::{PATIENCE, Relay, look_until};
use crate::peer::Peer;
use crate::{harness::Node, page::traffic::WSS};

const MANY: usize = 1_000;

/// Who may watch at once.
const PLACES: usize = 256;

/// Memory for them, in bytes: 64 KiB each.
const MOST_MEMORY: u64 = 256 * (64 << 10);

/// A request, and what came of it in half a second without the end of the connection.
pub(super) fn request(admin: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = ask(admin, path, &format!("{headers}Connection: close\r\n"));
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn ask(admin: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(admin).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// The status of a response.
fn status(stream: &mut TcpStream) -> String {
    let mut line = [0; 12];
    stream.read_exact(&mut line).unwrap();
    String::from_utf8_lossy(&line[9..]).into_owned()
}

/// Reads until the stream has had so many snapshots; the last of them.
fn snapshot(stream: &mut TcpStream, count: usize) -> Value {
    let (mut text, mut buffer) = (String::new(), [0; 16_384]);
    loop {
        let length = stream.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "the stream has ended");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
        let events: Vec<_> = text.split("data: ").skip(1).collect();
        if events.len() > count || (events.len() == count && events[count - 1].contains("\n\n")) {
            // Without the sizes of the chunks between them, which are lines of their own.
            let event = events[count - 1].split("\n\n").next().unwrap();
            return serde_json::from_str(event).unwrap();
        }
    }
}

#[test]
fn thousand_watchers_cost_little_memory_and_no_packet() {
    // The relay inherits the limit, and admits 512 operators at once by it.
    let _descriptors = Descriptors::take(512 * 32);
    let relay = start(&["--relay-rate", "0"]);
    let [from, to] = WSS.map(|id| Peer::log_in(relay.wss, &Node::new(id)));
    let flow = Flow::start(from, WSS[0], WSS[1], to);
    let mut first = ask(relay.admin, "/events", "");
    assert_eq!(status(&mut first), "200");
    snapshot(&mut first, 1);
    let before = relay.anonymous_memory();

    let mut watchers: Vec<_> = (1..MANY).map(|_| ask(relay.admin, "/events", "")).collect();
    let answers: Vec<_> = watchers.iter_mut().map(status).collect();
    assert_eq!(answers.iter().filter(|answer| *answer == "200").count(), PLACES - 1);
    let refused: Vec<_> = (0..).zip(&answers).filter(|(_, answer)| *answer == "503").collect();
    assert_eq!(refused.len(), MANY - PLACES);
    let mut rest = String::new();
    let at: usize = refused[0].0;
    watchers[at].read_to_string(&mut rest).unwrap();
    assert!(rest.to_ascii_lowercase().contains("retry-after: 30\r\n"), "{rest}");

    // Nobody but the first reads from here on.
    let (began, earlier) = (Instant::now(), relay.metric("pilot_beacon_admin_snapshots_total"));
    let made = || relay.metric("pilot_beacon_admin_snapshots_total") - earlier;
    let told = look_until(began + PATIENCE, || {
        // Those that wait to be read may be from before.
        let metrics = snapshot(&mut first, 1)["metrics"].take();
        let watchers = &metrics["pilot_beacon_admin_watchers"];
        let refused = &metrics["pilot_beacon_admin_watchers_refused_total"];
        (*watchers == 256.0 && *refused == 744.0 && made() >= 3.0).then_some(())
    });
    assert!(told.is_some(), "256 watch, 744 were refused");
    // Others are served meanwhile, and the snapshots are made once for all, one a second.
    let (made, seconds) = (made(), began.elapsed().as_secs_f64());
    assert!(made <= seconds + 1.0, "{made} in {seconds} s");
    let memory = relay.anonymous_memory().saturating_sub(before);
    println!("{} KiB for {PLACES} watchers, {} packets", memory >> 10, flow.received());
    assert!(memory < MOST_MEMORY, "{memory} bytes");
    let report = flow.stop();
    assert_eq!((report.lost().len(), report.doubled()), (0, 0));

    drop((watchers, first));
    relay.wait_for_metric("pilot_beacon_admin_watchers", 0.0);
    assert_no_work(&relay);
}

/// Whom nobody watches makes no snapshots.
fn assert_no_work(relay: &Relay) {
    let made = || relay.metric("pilot_beacon_admin_snapshots_total");
    // One may be on its way as the last one leaves.
    let mut last = made();
    let mut since = Instant::now();
    let still = look_until(Instant::now() + PATIENCE, || {
        let now = made();
        if now > last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() > Duration::from_millis(1_500)).then_some(())
    });
    assert!(still.is_some(), "snapshots are made for nobody");
}
