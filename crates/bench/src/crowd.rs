//! Many destinations: a few senders whose packets go to peers chosen by Zipf's law, or all
//! to one. Runs of packets for one destination are short then, and so are the batches that
//! leave.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use beacon_wire::beacon::encode_relay;
use beacon_wire::websocket::Opcode;

use crate::closed_loop::{self, Figures, Window};
use crate::peer::{FrameReader, Node, Random, log_in, push_frame};
use crate::readiness::Readiness;
use crate::subject::{Kind, Servers};
use crate::throughput::Load;

/// How long a receiver waits before it may see that it is to stop.
const WAIT: Duration = Duration::from_millis(50);

/// Measures `load.pairs` senders over WSS whose packets are spread over `receivers` peers.
pub(super) fn run(servers: &Servers, load: &Load, receivers: u32) -> anyhow::Result<Figures> {
    let nodes: Vec<_> = (1..=load.pairs + receivers).map(Node::new).collect();
    let (senders, receivers) = nodes.split_at(load.pairs as usize);
    let patient = ["--upgrade-burst", "1000000", "--ping-interval", "0s", "--idle-timeout", "1h"];
    let server = servers.start(Kind::Relay, &nodes, &patient)?;
    let stop = Arc::new(AtomicBool::new(false));
    // One window for all: what arrives says nothing of who sent it.
    let window = Arc::new(Window::new(load.window * u64::from(load.pairs)));
    let streams: Result<Vec<_>, _> =
        receivers.iter().map(|node| log_in(server.wss, node)).collect();
    let mut threads = vec![{
        let (streams, stop, window) = (streams?, Arc::clone(&stop), Arc::clone(&window));
        thread::spawn(move || receive(&streams, &stop, &window))
    }];
    let destinations = Arc::new(Zipf::over(receivers));
    for sender in senders {
        let stream = log_in(server.wss, sender)?;
        let (sender, size) = (sender.clone(), load.size);
        let (stop, window) = (Arc::clone(&stop), Arc::clone(&window));
        let destinations = Arc::clone(&destinations);
        threads.push(thread::spawn(move || {
            send(&stream, &sender, &destinations, size, &stop, &window);
        }));
    }
    let figures = closed_loop::watch(&[window], || server.usage(), load.time)?;
    stop.store(true, Ordering::Relaxed);
    drop(server);
    for thread in threads {
        // A peer that failed has delivered less, which is what is measured.
        let _failed = thread.join();
    }
    Ok(figures)
}

/// Destinations of which the n-th is chosen in proportion to 1/n.
struct Zipf {
    nodes: Vec<Node>,
    /// The sums of the weights up to each node.
    sums: Vec<f64>,
}

impl Zipf {
    fn over(nodes: &[Node]) -> Self {
        let mut sum = 0.0;
        let weights = (1..=nodes.len()).map(|rank| {
            #[allow(clippy::cast_precision_loss)] // far below 2^53
            let weight = 1.0 / rank as f64;
            sum += weight;
            sum
        });
        let sums = weights.collect();
        Self { nodes: nodes.to_vec(), sums }
    }

    fn choose(&self, random: &mut Random) -> &Node {
        #[allow(clippy::cast_precision_loss)] // 53 bits of a random number
        let share = (random.next() >> 11) as f64 / (1u64 << 53) as f64;
        let most = self.sums.last().copied().unwrap_or_default();
        let index = self.sums.partition_point(|sum| *sum < share * most);
        let last = self.nodes.len().saturating_sub(1);
        self.nodes.get(index.min(last)).expect("there is at least one destination")
    }
}

fn send(
    stream: &TcpStream,
    sender: &Node,
    destinations: &Zipf,
    size: usize,
    stop: &AtomicBool,
    window: &Window,
) {
    let mut random = Random::new(u64::from(sender.id.number()));
    let payload = vec![0xa5; size];
    let (mut packet, mut frames) = (Vec::new(), Vec::new());
    while !stop.load(Ordering::Relaxed) {
        frames.clear();
        for _ in 0..window.take(256) {
            packet.clear();
            let dest = destinations.choose(&mut random).id;
            encode_relay(sender.id, dest, &payload, &mut packet);
            push_frame(Opcode::Binary, &packet, random.mask(), &mut frames);
        }
        if std::io::Write::write_all(&mut &*stream, &frames).is_err() {
            return;
        }
    }
}

/// Reads whatever comes on any of the streams, in one thread.
fn receive(streams: &[TcpStream], stop: &AtomicBool, window: &Window) {
    let mut readiness = Readiness::new().expect("the load may poll");
    for (number, stream) in streams.iter().enumerate() {
        stream.set_nonblocking(true).expect("a socket can be made non-blocking");
        readiness.add(stream, number).expect("the load may poll its streams");
    }
    // One reader for all: a piece of a frame that a read leaves over is kept for its stream.
    let mut readers: Vec<Option<FrameReader>> = streams.iter().map(|_| None).collect();
    while !stop.load(Ordering::Relaxed) {
        let mut frames = 0;
        for number in readiness.wait(WAIT) {
            let (Some(stream), Some(reader)) = (streams.get(number), readers.get_mut(number))
            else {
                continue;
            };
            let reader = reader.get_or_insert_with(FrameReader::small);
            // An end of the stream ends the run soon; what it lacks shows as loss.
            let _ended = reader.read(stream, |_| frames += 1);
        }
        if frames > 0 {
            window.give(frames);
        }
    }
}
