//! Messages in a closed loop: each pair has one in flight. A durable one its sender knows to be
//! durable, and its receiver has acknowledged, before the next is sent; a publication has arrived;
//! a request has its answer.
//!
//! One thread has all pairs, so that the load costs the same whatever is measured.

pub(crate) mod keyop;
pub(crate) mod middleman;
pub(crate) mod nats;
pub(crate) mod peerbus;
pub(crate) mod pending;
pub(crate) mod redis;

use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::closed_loop::median;
use crate::process::Usage;
use crate::readiness::Readiness;

/// Before the measurement, so that buffers and caches are as they will be.
const WARM_UP: Duration = Duration::from_millis(500);

/// What a server that lost a message is given before the measurement ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the load waits for its sockets before it looks at the clock.
const WAIT: Duration = Duration::from_millis(50);

/// What ends a flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exchange {
    /// The receiver has it, and the sender a receipt.
    Durable,
    /// The receiver has it.
    Publication,
    /// The sender has the receiver's answer.
    Request,
}

/// A sender and a receiver, over whatever a server speaks.
pub(crate) trait Pair {
    /// What they exchange.
    fn exchange(&self) -> Exchange {
        Exchange::Durable
    }

    /// The socket of the sender and that of the receiver.
    fn sockets(&self) -> [&TcpStream; 2];

    /// Sends the next message.
    ///
    /// # Errors
    /// The server has ended the connection.
    fn send(&mut self) -> anyhow::Result<()>;

    /// Reads once what the sender got: how many of its messages are durable.
    ///
    /// # Errors
    /// The server has ended the connection, or refuses a message.
    fn read_receipts(&mut self) -> anyhow::Result<u32>;

    /// Reads once what the receiver got and acknowledges it: how many messages.
    ///
    /// # Errors
    /// The server has ended the connection.
    fn read_deliveries(&mut self) -> anyhow::Result<u32>;
}

/// What is connected with a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) pairs: u32,
    /// Bytes of a message, without what the protocol adds.
    pub(crate) size: usize,
    pub(crate) time: Duration,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Messages acknowledged a second.
    pub(crate) per_second: f64,
    /// CPU time of the server for each, in microseconds.
    pub(crate) cpu_us_each: f64,
    /// From the send to the receiver, or to the answer, in microseconds.
    pub(crate) p50_us: f64,
    /// Context switches of the server for each.
    pub(crate) switches_each: f64,
    /// Anonymous resident memory of the server at the end, in MB.
    pub(crate) memory_mb: f64,
}

impl Figures {
    /// The median of each figure.
    pub(crate) fn median(runs: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| figure(median(runs, figure));
        Self {
            per_second: of(|figures| figures.per_second),
            cpu_us_each: of(|figures| figures.cpu_us_each),
            p50_us: of(|figures| figures.p50_us),
            switches_each: of(|figures| figures.switches_each),
            memory_mb: of(|figures| figures.memory_mb),
        }
    }
}

/// A message under way.
struct Flight {
    sent: Instant,
    has_receipt: bool,
    has_arrived: bool,
}

impl Flight {
    fn begin(pair: &dyn Pair) -> Self {
        let has_receipt = pair.exchange() == Exchange::Publication;
        Self { sent: Instant::now(), has_receipt, has_arrived: false }
    }
}

/// Has all pairs send, for `time` after the warm-up.
///
/// # Errors
/// A server that has ended, or that loses a message.
#[allow(clippy::cast_precision_loss)] // far below 2^53
pub(crate) fn run(
    pairs: &mut [Box<dyn Pair>],
    usage: impl Fn() -> anyhow::Result<Usage>,
    time: Duration,
) -> anyhow::Result<Figures> {
    let mut readiness = Readiness::new()?;
    let mut flights = Vec::new();
    for (number, pair) in pairs.iter_mut().enumerate() {
        for (side, socket) in pair.sockets().into_iter().enumerate() {
            readiness.add(socket, 2 * number + side)?;
        }
        flights.push(Flight::begin(&**pair));
        pair.send()?;
    }
    let mut measurement = None;
    let began = Instant::now();
    let mut heard = Instant::now();
    let mut samples: Vec<Duration> = Vec::new();
    loop {
        let numbers = readiness.wait(WAIT);
        let now = Instant::now();
        if !numbers.is_empty() {
            heard = now;
        }
        anyhow::ensure!(now - heard < PATIENCE, "a message is lost: the server says nothing");
        if measurement.is_none() && now - began >= WARM_UP {
            measurement = Some((now, usage()?));
            samples.clear();
        }
        if let Some((from, before)) = measurement
            && now - from >= time
        {
            let after = usage()?;
            let messages = samples.len().max(1) as f64;
            samples.sort_unstable();
            let p50 = samples.get(samples.len() / 2).copied().unwrap_or_default();
            return Ok(Figures {
                per_second: messages / (now - from).as_secs_f64(),
                cpu_us_each: (after.cpu - before.cpu).as_secs_f64() * 1e6 / messages,
                p50_us: p50.as_secs_f64() * 1e6,
                switches_each: after.switches.saturating_sub(before.switches) as f64 / messages,
                memory_mb: after.anonymous as f64 / 1e6,
            });
        }
        for number in numbers {
            let pair = pairs.get_mut(number / 2).expect("only pairs are waited for");
            let flight = flights.get_mut(number / 2).expect("each pair has one");
            let is_sender = number % 2 == 0;
            let read = if is_sender { pair.read_receipts()? } else { pair.read_deliveries()? };
            let seen = if is_sender { &mut flight.has_receipt } else { &mut flight.has_arrived };
            match read {
                0 => continue,
                1 if !*seen => *seen = true,
                _ => anyhow::bail!("a message came twice"),
            }
            if is_sender == (pair.exchange() == Exchange::Request) {
                samples.push(flight.sent.elapsed());
            }
            if flight.has_receipt && flight.has_arrived {
                *flight = Flight::begin(&**pair);
                pair.send()?;
            }
        }
    }
}

/// A connection and what it read of a message that is not whole.
pub(crate) struct Lines {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Lines {
    pub(crate) fn connect(server: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self::over(crate::peer::connect(server)?, &[]))
    }

    /// One that has read this already.
    pub(crate) fn over(stream: TcpStream, read: &[u8]) -> Self {
        let mut buffer = read.to_vec();
        buffer.resize(read.len() + 16_384, 0);
        Self { stream, buffer, filled: read.len() }
    }

    /// Reads once, unless something whole is there, and has `parse` take what is whole from the
    /// front: how many bytes that is.
    pub(crate) fn read(
        &mut self,
        mut parse: impl FnMut(&[u8]) -> anyhow::Result<usize>,
    ) -> anyhow::Result<()> {
        // What came with the answer to a login may be all that comes.
        if self.take(&mut parse)? > 0 {
            return Ok(());
        }
        let room = self.buffer.get_mut(self.filled..).unwrap_or_default();
        let read = self.stream.read(room)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        self.filled += read;
        self.take(&mut parse)?;
        Ok(())
    }

    /// Has `parse` take what is whole: how many bytes that were.
    fn take(
        &mut self,
        parse: &mut impl FnMut(&[u8]) -> anyhow::Result<usize>,
    ) -> anyhow::Result<usize> {
        let mut at = 0;
        loop {
            let taken = parse(self.buffer.get(at..self.filled).unwrap_or_default())?;
            if taken == 0 {
                break;
            }
            at += taken;
        }
        self.buffer.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(at)
    }
}

/// Where a text ends that begins a buffer and ends in CR LF, and without these.
pub(crate) fn line(bytes: &[u8]) -> Option<(&str, usize)> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let text = str::from_utf8(bytes.get(..end)?).ok()?;
    Some((text, end + 2))
}
