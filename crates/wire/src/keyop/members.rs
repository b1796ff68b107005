//! The members of a record and of a first message, found in one pass.

use crate::json::{Body, Literal, Malformed, MemberName, Reader, Text};

use super::Texts;

/// What the objects of the protocol may have, as far as it was there.
#[derive(Default)]
pub(super) struct Members<'a> {
    /// The version of an envelope, as it was written.
    pub(super) v: Option<&'a [u8]>,
    pub(super) id: Text<'a>,
    pub(super) ts: Text<'a>,
    pub(super) channel: Text<'a>,
    pub(super) origin: Text<'a>,
    pub(super) payload_type: Text<'a>,
    pub(super) correlation_id: Text<'a>,
    pub(super) service_name: Text<'a>,
    pub(super) route: List<'a>,
    pub(super) payload: Option<Payload<'a>>,
    pub(super) instance_name: Text<'a>,
    pub(super) role: Text<'a>,
    pub(super) version: Text<'a>,
    pub(super) subscribe: List<'a>,
    pub(super) ephemeral: Flag,
    pub(super) last_id: Text<'a>,
    /// Where the object ends, its brace not included.
    pub(super) end: usize,
    /// Whether it has members at all.
    pub(super) is_empty: bool,
}

/// A member that shall be a list of strings.
#[derive(Clone, Copy, Default)]
pub(super) enum List<'a> {
    #[default]
    Absent,
    /// The last that was there, from `from` up to `to`.
    Strings { texts: Texts<'a>, from: usize, to: usize },
    /// One that was there is no such list.
    Wrong,
}

impl<'a> List<'a> {
    /// What it says, nothing where it was not there.
    pub(super) fn texts(self) -> Result<Texts<'a>, Malformed> {
        match self {
            Self::Absent => Ok(Texts::default()),
            Self::Strings { texts, .. } => Ok(texts),
            Self::Wrong => Err(Malformed),
        }
    }

    fn read(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        // White space in front is no part of it.
        reader.peek();
        let from = reader.at();
        let value = reader.span()?;
        let to = reader.at();
        if matches!(self, Self::Wrong) {
            return Ok(());
        }
        let mut again = Reader::new(value);
        *self =
            Texts::read(&mut again).map_or(Self::Wrong, |texts| Self::Strings { texts, from, to });
        Ok(())
    }
}

/// A member that shall be `true` or `false`.
#[derive(Clone, Copy, Default)]
pub(super) enum Flag {
    #[default]
    Absent,
    Is(bool),
    Wrong,
}

impl Flag {
    pub(super) const fn is_set(self) -> Result<bool, Malformed> {
        match self {
            Self::Absent => Ok(false),
            Self::Is(is_set) => Ok(is_set),
            Self::Wrong => Err(Malformed),
        }
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        *self = match (reader.span()?, *self) {
            (_, Self::Wrong) => Self::Wrong,
            (b"null", before) => before,
            (b"true", _) => Self::Is(true),
            (b"false", _) => Self::Is(false),
            _ => Self::Wrong,
        };
        Ok(())
    }
}

/// What a record carries.
#[derive(Clone, Copy)]
pub(super) struct Payload<'a> {
    /// The last that was there, as it was written.
    pub(super) json: &'a [u8],
    /// Where the name of the first begins.
    pub(super) at: usize,
}

impl<'a> Members<'a> {
    /// Reads an object; `null` is one without members.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, Malformed> {
        let mut members = Self { is_empty: true, ..Self::default() };
        let mut reader = Reader::new(json);
        if reader.take(b'{') {
            if !reader.take(b'}') {
                members.is_empty = false;
                members.take_all(&mut reader)?;
            }
            members.end = reader.at() - 1;
        } else if reader.span()? != b"null" {
            return Err(Malformed);
        }
        reader.end()?;
        Ok(members)
    }

    fn take_all(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        loop {
            // White space in front is no part of the name.
            reader.peek();
            let at = reader.at();
            let name = reader.string()?;
            reader.expect(b':')?;
            self.take_one(name, at, reader)?;
            if !reader.take(b',') {
                return reader.expect(b'}');
            }
        }
    }

    fn take_one(
        &mut self,
        name: Literal<'a>,
        at: usize,
        reader: &mut Reader<'a>,
    ) -> Result<(), Malformed> {
        let name = MemberName::of(name).unwrap_or_default();
        let text = match name.as_bytes() {
            b"id" => &mut self.id,
            b"ts" => &mut self.ts,
            b"channel" => &mut self.channel,
            b"origin" => &mut self.origin,
            b"payload_type" => &mut self.payload_type,
            b"correlation_id" => &mut self.correlation_id,
            b"service_name" => &mut self.service_name,
            b"instance_name" => &mut self.instance_name,
            b"role" => &mut self.role,
            b"version" => &mut self.version,
            b"last_id" => &mut self.last_id,
            b"route" => return self.route.read(reader),
            b"subscribe" => return self.subscribe.read(reader),
            b"ephemeral" => return self.ephemeral.read(reader),
            b"v" => {
                self.v = Some(reader.span()?);
                return Ok(());
            }
            b"payload" => {
                let json = reader.span()?;
                let at = self.payload.map_or(at, |first| first.at);
                self.payload = Some(Payload { json, at });
                return Ok(());
            }
            _ => {
                reader.span()?;
                return Ok(());
            }
        };
        text.read(reader)
    }
}

impl<'a> Payload<'a> {
    /// In compact form.
    pub(super) fn body(self) -> Body<'a> {
        Body::parse(self.json).expect("it was read before")
    }
}
