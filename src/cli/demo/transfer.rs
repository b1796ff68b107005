//! A small file transfer that runs inside payloads: numbered packets, one acknowledgement
//! for each, a sliding window, retransmission after a timeout.
//!
//! Sans-IO: [`Outbound`] says what to send, [`Inbound`] what to answer; `now` is the time
//! since a start that both sides share, since both run in this process.

use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of the file in one packet, as daemons' packets of about 1,250 bytes.
const CHUNK: usize = 1_200;

/// Packets a second from one sender, below the relay's default limit of 4,000.
const RATE: u32 = 3_000;

/// Packets that may leave at once after a pause; a UDP receive buffer of the size that
/// Linux gives by default holds about 90.
const BURST: u32 = 32;

/// Packets between the oldest unacknowledged one and the newest: half a second's worth.
const WINDOW: usize = 1_500;

/// Time without an acknowledgement after which a packet counts as lost.
///
/// Far above the latency of a healthy relay, so that a busy machine does not look like loss.
const RETRANSMIT: Duration = Duration::from_millis(500);

/// Kind of a packet of the file: transfer u32, number u32, time of sending u64, then its bytes.
const DATA: u8 = 1;

/// Kind of an acknowledgement: transfer u32, number u32.
const ACK: u8 = 2;

/// The sending side of one transfer.
pub(super) struct Outbound<'a> {
    transfer: u32,
    file: &'a [u8],
    /// Number of the oldest packet that is not acknowledged.
    first: usize,
    /// Whether each packet from `first` to the newest is acknowledged.
    window: VecDeque<bool>,
    /// When each packet that was sent counts as lost, in the order of sending.
    timers: VecDeque<(Duration, usize)>,
    next_send: Duration,
    sent: u64,
    lost: u64,
}

impl<'a> Outbound<'a> {
    /// A transfer of `file`; its number keeps it apart from others between the same nodes.
    pub(super) fn new(transfer: u32, file: &'a [u8]) -> Self {
        let (window, timers) = (VecDeque::new(), VecDeque::new());
        Self {
            transfer,
            file,
            first: 0,
            window,
            timers,
            next_send: Duration::ZERO,
            sent: 0,
            lost: 0,
        }
    }

    /// The payload to send at `now`, written to `out`; false if there is none yet.
    pub(super) fn poll_send(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        if now < self.next_send {
            return false;
        }
        let Some((number, lost)) = self.due(now) else { return false };
        let chunk = self.chunk(number);
        out.clear();
        out.push(DATA);
        out.extend_from_slice(&self.transfer.to_be_bytes());
        out.extend_from_slice(&wire_number(number).to_be_bytes());
        out.extend_from_slice(&nanoseconds(now).to_be_bytes());
        out.extend_from_slice(chunk);

        self.sent += 1;
        self.lost += u64::from(lost);
        let gap = Duration::from_secs(1) / RATE;
        self.next_send = self.next_send.max(now.saturating_sub(gap * BURST)) + gap;
        true
    }

    /// The number of the packet to send, and whether it was lost before.
    fn due(&mut self, now: Duration) -> Option<(usize, bool)> {
        // Lost packets go first: the window cannot move on without its oldest.
        let lost = self.next_lost(now);
        let next = self.first + self.window.len();
        let number = match lost {
            Some(number) => number,
            None if next == self.packets() || self.window.len() == WINDOW => return None,
            None => {
                self.window.push_back(false);
                next
            }
        };
        self.timers.push_back((now + RETRANSMIT, number));
        Some((number, lost.is_some()))
    }

    fn next_lost(&mut self, now: Duration) -> Option<usize> {
        while let Some((_, number)) = self.timers.pop_front_if(|(due, _)| *due <= now) {
            let offset = number.checked_sub(self.first);
            if offset.and_then(|offset| self.window.get(offset)) == Some(&false) {
                return Some(number);
            }
        }
        None
    }

    /// Takes a payload that came back.
    pub(super) fn acknowledge(&mut self, payload: &[u8]) {
        let Some(Payload::Ack { transfer, number }) = Payload::decode(payload) else { return };
        if transfer != self.transfer {
            return;
        }
        let offset = (number as usize).checked_sub(self.first);
        if let Some(packet) = offset.and_then(|offset| self.window.get_mut(offset)) {
            *packet = true;
        }
        while self.window.front() == Some(&true) {
            self.window.pop_front();
            self.first += 1;
        }
    }

    /// Whether all packets are acknowledged.
    pub(super) fn done(&self) -> bool {
        self.first == self.packets()
    }

    /// Packets that were sent, repetitions included.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// Those of them that were not acknowledged in time.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// Packets that the file takes.
    pub(super) fn packets(&self) -> usize {
        packets(self.file.len())
    }

    /// Packets acknowledged without a gap.
    pub(super) fn acknowledged(&self) -> usize {
        self.first
    }

    fn chunk(&self, number: usize) -> &'a [u8] {
        let rest = self.file.get(number * CHUNK..).unwrap_or_default();
        rest.get(..CHUNK).unwrap_or(rest)
    }
}

/// The receiving side of one transfer.
pub(super) struct Inbound {
    transfer: u32,
    file: Vec<u8>,
    arrived: Vec<bool>,
    latencies: Vec<Duration>,
}

impl Inbound {
    /// A transfer of `bytes` bytes.
    pub(super) fn new(transfer: u32, bytes: usize) -> Self {
        let packets = packets(bytes);
        let latencies = Vec::with_capacity(packets);
        Self { transfer, file: vec![0; bytes], arrived: vec![false; packets], latencies }
    }

    /// Takes a payload that arrived at `now`; the acknowledgement to send back, if it is ours.
    pub(super) fn receive(&mut self, payload: &[u8], now: Duration) -> Option<[u8; 9]> {
        let Payload::Data { transfer, number, sent, chunk } = Payload::decode(payload)? else {
            return None;
        };
        let index = number as usize;
        let arrived = self.arrived.get_mut(index).filter(|_| transfer == self.transfer)?;
        if !*arrived {
            let rest = self.file.get_mut(index * CHUNK..)?;
            let length = rest.len().min(CHUNK);
            let place = rest.get_mut(..length).filter(|place| place.len() == chunk.len())?;
            place.copy_from_slice(chunk);
            *arrived = true;
            self.latencies.push(now.saturating_sub(sent));
        }
        // The acknowledgement of a repeated packet may have been what was lost.
        Some(encode_ack(transfer, number))
    }

    /// The file so far, and how long each packet took from its last sending, unsorted.
    pub(super) fn into_parts(self) -> (Vec<u8>, Vec<Duration>) {
        (self.file, self.latencies)
    }
}

enum Payload<'a> {
    Data { transfer: u32, number: u32, sent: Duration, chunk: &'a [u8] },
    Ack { transfer: u32, number: u32 },
}

impl<'a> Payload<'a> {
    fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (transfer, rest) = rest.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (transfer, number) = (u32::from_be_bytes(*transfer), u32::from_be_bytes(*number));
        match kind {
            DATA => {
                let (sent, chunk) = rest.split_first_chunk()?;
                let sent = Duration::from_nanos(u64::from_be_bytes(*sent));
                Some(Self::Data { transfer, number, sent, chunk })
            }
            ACK => Some(Self::Ack { transfer, number }),
            _ => None,
        }
    }
}

fn encode_ack(transfer: u32, number: u32) -> [u8; 9] {
    let [t0, t1, t2, t3] = transfer.to_be_bytes();
    let [n0, n1, n2, n3] = number.to_be_bytes();
    [ACK, t0, t1, t2, t3, n0, n1, n2, n3]
}

fn packets(bytes: usize) -> usize {
    bytes.div_ceil(CHUNK)
}

fn wire_number(number: usize) -> u32 {
    u32::try_from(number).expect("a file in memory has fewer than 2^32 packets")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Sends all that may be sent at `now`, as payloads.
    fn send(outbound: &mut Outbound<'_>, now: Duration) -> Vec<Vec<u8>> {
        let mut payload = Vec::new();
        std::iter::from_fn(|| outbound.poll_send(now, &mut payload).then(|| payload.clone()))
            .collect()
    }

    #[test]
    fn pace_is_below_the_relays_limit_also_after_a_pause() {
        let file = vec![7; 10_000 * CHUNK];
        let mut outbound = Outbound::new(1, &file);
        let start = Duration::from_secs(5);
        assert_eq!(send(&mut outbound, start).len(), BURST as usize + 1);
        let sent: usize = (1..=100).map(|ms| send(&mut outbound, start + ms * MS).len()).sum();
        assert!((299..=301).contains(&sent), "{sent} packets in 100 ms");
    }

    #[test]
    fn window_stops_until_its_oldest_packet_is_acknowledged() {
        let file = vec![7; 2 * WINDOW * CHUNK];
        let mut outbound = Outbound::new(1, &file);
        let mut now = Duration::ZERO;
        for _ in 0..2 * WINDOW {
            // Faster than retransmissions come due, slower than the pace.
            now += RETRANSMIT / 3_000;
            outbound.next_send = now;
            send(&mut outbound, now);
        }
        assert_eq!(outbound.sent(), WINDOW as u64);
        outbound.acknowledge(&encode_ack(1, 1));
        outbound.next_send = now;
        assert_eq!(send(&mut outbound, now).len(), 0);
        outbound.acknowledge(&encode_ack(1, 0));
        assert_eq!((outbound.acknowledged(), send(&mut outbound, now).len()), (2, 1));
    }

    #[test]
    fn packet_without_an_acknowledgement_is_sent_again_and_counts_as_lost() {
        let file = vec![7; 2 * CHUNK + 1];
        let mut outbound = Outbound::new(1, &file);
        let mut inbound = Inbound::new(1, file.len());
        let now = 2 * MS;
        for (number, payload) in send(&mut outbound, now).iter().enumerate() {
            let ack = inbound.receive(payload, now + MS).unwrap();
            if number != 1 {
                outbound.acknowledge(&ack);
            }
        }
        assert!(send(&mut outbound, now + RETRANSMIT - MS).is_empty());
        let again = send(&mut outbound, now + RETRANSMIT);
        assert_eq!(again.len(), 1);
        outbound.acknowledge(&inbound.receive(&again[0], now + RETRANSMIT).unwrap());
        assert!(outbound.done());
        assert_eq!((outbound.sent(), outbound.lost()), (4, 1));
        let (copy, latencies) = inbound.into_parts();
        assert_eq!((copy, latencies), (file, vec![MS; 3]));
    }

    #[test]
    fn what_belongs_to_another_transfer_is_ignored() {
        let file = vec![7; CHUNK];
        let mut outbound = Outbound::new(1, &file);
        let payload = send(&mut outbound, Duration::ZERO).remove(0);
        assert_eq!(Inbound::new(2, file.len()).receive(&payload, MS), None);
        assert_eq!(Inbound::new(1, 5).receive(&payload, MS), None);
        for stray in [&encode_ack(2, 0)[..], &encode_ack(1, 1), &[ACK], &[], &payload] {
            outbound.acknowledge(stray);
        }
        assert!(!outbound.done());
    }
}
