//! Writes frames into a batch.

use super::packets::{add_packet, begin_packets};
use super::writer::{number, put, put_location, set_length};
use super::{About, Channel, ChannelWord, Frame, Name, Reading, Refusal, Sight, kind};

/// Appends a frame to a batch; [`Frame::Unknown`] is nothing to send, and appends nothing.
///
/// Packets of a flow are appended one by one, with [`begin_packets`] and [`add_packet`].
pub fn encode<I: Name>(frame: &Frame<'_, I>, batch: &mut Vec<u8>) {
    match *frame {
        Frame::Packets(packets) => {
            let at = begin_packets(&packets.run, batch);
            packets.iter().for_each(|packet| add_packet(at, packet, batch));
        }
        Frame::Nack { id, epoch } => put(kind::NACK, &id, batch, |body| number(epoch, body)),
        Frame::Claim(claim) => put(kind::CLAIM, &claim.id, batch, |body| {
            number(claim.epoch, body);
            number(claim.serial, body);
            body.extend(claim.nonce.to_be_bytes());
            body.extend([claim.ownership as u8, claim.takeover as u8]);
            number(claim.credential, body);
            body.extend(claim.age_ms.to_be_bytes());
        }),
        Frame::Granted { id, epoch, serial, nonce } => put(kind::GRANTED, &id, batch, |body| {
            number(epoch, body);
            number(serial, body);
            body.extend(nonce.to_be_bytes());
        }),
        Frame::Refused { id, nonce, refusal } => put(kind::REFUSED, &id, batch, |body| {
            body.extend(nonce.to_be_bytes());
            match refusal {
                Refusal::Held(location) => {
                    body.push(0);
                    put_location(&location, body);
                }
                Refusal::TooSoon => body.push(1),
                Refusal::EpochAhead => body.push(2),
                Refusal::Full => body.push(3),
            }
        }),
        Frame::Moved { id, location, ends } => put(kind::MOVED, &id, batch, |body| {
            put_location(&location, body);
            number(ends, body);
        }),
        Frame::Leave { id, serial } => put(kind::LEAVE, &id, batch, |body| number(serial, body)),
        Frame::Left { id, serial } => put(kind::LEFT, &id, batch, |body| number(serial, body)),
        Frame::Noted { id, serial } => put(kind::NOTED, &id, batch, |body| number(serial, body)),
        Frame::Gone { id, epoch } => put(kind::GONE, &id, batch, |body| number(epoch, body)),
        Frame::Find { id } => put(kind::FIND, &id, batch, |_| {}),
        Frame::Found { id, location, serial } => put(kind::FOUND, &id, batch, |body| {
            put_location(&location, body);
            number(serial, body);
        }),
        Frame::Missing { id } => put(kind::MISSING, &id, batch, |_| {}),
        Frame::Watch { id, nonce, is_on } => put(kind::WATCH, &id, batch, |body| {
            body.extend(nonce.to_be_bytes());
            body.push(u8::from(is_on));
        }),
        Frame::Locate { id, nonce, version, serial, sight } => {
            put(kind::LOCATE, &id, batch, |body| {
                body.extend(nonce.to_be_bytes());
                number(version, body);
                number(serial, body);
                match sight {
                    Sight::Unknown => body.push(0),
                    Sight::At(location) => {
                        body.push(1);
                        put_location(&location, body);
                    }
                    Sight::Over(location) => {
                        body.push(2);
                        put_location(&location, body);
                    }
                    Sight::Full => body.push(3),
                    Sight::Ended => body.push(4),
                }
            })
        }
        Frame::Heard { id, version } => put(kind::HEARD, &id, batch, |body| number(version, body)),
        Frame::Alive => batch.extend([kind::ALIVE, 0, 0, 0, 0]),
        Frame::TakesTcp => batch.extend([kind::TAKES_TCP, 0, 0, 0, 0]),
        Frame::Draining => batch.extend([kind::DRAINING, 0, 0, 0, 0]),
        Frame::Clock(Reading { shown_ms, echo_ms, held_ms }) => {
            let at = batch.len();
            batch.extend([kind::CLOCK, 0, 0, 0, 0]);
            number(shown_ms, batch);
            number(echo_ms, batch);
            batch.extend(held_ms.to_be_bytes());
            set_length(at, batch);
        }
        Frame::About(About { features, told, channels }) => {
            let at = batch.len();
            batch.extend([kind::ABOUT, 0, 0, 0, 0]);
            batch.extend(features.to_be_bytes());
            number(told, batch);
            if let Some(channels) = channels {
                let count = batch.len();
                batch.push(0);
                batch.extend(channels.iter());
                let realms = batch.len() - count - 1;
                batch[count] = u8::try_from(realms).expect("no relay has 256 doors that talk");
            }
            set_length(at, batch);
        }
        Frame::Channel(Channel { realm, number: of, word }) => {
            let at = batch.len();
            let kind = match word {
                ChannelWord::Open => kind::OPEN,
                ChannelWord::Accept => kind::ACCEPT,
                ChannelWord::Reset => kind::RESET,
                ChannelWord::Part { .. } => kind::PART,
            };
            batch.extend([kind, 0, 0, 0, 0, realm]);
            number(of, batch);
            if let ChannelWord::Part { seq, is_last, bytes } = word {
                batch.extend(seq.to_be_bytes());
                batch.push(u8::from(is_last));
                batch.extend_from_slice(bytes);
            }
            set_length(at, batch);
        }
        Frame::Unknown => {}
    }
}
