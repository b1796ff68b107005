//! The receiving threads.

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;
use tracing::{error, warn};

use super::expected::Canaries;
use super::sink::DatagramSink;
use crate::metrics::{Counter, family};
use crate::net::udp::{Datagrams, Received};

/// Wait after the kernel refused to receive at all.
const ERROR_BACKOFF: Duration = Duration::from_millis(50);

/// How often it is looked whether a thread has ended.
const FAILURE_LOOK: Duration = Duration::from_secs(1);

/// How often each thread has looked for datagrams: ten times a second at least, while it lives.
#[derive(Clone, Debug)]
pub struct Turns(Arc<[AtomicU64]>);

impl Turns {
    /// The numbers at this moment.
    #[must_use]
    pub fn now(&self) -> Vec<u64> {
        self.0.iter().map(|turns| turns.load(Ordering::Relaxed)).collect()
    }
}

/// The receiving threads; dropping them stops them.
#[derive(Debug)]
pub struct Threads {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    turns: Turns,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the threads share with who watches them.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) canaries: Canaries,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    receive_errors: Counter,
    panics: Counter,
    kernel_dropped: Counter,
}

impl Shared {
    /// Datagrams that the kernel dropped so far before a thread read them.
    pub(super) fn kernel_dropped(&self) -> u64 {
        self.counters.kernel_dropped.value()
    }
}

impl Threads {
    /// Starts a thread for each socket, of which there is at least one, all at one address.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start<S: DatagramSink>(
        sockets: &[Arc<dyn Datagrams>],
        sink: &Arc<S>,
    ) -> io::Result<Self> {
        let address = sockets.first().ok_or(io::ErrorKind::InvalidInput)?.address();
        let turns = Turns(sockets.iter().map(|_| AtomicU64::new(0)).collect());
        let started = Self {
            address,
            stop: Arc::default(),
            turns,
            shared: Arc::default(),
            threads: Mutex::default(),
        };
        for (number, socket) in sockets.iter().enumerate() {
            let receiver = Receiver {
                socket: Arc::clone(socket),
                worker: sink.worker(sockets.len()),
                sink: Arc::clone(sink),
                shared: Arc::clone(&started.shared),
                kernel_dropped: 0,
            };
            let stop = Arc::clone(&started.stop);
            let turns = started.turns.clone();
            let thread = thread::Builder::new().name(format!("udp-{number}"));
            let thread = thread.spawn(move || {
                let turns = turns.0.get(number).expect("there is one for each thread");
                receiver.run(&stop, turns);
            })?;
            started.threads.lock().push(thread);
        }
        Ok(started)
    }

    /// Where the sockets are bound.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// How often each thread has looked for datagrams.
    #[must_use]
    pub const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Appends the families of this way in to a scrape.
    pub fn exporter(&self) -> impl Fn(&mut Vec<MetricFamily>) + use<> {
        let shared = Arc::clone(&self.shared);
        move |families| {
            let counters = &shared.counters;
            families.push(family::counter(
                "pilot_beacon_udp_receive_errors_total",
                "Times that the kernel refused to receive.",
                &counters.receive_errors,
            ));
            families.push(family::counter(
                "pilot_beacon_udp_panics_total",
                "Panics that ended the handling of one batch.",
                &counters.panics,
            ));
            families.push(family::counter(
                "pilot_beacon_udp_kernel_dropped_total",
                "Datagrams that the kernel dropped before the relay read them.",
                &counters.kernel_dropped,
            ));
        }
    }

    /// Tells how many datagrams the kernel has dropped before they were read, and how many batches
    /// a panic has ended.
    pub fn losses(&self) -> impl Fn() -> (u64, u64) + use<> {
        let shared = Arc::clone(&self.shared);
        move || (shared.kernel_dropped(), shared.counters.panics.value())
    }

    /// Waits until a thread has ended without being told to: a failure of ours.
    pub async fn failed(&self) {
        while !self.threads.lock().iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(FAILURE_LOOK).await;
        }
    }

    /// Stops the threads and waits for them: 100 ms at most, the time of a receive.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            // A panic that ended a thread was printed when it happened.
            let _panicked: Result<(), Box<dyn Any + Send>> = thread.join();
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What one thread owns.
struct Receiver<S: DatagramSink> {
    socket: Arc<dyn Datagrams>,
    sink: Arc<S>,
    worker: S::Worker,
    shared: Arc<Shared>,
    /// The kernel's count of what it dropped, as it was last seen.
    kernel_dropped: u32,
}

impl<S: DatagramSink> Receiver<S> {
    fn run(mut self, stop: &AtomicBool, turns: &AtomicU64) {
        let mut received = Received::new();
        let mut fails = false;
        while !stop.load(Ordering::Relaxed) {
            turns.fetch_add(1, Ordering::Relaxed);
            // A packet that brings us down once must not end the thread, or its flows would be
            // lost with it.
            let turn = catch_unwind(AssertUnwindSafe(|| self.turn(&mut received)));
            let counters = &self.shared.counters;
            match turn {
                Ok(Ok(())) => fails = false,
                Ok(Err(error)) => {
                    counters.receive_errors.increment();
                    if !std::mem::replace(&mut fails, true) {
                        warn!(%error, "cannot receive on a UDP socket");
                    }
                    thread::sleep(ERROR_BACKOFF);
                }
                Err(_) => {
                    counters.panics.increment();
                    error!("the handling of a UDP batch panicked: this is a bug of the relay");
                }
            }
        }
    }

    /// Receives one batch, waiting 100 ms at most for it, and hands it to the sink.
    fn turn(&mut self, received: &mut Received) -> io::Result<()> {
        self.socket.receive(received)?;
        let now = Instant::now();
        let dropped = received.kernel_dropped.wrapping_sub(self.kernel_dropped);
        if dropped > 0 {
            self.kernel_dropped = received.kernel_dropped;
            self.shared.counters.kernel_dropped.add(dropped.into());
        }
        self.shared.canaries.answer(&*self.socket, received, now);
        self.sink.datagrams(&mut self.worker, &*self.socket, received, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::net::bind::FreeBind;
    use crate::net::udp::Run;
    use crate::udp::{Canary, Exchange, Sockets, open};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// Sends everything back with the number that it has on its thread; but `bug` is one.
    struct Echo;

    impl DatagramSink for Echo {
        type Worker = u8;

        fn worker(&self, _: usize) -> u8 {
            0
        }

        fn datagrams(&self, worker: &mut u8, socket: &dyn Datagrams, batch: &Received, _: Instant) {
            for (datagram, packet) in batch.iter() {
                assert_ne!(packet, b"bug");
                *worker += 1;
                let bytes = &[packet, &[*worker]].concat();
                let run = Run { to: datagram.from, from: datagram.to, bytes, segment: bytes.len() };
                socket.send(&[run], &mut |_, _, _| {});
            }
        }
    }

    fn echo() -> Threads {
        let sockets = open("127.0.0.1:0".parse().unwrap(), 1, FreeBind::Off).unwrap();
        Threads::start(&sockets, &Arc::new(Echo)).unwrap()
    }

    #[test]
    fn sink_keeps_what_it_has_for_a_thread_when_a_batch_panics() {
        let threads = echo();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let ask = |packet: &[u8]| {
            client.send_to(packet, threads.address()).unwrap();
            let mut buffer = [0; 16];
            let length = client.recv(&mut buffer).unwrap();
            buffer[..length].to_vec()
        };

        assert_eq!(ask(b"a"), b"a\x01");
        client.send_to(b"bug", threads.address()).unwrap();
        // What came with it would be lost with it.
        while threads.shared.counters.panics.value() == 0 {
            thread::yield_now();
        }
        assert_eq!(ask(b"b"), b"b\x02");
    }

    #[tokio::test]
    async fn canary_comes_back_whatever_the_sink_speaks() {
        let threads = echo();
        let canary = Canary::new(&threads, Sockets::Opened, |_, secret| {
            let says = |text: &[u8]| Exchange { packet: secret.to_vec(), answer: text.to_vec() };
            vec![says(b"hello")]
        });

        canary.there_and_back(PATIENCE).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn thread_that_has_ended_is_noticed() {
        let threads = Threads {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            stop: Arc::default(),
            turns: Turns(Arc::new([])),
            shared: Arc::default(),
            threads: Mutex::new(vec![thread::spawn(thread::park), thread::spawn(|| {})]),
        };

        threads.failed().await;

        threads.threads.lock()[0].thread().unpark();
    }
}
