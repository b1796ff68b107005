//! Packets over TCP: where there is a lane they take it, where there is none they do not, and on
//! the way from one to the other none overtakes another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::JoinSet;

use super::*;
use crate::cluster::mesh::tcp;
use crate::cluster::{Local, PacketLane};
use crate::wire::cluster::{Packets, Run};
use crate::wire::name::Name;
use crate::wire::name::testing::name;

/// A relay that notes the numbers in the packets that come to it.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<Vec<u32>>);

impl Heard {
    pub(super) fn at(relay: &Relay) -> Arc<Self> {
        let local = Arc::<Self>::default();
        let weak: std::sync::Weak<Self> = Arc::downgrade(&local);
        relay.cluster.serve(weak);
        local
    }

    pub(super) fn numbers(&self) -> Vec<u32> {
        self.0.lock().clone()
    }

    fn last(&self) -> u32 {
        self.0.lock().last().copied().unwrap_or_default()
    }
}

impl Local for Heard {
    fn deliver(
        &self,
        _from: RelayId,
        packets: &[Packets<'_, Name>],
        _now: Instant,
        _not_here: &mut dyn FnMut(&Run<Name>, u64),
    ) {
        let payloads = packets.iter().flat_map(Packets::iter);
        let numbers = payloads.filter_map(|payload| payload.first_chunk::<4>());
        self.0.lock().extend(numbers.map(|number| u32::from_be_bytes(*number)));
    }

    fn superseded(&self, _peer: Name, _serial: u64, _was_granted: bool, _now: Instant) {}
}

/// A relay that takes lanes over TCP, and dials them.
pub(super) fn start(key: &SigningKey, join: &[SocketAddr]) -> Relay {
    let bind = ([127, 0, 0, 1], 0).into();
    let settings = Settings { tcp: true, ..settings(bind, key, join, by_secret()) };
    Relay::start_as("test", [0; 16], key, Mesh::bind(settings).unwrap())
}

pub(super) fn sent_over(relay: &Relay, lane: PacketLane) -> u64 {
    relay.cluster.counters().lane_packets.of(lane).value()
}

/// Sends numbered packets of one flow to the only other relay.
pub(super) fn send(relay: &Relay, numbers: std::ops::Range<u32>) {
    let member = relay.member();
    let run = Run { dest: name(2), sender: name(1), epoch: 3 };
    for number in numbers {
        let payload = [&number.to_be_bytes()[..], &[0; 1_000]].concat();
        member.outbox.push(&run, [&payload[..]].into_iter(), Instant::now());
    }
    member.outbox.wake();
}

/// Sends more numbered packets, a few at a time, until this is so; the number of the next one.
async fn send_until(relay: &Relay, from: u32, what: &str, is_so: impl Fn() -> bool) -> u32 {
    let mut next = from;
    let sending = async {
        while !is_so() {
            send(relay, next..next + 7);
            next += 7;
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, sending).await.unwrap_or_else(|_| panic!("still not so: {what}"));
    next
}

/// Lets datagrams pass, and TCP while it is open.
struct Proxy {
    address: SocketAddr,
    open: Arc<AtomicBool>,
    cut: Mutex<CancellationToken>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// One in front of a relay at `to`.
    async fn start(to: SocketAddr) -> Arc<Self> {
        let (listener, datagrams) = loop {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            // Somebody else may have the number.
            if let Ok(udp) = UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, Arc::new(udp));
            }
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(Self::datagrams(datagrams, to));
        let open = Arc::new(AtomicBool::new(true));
        let address = listener.local_addr().unwrap();
        let proxy = Arc::new(Self { address, open, cut: Mutex::default(), _tasks: tasks });
        tokio::spawn(Arc::clone(&proxy).connections(listener, to));
        proxy
    }

    async fn datagrams(front: Arc<UdpSocket>, to: SocketAddr) {
        let mut behind: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut buffer = vec![0; 65_536];
        let mut tasks = JoinSet::new();
        loop {
            let Ok((length, from)) = front.recv_from(&mut buffer).await else { continue };
            if let Entry::Vacant(vacant) = behind.entry(from) {
                let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
                vacant.insert(Arc::clone(&socket));
                let front = Arc::clone(&front);
                tasks.spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    while let Ok((length, _)) = socket.recv_from(&mut buffer).await {
                        let _ = front.send_to(&buffer[..length], from).await;
                    }
                });
            }
            let _ = behind[&from].send_to(&buffer[..length], to).await;
        }
    }

    async fn connections(self: Arc<Self>, listener: TcpListener, to: SocketAddr) {
        while let Ok((mut stream, _)) = listener.accept().await {
            if !self.open.load(Ordering::Relaxed) {
                continue;
            }
            let cut = self.cut.lock().clone();
            tokio::spawn(async move {
                let Ok(mut behind) = TcpStream::connect(to).await else { return };
                let copying = tokio::io::copy_bidirectional(&mut stream, &mut behind);
                cut.run_until_cancelled(copying).await;
            });
        }
    }

    fn cut(&self) {
        self.open.store(false, Ordering::Relaxed);
        self.cut.lock().cancel();
    }

    fn heal(&self) {
        *self.cut.lock() = CancellationToken::new();
        self.open.store(true, Ordering::Relaxed);
    }
}

fn assert_in_order(numbers: &[u32]) {
    let wrong = numbers.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(wrong, None, "a packet was overtaken, or came twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_go_over_tcp_both_ways_and_none_is_lost_or_overtaken_by_it() {
    let [smaller, larger] = keys();
    let one = start(&smaller, &[]);
    let other = start(&larger, &[one.address]);
    let heard = [Heard::at(&one), Heard::at(&other)];
    one.has(&[&larger]).await;
    other.has(&[&smaller]).await;

    for (from, to) in [(&one, &heard[1]), (&other, &heard[0])] {
        let is_so = || sent_over(from, PacketLane::Tcp) > 1_000;
        let end = send_until(from, 0, "packets go over TCP", is_so).await;
        until("all have come", || to.last() == end - 1).await;
        assert_eq!(to.numbers(), (0..end).collect::<Vec<_>>());
        assert_eq!(from.cluster.traffic.packets_queued(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_go_over_quic_while_tcp_is_cut_and_come_back_in_order() {
    let [smaller, larger] = keys();
    // Whichever side has dialled.
    for (dialled, dialler) in [(&smaller, &larger), (&larger, &smaller)] {
        let to = start(dialled, &[]);
        let proxy = Proxy::start(to.address).await;
        let from = start(dialler, &[proxy.address]);
        from.has(&[dialled]).await;
        to.has(&[dialler]).await;
        for (sender, receiver) in [(&from, &to), (&to, &from)] {
            let heard = Heard::at(receiver);
            let mut next = 0;
            for _ in 0..2 {
                let over = |lane| sent_over(sender, lane);
                let tcp = over(PacketLane::Tcp);
                let is_so = || over(PacketLane::Tcp) > tcp + 500;
                next = send_until(sender, next, "packets go over TCP", is_so).await;
                proxy.cut();
                let quic = over(PacketLane::Quic);
                let is_so = || over(PacketLane::Quic) > quic + 500;
                next = send_until(sender, next, "packets go over QUIC", is_so).await;
                proxy.heal();
            }
            until("the last has come", || heard.last() == next - 1).await;
            assert_in_order(&heard.numbers());
        }
        let history = [from.history(), to.history()];
        assert_eq!(history, [(1, 0), (1, 0)], "the link itself did not stand");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_that_takes_no_lanes_is_served_over_quic_and_left_alone() {
    let [smaller, larger] = keys();
    // Whoever has the TCP port of that number is none of our business; here it has to be free.
    let (plain, somebody) = loop {
        let plain = Relay::start(&smaller, &[], by_secret());
        if let Ok(somebody) = TcpListener::bind(plain.address).await {
            break (plain, somebody);
        }
    };
    let ours = start(&larger, &[plain.address]);
    let heard = [Heard::at(&plain), Heard::at(&ours)];
    ours.has(&[&smaller]).await;
    plain.has(&[&larger]).await;

    for (from, to) in [(&plain, &heard[1]), (&ours, &heard[0])] {
        send(from, 0..1_000);
        until("all have come", || to.last() == 999).await;
        assert_eq!(to.numbers(), (0..1_000).collect::<Vec<_>>());
        assert_eq!(sent_over(from, PacketLane::Quic), 1_000);
        assert_eq!(sent_over(from, PacketLane::Tcp), 0);
    }
    let knocked = timeout(Duration::from_millis(300), somebody.accept()).await;
    assert!(knocked.is_err(), "it was dialled");
}

#[tokio::test]
async fn tcp_port_that_is_taken_costs_lanes_and_nothing_else() {
    let [smaller, larger] = keys();
    let (taken, mesh) = loop {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = taken.local_addr().unwrap();
        let settings = Settings { tcp: true, ..settings(bind, &smaller, &[], by_secret()) };
        // Somebody may have the UDP port of that number.
        if let Ok(mesh) = Mesh::bind(settings) {
            break (taken, mesh);
        }
    };
    let bind = taken.local_addr().unwrap();
    let one = Relay::start_as("test", [0; 16], &smaller, mesh);
    assert_eq!(one.address, bind);
    let other = start(&larger, &[bind]);
    let heard = Heard::at(&one);
    other.has(&[&smaller]).await;
    send(&other, 0..100);
    until("all have come", || heard.numbers().len() == 100).await;
    assert_eq!(sent_over(&other, PacketLane::Quic), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lanes_end_with_their_link_and_come_back_with_the_next() {
    let [smaller, larger] = keys();
    let one = start(&smaller, &[]);
    let heard = Heard::at(&one);
    let mut other = start(&larger, &[one.address]);
    other.has(&[&smaller]).await;
    let is_so = || sent_over(&other, PacketLane::Tcp) > 0;
    send_until(&other, 0, "packets go over TCP", is_so).await;
    other.stop().await;
    one.has(&[]).await;

    let again = start(&larger, &[one.address]);
    again.has(&[&smaller]).await;
    let is_so = || sent_over(&again, PacketLane::Tcp) > 100;
    let end = send_until(&again, 1_000_000, "packets go over TCP", is_so).await;
    until("the last has come", || heard.last() == end - 1).await;
    assert_in_order(&heard.numbers());
}

/// TLS of lanes that shows this key.
pub(super) fn configs(key: &SigningKey) -> tcp::Configs {
    let verifier = Verifier::new(relay_id(key), Vec::new());
    tls::lanes(&verifier, Arc::new(tls::certified(key).unwrap())).unwrap()
}
