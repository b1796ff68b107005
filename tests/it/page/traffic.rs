//! Something to look at: packets in all four cells, packets that are dropped, and logins.

use std::f64::consts::TAU;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::harness::{Node, Relay};
use crate::peer::{Peer, UdpNode, direct_probe, punch};

/// Time between two bursts.
const TICK: Duration = Duration::from_millis(20);

/// The nodes over WebSocket.
pub(crate) const WSS: [u32; 2] = [11, 12];

/// The nodes over UDP.
pub(crate) const UDP: [u32; 2] = [21, 22];

/// Nobody has this id.
const ABSENT: u32 = 99;

/// Packets through a relay, while this lives.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Traffic {
    /// Connects the nodes, and begins: `burst` packets a cell in each [`TICK`], more or less
    /// as in a day of one minute where `waves`.
    pub(crate) fn start(relay: &Relay, burst: u32, waves: bool) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (wss, udp) = (relay.wss, relay.udp);
        let ended = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let mut peers = WSS.map(|id| Peer::log_in(wss, &Node::new(id)));
            let nodes = UDP.map(|id| UdpNode::register(udp, id));
            let began = Instant::now();
            let (mut next, mut tick) = (began, 0_u32);
            while !ended.load(Ordering::Relaxed) {
                let phase = if waves { began.elapsed().as_secs_f64() / 60.0 * TAU } else { 0.0 };
                exchange(&mut peers, &nodes, burst, phase, tick);
                tick += 1;
                // What a busy machine keeps from being sent is not made up for: a burst of it
                // would show.
                next = (next + TICK).max(Instant::now());
                thread::sleep(next.saturating_duration_since(Instant::now()));
            }
        });
        Self { stop, sender: Some(sender) }
    }

    /// Stops sending; all packets have come, and the nodes are gone.
    pub(crate) fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(sender) = self.sender.take() {
            let ended = sender.join();
            assert!(ended.is_ok() || thread::panicking(), "the traffic has failed");
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.end();
    }
}

/// Sends a burst in each cell, and receives it.
fn exchange(peers: &mut [Peer; 2], nodes: &[UdpNode; 2], burst: u32, phase: f64, tick: u32) {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a few hundred
    let share = |shift: f64| (f64::from(burst) * (1.0 + 0.6 * (phase + shift).sin())) as u32;
    let counts = [share(0.0), share(1.5), share(3.0), share(4.5)];
    let payload = [0x5a; 300];
    let [wss_a, wss_b] = peers;
    let [udp_a, udp_b] = nodes;
    (0..counts[0]).for_each(|_| wss_a.relay(WSS[0], WSS[1], &payload));
    (0..counts[1]).for_each(|_| wss_a.relay(WSS[0], UDP[0], &payload));
    (0..counts[2]).for_each(|_| udp_b.relay(WSS[1], &payload[..100]));
    (0..counts[3]).for_each(|_| udp_b.relay(UDP[0], &payload[..100]));
    if tick.is_multiple_of(5) {
        wss_a.relay(WSS[0], ABSENT, b"");
        // Dropped as well, and no fault: the page must not show these.
        wss_a.send(2, &punch(WSS[0], WSS[1], &[]));
        wss_a.send(2, &direct_probe(b"PILS"));
        // A sign of life as well: packets for a silent node are limited.
        udp_a.relay(ABSENT, b"");
    }
    (0..counts[0] + counts[2]).for_each(|_| drop(wss_b.delivery()));
    (0..counts[1] + counts[3]).for_each(|_| drop(udp_a.delivery()));
}
