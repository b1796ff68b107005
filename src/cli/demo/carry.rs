//! Carries a file through a relay in all cells, and measures.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::Addresses;
use super::peer::{Node, Peer, Transport};
use super::transfer::{Inbound, Outbound};
use crate::ids::NodeId;

/// How often the sender looks whether a packet is due; three are, at full rate.
const TICK: Duration = Duration::from_millis(1);

/// First of the demo's node ids: near the end of the range, where no fleet counts up to.
const FIRST_ID: u32 = 4_294_000_001;

/// From which transport to which.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cell {
    /// How the sending node is connected.
    pub from: Transport,
    /// How the receiving node is connected.
    pub to: Transport,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}→{}", self.from, self.to)
    }
}

/// The cells, in the order of the table.
const CELLS: [Cell; 8] = [
    Cell { from: Transport::Wss, to: Transport::Wss },
    Cell { from: Transport::Wss, to: Transport::Udp },
    Cell { from: Transport::Udp, to: Transport::Wss },
    Cell { from: Transport::Udp, to: Transport::Udp },
    Cell { from: Transport::Ws, to: Transport::Ws },
    Cell { from: Transport::Ws, to: Transport::Quic },
    Cell { from: Transport::Quic, to: Transport::Ws },
    Cell { from: Transport::Quic, to: Transport::Quic },
];

/// A sender and a receiver for each cell: no cell can disturb the next one's endpoints,
/// which the relay lets move only every 30 s.
pub struct Nodes([[Node; 2]; CELLS.len()]);

impl Nodes {
    /// Nodes with new keys; the ids are always the same.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let node = |offset| {
            Node::generate(NodeId::new(FIRST_ID + offset).expect("FIRST_ID is not near zero"))
        };
        let pair = |offset| Ok([node(offset)?, node(offset + 1)?]);
        Ok(Self([
            pair(0)?,
            pair(2)?,
            pair(4)?,
            pair(6)?,
            pair(8)?,
            pair(10)?,
            pair(12)?,
            pair(14)?,
        ]))
    }

    /// All of them, for the relay's directory.
    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.0.iter().flatten()
    }
}

/// What came of one cell, or of one use of the message bus.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which it is.
    pub cell: String,
    /// Packets of the file that were sent, repetitions included.
    pub packets: u64,
    /// Bytes of the file.
    pub bytes: usize,
    /// Those of the packets that were not acknowledged in time.
    pub lost: u64,
    /// Times from sending to arrival, sorted.
    pub latencies: Vec<Duration>,
    /// What went wrong, if anything did.
    pub verdict: Result<(), String>,
}

impl Row {
    /// The header of the table.
    pub const HEADER: &str = "cell      packets       bytes   loss %    p50 ms    p99 ms  verdict";

    /// Share of the packets that were lost, in percent.
    #[must_use]
    pub fn loss(&self) -> f64 {
        if self.packets == 0 { 0.0 } else { 100.0 * self.lost as f64 / self.packets as f64 }
    }

    /// The time within which `percent` of the packets arrived; `None` if none did.
    #[must_use]
    pub fn latency(&self, percent: usize) -> Option<Duration> {
        let rank = (self.latencies.len() * percent).div_ceil(100);
        self.latencies.get(rank.checked_sub(1)?).copied()
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = |percent| match self.latency(percent) {
            Some(latency) => format!("{:.2}", latency.as_secs_f64() * 1e3),
            None => "-".to_owned(),
        };
        let Self { cell, packets, bytes, verdict, .. } = self;
        let loss = self.loss();
        let (p50, p99) = (latency(50), latency(99));
        let verdict = verdict.as_ref().err().map_or("ok", String::as_str);
        write!(f, "{cell:<9}{packets:>8}{bytes:>12}{loss:>9.2}{p50:>10}{p99:>10}  {verdict}")
    }
}

/// Carries `file` in each cell in turn that the relay has; reports each row when it is done. A cell
/// that takes longer than `deadline` has failed.
pub async fn carry(
    relay: &Addresses,
    nodes: &Nodes,
    file: &[u8],
    deadline: Duration,
    mut report: impl FnMut(Row),
) {
    for (transfer, (cell, [sender, receiver])) in (1..).zip(CELLS.into_iter().zip(&nodes.0)) {
        if cell.from.is_netbird() && relay.netbird.is_none() {
            continue;
        }
        let from = Peer::connect(cell.from, relay, sender, receiver.id);
        let to = Peer::connect(cell.to, relay, receiver, sender.id);
        let mut run = Run::new(transfer, file);
        let carried = async {
            let (from, to) = tokio::try_join!(from, to)?;
            run.carry(from, sender.id, to, receiver.id).await
        };
        let ended = timeout(deadline, carried).await;
        report(run.into_row(cell, ended.unwrap_or_else(|_| Ok(Ended::Late(deadline)))));
    }
}

/// How a cell's time ended.
enum Ended {
    Acknowledged,
    Late(Duration),
}

/// One transfer from one node to another.
struct Run<'a> {
    file: &'a [u8],
    clock: Instant,
    outbound: Outbound<'a>,
    inbound: Inbound,
}

impl<'a> Run<'a> {
    fn new(transfer: u32, file: &'a [u8]) -> Self {
        let outbound = Outbound::new(transfer, file);
        let inbound = Inbound::new(transfer, file.len());
        Self { file, clock: Instant::now(), outbound, inbound }
    }

    async fn carry(
        &mut self,
        mut from: Peer,
        sender: NodeId,
        mut to: Peer,
        receiver: NodeId,
    ) -> anyhow::Result<Ended> {
        let sending = send(&mut from, receiver, &mut self.outbound, self.clock);
        let receiving = receive(&mut to, sender, &mut self.inbound, self.clock);
        tokio::select! {
            sent = sending => sent.context("the sender")?,
            failed = receiving => match failed.context("the receiver")? {},
        }
        tokio::try_join!(from.leave(), to.leave()).context("leaving")?;
        Ok(Ended::Acknowledged)
    }

    fn into_row(self, cell: Cell, ended: anyhow::Result<Ended>) -> Row {
        let Self { file, outbound, inbound, .. } = self;
        let (packets, lost) = (outbound.sent(), outbound.lost());
        let (done, all) = (outbound.acknowledged(), outbound.packets());
        let (copy, mut latencies) = inbound.into_parts();
        latencies.sort_unstable();
        let arrived = latencies.len();
        let verdict = ended.and_then(|ended| {
            if let Ended::Late(limit) = ended {
                anyhow::bail!(
                    "{arrived} of {all} packets arrived and {done} were acknowledged in {limit:?}"
                );
            }
            ensure!(Sha256::digest(&copy) == Sha256::digest(file), "the copy's SHA-256 differs");
            Ok(())
        });
        let verdict = verdict.map_err(|error| format!("{error:#}"));
        let cell = cell.to_string();
        Row { cell, packets, bytes: file.len(), lost, latencies, verdict }
    }
}

/// Sends the file until all of it is acknowledged.
async fn send(
    peer: &mut Peer,
    dest: NodeId,
    outbound: &mut Outbound<'_>,
    clock: Instant,
) -> anyhow::Result<()> {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut payload = Vec::new();
    while !outbound.done() {
        tokio::select! {
            delivery = peer.recv() => {
                let delivery = delivery?;
                if delivery.sender == dest {
                    outbound.acknowledge(&delivery.payload);
                }
            }
            _ = tick.tick() => {
                while outbound.poll_send(clock.elapsed(), &mut payload) {
                    peer.send_to(dest, &payload).await?;
                }
            }
        }
    }
    Ok(())
}

/// Takes and acknowledges packets until it is dropped.
async fn receive(
    peer: &mut Peer,
    sender: NodeId,
    inbound: &mut Inbound,
    clock: Instant,
) -> anyhow::Result<Infallible> {
    loop {
        let delivery = peer.recv().await?;
        if delivery.sender == sender
            && let Some(ack) = inbound.receive(&delivery.payload, clock.elapsed())
        {
            peer.send_to(sender, &ack).await?;
        }
    }
}
