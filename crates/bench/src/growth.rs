//! How cost grows: a few active pairs among many peers that do nothing.

use std::net::TcpStream;
use std::time::Instant;

use beacon_relay::net::udp::{self, BatchSocket, Datagrams as _, MAX_RUN_PACKETS, Received, Run};
use beacon_wire::beacon::encode_discover;
use beacon_wire::ids::NodeId;

use crate::closed_loop::Figures;
use crate::peer::{Node, log_in};
use crate::subject::{Kind, Servers};
use crate::throughput::{self, Load};

/// Ids of peers that do nothing begin here.
const FIRST_IDLE: u32 = 1_000_000;

/// Measures the load among `count` idle WebSocket peers.
pub(super) fn among_wss(servers: &Servers, load: &Load, count: u32) -> anyhow::Result<Figures> {
    let active: Vec<_> = (1..=2 * load.pairs).map(Node::new).collect();
    let idle: Vec<_> = (FIRST_IDLE..FIRST_IDLE + count).map(Node::new).collect();
    let known = [&*active, &*idle].concat();
    // Nobody answers pings for the idle ones.
    let patient = ["--upgrade-burst", "1000000", "--ping-interval", "0s", "--idle-timeout", "1h"];
    let server = servers.start(Kind::Relay, &known, &patient)?;
    let streams: Result<Vec<TcpStream>, _> =
        idle.iter().map(|node| log_in(server.wss, node)).collect();
    let figures = throughput::measure(&server, &active, load);
    drop(streams?);
    figures
}

/// Measures the load among `count` registered UDP nodes.
pub(super) fn among_udp(servers: &Servers, load: &Load, count: u32) -> anyhow::Result<Figures> {
    let active: Vec<_> = (1..=2 * load.pairs).map(Node::new).collect();
    let server = servers.start(Kind::Relay, &active, &["--max-nodes", "1000000"])?;
    let local = std::net::SocketAddr::new(server.udp.ip(), 0);
    let socket = BatchSocket::new(udp::open(local)?)?;
    let mut received = Received::new();
    let began = Instant::now();
    let mut answered = 0;
    let mut discovers = Vec::new();
    for first in (FIRST_IDLE..FIRST_IDLE + count).step_by(MAX_RUN_PACKETS) {
        discovers.clear();
        let last = (FIRST_IDLE + count).min(first + 64);
        for number in first..last {
            let id = NodeId::new(number).expect("far above 0");
            encode_discover(id, None, false, &mut discovers);
        }
        let run = Run { to: server.udp, from: None, bytes: &discovers, segment: 5 };
        socket.send(&[run], &mut |_, _, _| {});
        let wanted = last - FIRST_IDLE;
        while answered < wanted && began.elapsed().as_secs() < 60 {
            socket.receive(&mut received)?;
            answered += u32::try_from(received.iter().count()).unwrap_or(u32::MAX);
        }
    }
    anyhow::ensure!(answered == count, "only {answered} of {count} nodes are registered");
    throughput::measure(&server, &active, load)
}
