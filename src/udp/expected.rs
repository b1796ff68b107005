//! The canaries whose datagrams may come: the receiving threads answer them, past the sink.
//!
//! A datagram is a canary's if it comes from the canary's address and is one of its packets:
//! the address is one of this machine, so that nobody else can have it, and each packet holds a
//! secret that is new for each attempt. No table, limit or count learns of it.
//!
//! A thread that is behind may come to a datagram when nobody waits for its answer any more: it
//! is still known for [`REMEMBERED`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use crate::net::udp::{Datagram, Datagrams, Received, Run};

/// How long a canary's datagrams are known, unless all of them were answered before.
const REMEMBERED: Duration = Duration::from_secs(10);

/// Most canaries that are known at a time: two a second are sent at most.
const MOST: usize = 24;

/// A packet, and the answer that a client gets to it.
#[derive(Debug)]
pub struct Exchange {
    /// What the client sends.
    pub packet: Vec<u8>,
    /// What comes back.
    pub answer: Vec<u8>,
}

/// One attempt of a canary.
#[derive(Debug)]
pub(super) struct Caller {
    /// Where its datagrams come from.
    pub(super) address: SocketAddr,
    /// All of them.
    pub(super) exchanges: Vec<Exchange>,
}

#[derive(Clone, Debug)]
struct Expected {
    caller: Arc<Caller>,
    until: Instant,
}

/// The canaries that are expected: none most of the time.
#[derive(Debug, Default)]
pub(super) struct Canaries(ArcSwap<Vec<Expected>>);

impl Canaries {
    /// Expects this canary from the next batch on.
    pub(super) fn expect(&self, caller: &Arc<Caller>, now: Instant) {
        self.change(now, |known| {
            if known.len() >= MOST {
                known.remove(0);
            }
            known.push(Expected { caller: Arc::clone(caller), until: now + REMEMBERED });
        });
    }

    /// Expects nothing more of this canary: all its datagrams were answered.
    pub(super) fn dismiss(&self, caller: &Arc<Caller>, now: Instant) {
        self.change(now, |known| known.retain(|one| !Arc::ptr_eq(&one.caller, caller)));
    }

    fn change(&self, now: Instant, change: impl Fn(&mut Vec<Expected>)) {
        self.0.rcu(|known| {
            let mut known: Vec<_> = known.iter().filter(|one| now < one.until).cloned().collect();
            change(&mut known);
            known
        });
    }

    /// Answers the datagrams of canaries on the socket that they came to, and takes them out of
    /// the batch.
    pub(super) fn answer(&self, socket: &dyn Datagrams, batch: &mut Received, now: Instant) {
        let known = self.0.load();
        if known.is_empty() {
            return;
        }
        for (datagram, packet) in batch.iter() {
            if let Some(answer) = answer_to(&known, datagram, packet, now) {
                let segment = answer.len();
                let run = Run { to: datagram.from, from: datagram.to, bytes: answer, segment };
                // What the kernel does not take is missed by whoever waits for it.
                socket.send(std::slice::from_ref(&run), &mut |_, _, _| {});
            }
        }
        batch.retain(|datagram, packet| answer_to(&known, datagram, packet, now).is_none());
    }
}

/// What a datagram is answered, if it is one of a canary.
fn answer_to<'a>(
    known: &'a [Expected],
    datagram: &Datagram,
    packet: &[u8],
    now: Instant,
) -> Option<&'a [u8]> {
    let callers = known.iter().filter(|one| now < one.until).map(|one| &one.caller);
    let of_sender = callers.filter(|caller| caller.address == datagram.from);
    let mut exchanges = of_sender.flat_map(|caller| &caller.exchanges);
    exchanges.find(|exchange| exchange.packet == packet).map(|exchange| &*exchange.answer)
}

#[cfg(test)]
mod tests {
    use std::io;

    use parking_lot::Mutex;

    use super::*;
    use crate::net::udp::SendError;

    /// A socket that keeps what is sent.
    #[derive(Debug, Default)]
    struct Wire(Mutex<Vec<(SocketAddr, Vec<u8>)>>);

    impl Datagrams for Wire {
        fn receive(&self, _: &mut Received) -> io::Result<()> {
            Ok(())
        }

        fn send(&self, runs: &[Run<'_>], _: &mut dyn FnMut(usize, usize, Result<(), SendError>)) {
            self.0.lock().extend(runs.iter().map(|run| (run.to, run.bytes.to_vec())));
        }

        fn address(&self) -> SocketAddr {
            at(1)
        }
    }

    fn at(host: u8) -> SocketAddr {
        SocketAddr::from(([198, 51, 100, host], 4_000))
    }

    fn caller(host: u8) -> Arc<Caller> {
        let exchange = |packet: &[u8], answer: &[u8]| Exchange {
            packet: packet.to_vec(),
            answer: answer.to_vec(),
        };
        let exchanges = vec![exchange(b"question", b"answer"), exchange(b"there", b"back")];
        Arc::new(Caller { address: at(host), exchanges })
    }

    #[test]
    fn canary_is_answered_and_nobody_else_and_the_sink_sees_nothing_of_it() {
        let (canaries, wire, now) = (Canaries::default(), Wire::default(), Instant::now());
        canaries.expect(&caller(1), now);
        let came: [(SocketAddr, &[u8]); 5] = [
            (at(1), b"question"),
            (at(2), b"question"),
            (at(1), b"else"),
            (at(1), b"there"),
            (at(3), b"there"),
        ];
        let mut batch = Received::of(&came);

        canaries.answer(&wire, &mut batch, now);

        assert_eq!(*wire.0.lock(), [(at(1), b"answer".to_vec()), (at(1), b"back".to_vec())]);
        let left: Vec<_> = batch.iter().map(|(datagram, packet)| (datagram.from, packet)).collect();
        assert_eq!(left, [came[1], came[2], came[4]]);
    }

    #[test]
    fn canary_that_is_late_is_answered_for_ten_seconds() {
        let (canaries, t0) = (Canaries::default(), Instant::now());
        canaries.expect(&caller(1), t0);
        // That one was given up, and others were sent since.
        (2..20).for_each(|host| canaries.expect(&caller(host), t0 + Duration::from_secs(1)));

        for (late, answers) in [(REMEMBERED - Duration::from_secs(1), 1), (REMEMBERED, 0)] {
            let (wire, mut batch) = (Wire::default(), Received::of(&[(at(1), b"there")]));
            canaries.answer(&wire, &mut batch, t0 + late);
            assert_eq!(wire.0.lock().len(), answers, "{late:?}");
            assert_eq!(batch.iter().count(), 1 - answers, "{late:?}");
        }
    }

    #[test]
    fn canaries_that_are_known_are_few() {
        let (canaries, t0) = (Canaries::default(), Instant::now());
        let first = caller(1);
        canaries.expect(&first, t0);
        let known = || canaries.0.load().len();
        canaries.dismiss(&first, t0);
        assert_eq!(known(), 0, "it was answered");

        (0..100).for_each(|host| canaries.expect(&caller(host), t0));
        assert_eq!(known(), 24);

        canaries.expect(&first, t0 + REMEMBERED);
        assert_eq!(known(), 1, "the others are too old");
    }
}
