//! Numbered packets at a steady pace from one node to another, and what became of them.

use std::io::{ErrorKind, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::peer::Peer;

/// Time between two packets.
pub(crate) const PACE: Duration = Duration::from_millis(2);

/// Nothing more is on its way if nothing has come for so long.
const TAIL: Duration = Duration::from_millis(500);

/// Packets from one WSS node to another, while this lives.
pub(crate) struct Flow {
    sending: Until,
    sender: JoinHandle<Vec<Instant>>,
    listening: Until,
    received: Arc<Mutex<Vec<(u32, Instant)>>>,
    cut: Arc<AtomicBool>,
    listeners: Mutex<Vec<JoinHandle<()>>>,
}

/// Has a thread go on until this is dropped, also by a test that fails.
struct Until(Arc<AtomicBool>);

impl Drop for Until {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What became of the packets of a flow.
pub(crate) struct Report {
    /// When each packet left its sender.
    pub(crate) sent: Vec<Instant>,
    /// Which packets came, and when.
    pub(crate) received: Vec<(u32, Instant)>,
}

impl Flow {
    /// Begins to send from a peer, in its name, to `dest`, which is this other peer.
    pub(crate) fn start(mut from: Peer, sender: u32, dest: u32, to: Peer) -> Self {
        let go_on = Arc::new(AtomicBool::new(true));
        let sending = Until(Arc::clone(&go_on));
        let sender = thread::spawn(move || {
            let mut sent = Vec::new();
            while go_on.load(Ordering::Relaxed) {
                let number = u32::try_from(sent.len()).unwrap();
                sent.push(Instant::now());
                from.relay(sender, dest, &number.to_be_bytes());
                thread::sleep(PACE);
            }
            sent
        });
        let flow = Self {
            sending,
            sender,
            listening: Until(Arc::new(AtomicBool::new(true))),
            received: Arc::default(),
            cut: Arc::default(),
            listeners: Mutex::default(),
        };
        flow.listen(to);
        flow
    }

    /// Collects what another peer receives as well.
    pub(crate) fn listen(&self, peer: Peer) {
        let (listening, received) = (Arc::clone(&self.listening.0), Arc::clone(&self.received));
        let cut = Arc::clone(&self.cut);
        cut.store(false, Ordering::Relaxed);
        let listener = thread::spawn(move || {
            collect(peer, &listening, &received);
            cut.store(true, Ordering::Relaxed);
        });
        self.listeners.lock().push(listener);
    }

    /// How many packets have come so far.
    pub(crate) fn received(&self) -> usize {
        self.received.lock().len()
    }

    /// Whether a relay has ended the session of a listener.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Stops sending, waits for what is on its way, and reports.
    pub(crate) fn stop(self) -> Report {
        drop(self.sending);
        let sent = self.sender.join().unwrap();
        let (mut count, mut end) = (0, Instant::now() + TAIL);
        while count < sent.len() && Instant::now() < end {
            thread::sleep(PACE);
            let before = std::mem::replace(&mut count, self.received.lock().len());
            if count > before {
                end = Instant::now() + TAIL;
            }
        }
        drop(self.listening);
        for listener in self.listeners.into_inner() {
            listener.join().unwrap();
        }
        let received = std::mem::take(&mut *self.received.lock());
        Report { sent, received }
    }
}

impl Report {
    /// The numbers of the packets that never came.
    pub(crate) fn lost(&self) -> Vec<u32> {
        let mut came = vec![false; self.sent.len()];
        self.received.iter().for_each(|(number, _)| came[*number as usize] = true);
        (0..).zip(came).filter(|(_, came)| !came).map(|(number, _)| number).collect()
    }

    /// How many packets came more than once.
    pub(crate) fn doubled(&self) -> usize {
        self.received.len() + self.lost().len() - self.sent.len()
    }

    /// Whether the packets that came kept their order.
    pub(crate) fn is_in_order(&self) -> bool {
        self.received.is_sorted_by_key(|(number, _)| *number)
    }

    /// How long after `moment` the last packet was sent that was lost.
    pub(crate) fn recovered_after(&self, moment: Instant) -> Duration {
        self.recovered_between(moment, Instant::now())
    }

    /// The same of the packets that were sent before `until`.
    pub(crate) fn recovered_between(&self, moment: Instant, until: Instant) -> Duration {
        let lost = self.lost();
        let mut sent = lost.iter().map(|number| self.sent[*number as usize]);
        let last = sent.rfind(|sent| *sent < until);
        last.map_or(Duration::ZERO, |last| last.saturating_duration_since(moment))
    }
}

/// Reads deliveries until told to stop, or until the relay ends the session.
fn collect(peer: Peer, listening: &AtomicBool, received: &Mutex<Vec<(u32, Instant)>>) {
    let mut stream = peer.stream;
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16_384]);
    while listening.load(Ordering::Relaxed) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
        let now = Instant::now();
        // Short unmasked frames only: a head of two bytes, then a delivery of 5 + 4.
        while bytes.len() >= 2 && bytes.len() >= 2 + usize::from(bytes[1]) {
            let frame: Vec<u8> = bytes.drain(..2 + usize::from(bytes[1])).collect();
            if frame[0] == 0x82 && frame.len() == 11 {
                let number = u32::from_be_bytes(frame[7..].try_into().unwrap());
                received.lock().push((number, now));
            }
        }
    }
}
