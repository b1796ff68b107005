//! The UDP door: one socket and one thread a core, run to completion.
//!
//! Each thread receives a batch, has it routed, and sends what came of it, on the same
//! socket. The kernel spreads the flows over the sockets, and keeps each on one.

mod canary;

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use prometheus::proto::MetricFamily;
use tracing::{error, warn};

use socket2::{Domain, Type};

use crate::metrics::{Counter, family};
use crate::net::bind::{FreeBind, bind};
use crate::net::udp::{self, BUFFER_SIZE, Datagrams, Received};
use crate::relay::{Relay, Worker};

pub use canary::{Canary, CanaryError, Sockets};

/// Wait after the kernel refused to receive at all.
const ERROR_BACKOFF: Duration = Duration::from_millis(50);

/// How often it is looked whether a thread has ended.
const FAILURE_LOOK: Duration = Duration::from_secs(1);

#[cfg(target_os = "linux")]
type Socket = udp::BatchSocket;
#[cfg(not(target_os = "linux"))]
type Socket = udp::PortableSocket;

/// Opens `count` sockets on one address, which may come later where that is allowed; port 0
/// takes a free one for all of them.
///
/// # Errors
/// What the kernel says; `AddrInUse` also where only another program's sockets would share
/// the port with ours, and take a part of its packets.
pub fn open(
    address: SocketAddr,
    count: usize,
    free: FreeBind,
) -> io::Result<Vec<Arc<dyn Datagrams>>> {
    // A socket that shares its port binds beside any other that does; one that does not,
    // only where nobody is.
    let alone = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
    bind(&alone, address, free)?;
    let address = alone.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
    drop(alone);
    let opened: io::Result<Vec<_>> =
        (0..count.max(1)).map(|_| udp::open_at(address, free)).collect();
    receiving(opened?)
}

/// Takes over inherited sockets, which share one address.
///
/// # Errors
/// What the kernel says.
pub fn adopt(sockets: Vec<socket2::Socket>) -> io::Result<Vec<Arc<dyn Datagrams>>> {
    sockets.iter().try_for_each(udp::prepare)?;
    receiving(sockets)
}

fn receiving(sockets: Vec<socket2::Socket>) -> io::Result<Vec<Arc<dyn Datagrams>>> {
    if let Some(first) = sockets.first() {
        warn_of_small_buffers(first)?;
    }
    let each = sockets
        .into_iter()
        .map(|socket| -> io::Result<Arc<dyn Datagrams>> { Ok(Arc::new(Socket::new(socket)?)) });
    each.collect()
}

fn warn_of_small_buffers(socket: &socket2::Socket) -> io::Result<()> {
    let (receive, send) = udp::buffer_sizes(socket)?;
    for (given, setting) in [(receive, "net.core.rmem_max"), (send, "net.core.wmem_max")] {
        if given < BUFFER_SIZE {
            warn!(
                bytes = given,
                wanted = BUFFER_SIZE,
                "the kernel gives UDP sockets small buffers, which drop bursts; \
                 set: sysctl -w {setting}={BUFFER_SIZE}"
            );
        }
    }
    Ok(())
}

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
    stop: Arc<AtomicBool>,
    turns: Turns,
    counters: Arc<Counters>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Counters {
    receive_errors: Counter,
    panics: Counter,
}

impl Threads {
    /// Starts a thread for each of the relay's sockets.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(relay: &Arc<Relay>) -> io::Result<Self> {
        let (stop, counters) = (Arc::<AtomicBool>::default(), Arc::<Counters>::default());
        let turns = Turns(relay.workers().map(|_| AtomicU64::new(0)).collect());
        let mut started = Self { stop, turns, counters, threads: Vec::new() };
        for (number, worker) in relay.workers().enumerate() {
            let (relay, stop) = (Arc::clone(relay), Arc::clone(&started.stop));
            let turns = started.turns.clone();
            let counters = Arc::clone(&started.counters);
            let thread = thread::Builder::new().name(format!("udp-{number}"));
            started.threads.push(thread.spawn(move || {
                let turns = turns.0.get(number).expect("there is one for each thread");
                receive(&relay, worker, &stop, turns, &counters);
            })?);
        }
        Ok(started)
    }

    /// How often each thread has looked for datagrams.
    #[must_use]
    pub const fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Appends the door's families to a scrape.
    pub fn exporter(&self) -> impl Fn(&mut Vec<MetricFamily>) + use<> {
        let counters = Arc::clone(&self.counters);
        move |families| {
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
        }
    }

    /// Waits until a thread has ended without being told to: a failure of ours.
    pub async fn failed(&self) {
        while !self.threads.iter().any(JoinHandle::is_finished) {
            tokio::time::sleep(FAILURE_LOOK).await;
        }
    }

    /// Stops the threads and waits for them: 100 ms at most, the time of a receive.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
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

fn receive(
    relay: &Relay,
    mut worker: Worker,
    stop: &AtomicBool,
    turns: &AtomicU64,
    counters: &Counters,
) {
    let mut received = Received::new();
    let mut fails = false;
    while !stop.load(Ordering::Relaxed) {
        turns.fetch_add(1, Ordering::Relaxed);
        // A packet that brings us down once must not end the thread, or its flows would be
        // lost with it.
        let batch = AssertUnwindSafe(|| relay.receive(&mut worker, &mut received));
        match catch_unwind(batch) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn thread_that_has_ended_is_noticed() {
        let (stop, counters) = (Arc::<AtomicBool>::default(), Arc::<Counters>::default());
        let threads = vec![thread::spawn(thread::park), thread::spawn(|| {})];
        let threads = Threads { stop, turns: Turns(Arc::new([])), counters, threads };

        threads.failed().await;

        threads.threads[0].thread().unpark();
    }

    #[test]
    fn port_of_another_program_is_not_shared() {
        let other = udp::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = other.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(open(address, 2, FreeBind::Off).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn all_sockets_have_the_same_port() {
        let sockets = open("127.0.0.1:0".parse().unwrap(), 3, FreeBind::Off).unwrap();
        let ports: Vec<_> = sockets.iter().map(|socket| socket.address().port()).collect();
        assert_ne!(ports[0], 0);
        assert_eq!(ports, vec![ports[0]; 3]);
    }
}
