//! Reads the frames of a batch.

use super::reader::Reader;
use super::{
    About, Channel, ChannelRealms, ChannelWord, Claim, DecodeError, Frame, Location, Name, Packets,
    Reading, Refusal, Run, Sight, kind,
};
use crate::ids::{PublicKey, RelayId};

/// The frames of a batch, in their order; ends after the first error.
#[derive(Clone, Debug)]
pub struct Frames<'a, I> {
    rest: Reader<'a>,
    failed: bool,
    ids: std::marker::PhantomData<I>,
}

impl<'a, I: Name> Frames<'a, I> {
    /// Reads the frames of a batch.
    #[must_use]
    pub const fn new(batch: &'a [u8]) -> Self {
        Self { rest: Reader::new(0, batch), failed: false, ids: std::marker::PhantomData }
    }

    fn next_frame(&mut self) -> Result<Frame<'a, I>, DecodeError> {
        self.rest.kind = 0;
        let kind = self.rest.u8()?;
        self.rest.kind = kind;
        let length = self.rest.u32()? as usize;
        let mut body = Reader::new(kind, self.rest.bytes(length)?);
        let frame = decode(kind, &mut body)?;
        if frame != Frame::Unknown {
            body.end()?;
        }
        Ok(frame)
    }
}

impl<'a, I: Name> Iterator for Frames<'a, I> {
    type Item = Result<Frame<'a, I>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.rest.is_empty() {
            return None;
        }
        let frame = self.next_frame();
        self.failed = frame.is_err();
        Some(frame)
    }
}

fn decode<'a, I: Name>(kind: u8, body: &mut Reader<'a>) -> Result<Frame<'a, I>, DecodeError> {
    match kind {
        kind::ALIVE | kind::DRAINING | kind::TAKES_TCP => {
            // A later version may say more.
            let _ignored = body.take_rest();
            return Ok(match kind {
                kind::ALIVE => Frame::Alive,
                kind::DRAINING => Frame::Draining,
                _ => Frame::TakesTcp,
            });
        }
        kind::CLOCK => {
            let (shown_ms, echo_ms) = (body.u64()?, body.u64()?);
            return Ok(Frame::Clock(Reading { shown_ms, echo_ms, held_ms: body.u32()? }));
        }
        kind::ABOUT => {
            let (features, told) = (body.u32()?, body.u64()?);
            let channels = channels(body.take_rest());
            return Ok(Frame::About(About { features, told, channels }));
        }
        kind::OPEN..=kind::PART => {
            let (realm, number) = (body.u8()?, body.u64()?);
            let word = match kind {
                kind::OPEN => ChannelWord::Open,
                kind::ACCEPT => ChannelWord::Accept,
                kind::RESET => ChannelWord::Reset,
                _ => {
                    let (seq, is_last) = (body.u32()?, body.flag()?);
                    ChannelWord::Part { seq, is_last, bytes: body.take_rest() }
                }
            };
            return Ok(Frame::Channel(Channel { realm, number, word }));
        }
        kind::PACKETS..=kind::NACK
        | kind::CLAIM..=kind::NOTED
        | kind::FIND..=kind::MISSING
        | kind::LOCATE..=kind::HEARD => {}
        _ => return Ok(Frame::Unknown),
    }
    let Some(id) = body.id()? else { return Ok(Frame::Unknown) };
    Ok(match kind {
        kind::PACKETS => {
            let Some(sender) = body.id()? else { return Ok(Frame::Unknown) };
            let epoch = body.u64()?;
            Frame::Packets(Packets::new(Run { dest: id, sender, epoch }, body)?)
        }
        kind::NACK => Frame::Nack { id, epoch: body.u64()? },
        kind::CLAIM => Frame::Claim(Claim {
            id,
            epoch: body.u64()?,
            serial: body.u64()?,
            nonce: body.u32()?,
            ownership: body.ownership()?,
            takeover: body.takeover()?,
            credential: body.u64()?,
            age_ms: body.u32()?,
        }),
        kind::GRANTED => {
            Frame::Granted { id, epoch: body.u64()?, serial: body.u64()?, nonce: body.u32()? }
        }
        kind::REFUSED => Frame::Refused { id, nonce: body.u32()?, refusal: refusal(body)? },
        kind::MOVED => Frame::Moved { id, location: location(body)?, ends: body.u64()? },
        kind::LEAVE => Frame::Leave { id, serial: body.u64()? },
        kind::LEFT => Frame::Left { id, serial: body.u64()? },
        kind::NOTED => Frame::Noted { id, serial: body.u64()? },
        kind::GONE => Frame::Gone { id, epoch: body.u64()? },
        kind::FIND => Frame::Find { id },
        kind::FOUND => Frame::Found { id, location: location(body)?, serial: body.u64()? },
        kind::MISSING => Frame::Missing { id },
        kind::WATCH => Frame::Watch { id, nonce: body.u32()?, is_on: body.flag()? },
        kind::LOCATE => {
            let (nonce, version, serial) = (body.u32()?, body.u64()?, body.u64()?);
            Frame::Locate { id, nonce, version, serial, sight: sight(body)? }
        }
        _ => Frame::Heard { id, version: body.u64()? },
    })
}

/// The realms behind the fields of an About; what a later version says behind them is ignored.
fn channels(rest: &[u8]) -> Option<ChannelRealms> {
    let (count, rest) = rest.split_first()?;
    let realms = rest.get(..usize::from(*count))?;
    Some(realms.iter().copied().collect())
}

fn location(body: &mut Reader<'_>) -> Result<Location, DecodeError> {
    let owner = RelayId(PublicKey(body.array()?));
    Ok(Location { owner, epoch: body.u64()?, ownership: body.ownership()? })
}

fn sight(body: &mut Reader<'_>) -> Result<Sight, DecodeError> {
    match body.u8()? {
        0 => Ok(Sight::Unknown),
        1 => Ok(Sight::At(location(body)?)),
        2 => Ok(Sight::Over(location(body)?)),
        3 => Ok(Sight::Full),
        4 => Ok(Sight::Ended),
        _ => Err(DecodeError::BadField { kind: body.kind }),
    }
}

fn refusal(body: &mut Reader<'_>) -> Result<Refusal, DecodeError> {
    match body.u8()? {
        0 => Ok(Refusal::Held(location(body)?)),
        1 => Ok(Refusal::TooSoon),
        2 => Ok(Refusal::EpochAhead),
        3 => Ok(Refusal::Full),
        _ => Err(DecodeError::BadField { kind: body.kind }),
    }
}
