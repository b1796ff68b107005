//! What a relayed packet costs beside its bytes, counted and not timed: allocations and
//! system calls, in every cell, of a relay in this process.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read as _, Write as _};

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use beacon_relay::config::{Config, Flags, Layers, Surroundings};
use beacon_relay::doors::pilot::directory;
use beacon_relay::ids::{NodeId, PublicKey};
use beacon_relay::net::calls::{Call, made};
use beacon_relay::server::Server;

#[path = "it/harness.rs"]
#[allow(dead_code)]
mod harness;
#[path = "it/last_words.rs"]
mod last_words;
#[path = "it/peer.rs"]
#[allow(dead_code)]
mod peer;
#[path = "it/wording.rs"]
#[allow(dead_code)]
mod wording;

use harness::Node;
use peer::{Peer, UdpNode, frame, relay};
use socket2::Socket;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Set on the threads of the load, which are not what is measured.
    static LOAD: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: everything is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !LOAD.get() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's promise is handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Packets of one burst: the window of a pair. A socket's default buffer holds 64 datagrams
/// for sure, and no more is lost there.
const WINDOW: usize = 256;
const UDP_WINDOW: usize = 64;

/// Bursts before counting, in which buffers reach their size.
const WARM_UP: usize = 200;

/// Bursts that are counted, so many times. Of allocations the median counts: what the clock brings (the
/// watch of the key file, the history of the charts) falls into one or two, what a packet costs into all.
const BURSTS: usize = 50;
const TIMES: usize = 8;

enum Side {
    Wss(Socket),
    Udp(UdpNode),
}

/// Sends one burst and waits until all of it has arrived.
fn burst(from: &Side, to: &Side, bytes: &[u8], window: usize, delivered: usize, buffer: &mut [u8]) {
    match from {
        Side::Wss(stream) => (&mut &*stream).write_all(bytes).unwrap(),
        Side::Udp(node) => bytes.chunks(bytes.len() / window).for_each(|packet| node.send(packet)),
    }
    match to {
        Side::Wss(stream) => (&mut &*stream).read_exact(&mut buffer[..delivered * window]).unwrap(),
        Side::Udp(node) => {
            for _ in 0..window {
                assert_eq!(node.socket.recv(buffer).unwrap(), delivered);
            }
        }
    }
}

/// Allocations of the relay, and its reads and writes of streams.
fn counts() -> (u64, u64) {
    (ALLOCATIONS.load(Ordering::Relaxed), made(Call::Read) + made(Call::Write))
}

#[test]
fn relayed_packet_allocates_nothing_and_shares_its_system_calls() {
    LOAD.set(true);
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Node::new(11), Node::new(12));
    for node in [&a, &b] {
        let key = PublicKey(node.key.verifying_key().to_bytes());
        directory::enroll(folder.path(), NodeId::new(node.id).unwrap(), key).unwrap();
    }
    let mut flags = Flags::default();
    for (key, text) in [
        ("state_dir", folder.path().to_str().unwrap()),
        ("wss_bind", "127.0.0.1:0"),
        ("udp_bind", "127.0.0.1:0"),
        ("admin_bind", "127.0.0.1:0"),
        ("relay_rate", "0"),
        // Its logins allocate.
        ("canary_interval", "1h"),
    ] {
        flags.add(key, text.to_owned());
    }
    let layers = Layers::collect(flags, &Surroundings::of_this_process()).unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(Config::new(&layers).unwrap())).unwrap();
    let (wss, udp) = (server.wss_addr().unwrap(), server.udp_addr());

    let wss_a = Side::Wss(Peer::log_in(wss, &a).stream);
    let wss_b = Side::Wss(Peer::log_in(wss, &b).stream);
    let (udp_c, udp_d) = (UdpNode::register(udp, 21), UdpNode::register(udp, 22));
    let (udp_c, udp_d) = (Side::Udp(udp_c), Side::Udp(udp_d));
    for (name, from, to, sender, dest) in [
        ("WSS→WSS", &wss_a, &wss_b, 11, 12),
        ("WSS→UDP", &wss_a, &udp_d, 11, 22),
        ("UDP→WSS", &udp_c, &wss_b, 21, 12),
        ("UDP→UDP", &udp_c, &udp_d, 21, 22),
    ] {
        let packet = relay(sender, dest, &[0xa5; 200]);
        let one = if matches!(from, Side::Wss(_)) { frame(0x82, &packet) } else { packet };
        let window = if name == "WSS→WSS" { WINDOW } else { UDP_WINDOW };
        let bytes = one.repeat(window);
        // 5 bytes of header instead of 9, and 4 of the frame.
        let delivered = 205 + if matches!(to, Side::Wss(_)) { 4 } else { 0 };
        let counted = thread::scope(|scope| {
            let counting = scope.spawn(|| {
                LOAD.set(true);
                let mut buffer = vec![0; 1 << 20];
                let mut bursts = |count| {
                    let before = counts();
                    for _ in 0..count {
                        burst(from, to, &bytes, window, delivered, &mut buffer);
                    }
                    let after = counts();
                    (after.0 - before.0, after.1 - before.1)
                };
                bursts(WARM_UP);
                [(); TIMES].map(|()| bursts(BURSTS))
            });
            counting.join().unwrap()
        });
        let mut allocations = counted.map(|(allocations, _)| allocations);
        allocations.sort_unstable();
        let usual = allocations[TIMES / 2];
        let calls: u64 = counted.iter().map(|(_, calls)| calls).sum();
        let packets = (TIMES * BURSTS * window) as f64;
        println!(
            "{name}: {allocations:?} allocations, {:.4} stream calls a packet",
            calls as f64 / packets
        );
        assert!(usual < 8, "{name}: {allocations:?} allocations for {packets} packets");
        if name == "WSS→WSS" {
            assert!(calls as f64 / packets <= 0.1, "{calls} calls for {packets} packets");
        }
    }
    runtime.block_on(server.shutdown());
}
