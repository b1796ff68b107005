//! The members of a frame, found in one pass.

use crate::json::{Body, Literal, Malformed, MemberName, Reader, Text};

/// What the frames of the protocol may have, as far as it was there.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) protocol_version: Text<'a>,
    pub(super) kind_of_frame: Text<'a>,
    pub(super) token: Text<'a>,
    pub(super) name: Text<'a>,
    pub(super) id: Text<'a>,
    pub(super) from: Text<'a>,
    pub(super) to: Text<'a>,
    pub(super) ts: Text<'a>,
    pub(super) source: Text<'a>,
    pub(super) kind: Text<'a>,
    pub(super) hmac: Text<'a>,
    pub(super) delivery_key: Text<'a>,
    pub(super) result: Text<'a>,
    pub(super) reason: Text<'a>,
    pub(super) body: Option<Body<'a>>,
    /// Whether it is `true`.
    pub(super) receipts: bool,
    /// As it was written.
    pub(super) names: Option<&'a [u8]>,
    /// As it was written.
    pub(super) envelope: Option<&'a [u8]>,
}

impl<'a> Members<'a> {
    /// Reads an object; `null` is one without members.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, Malformed> {
        let mut members = Self::default();
        let mut reader = Reader::new(json);
        if reader.take(b'{') {
            if !reader.take(b'}') {
                members.take_all(&mut reader)?;
            }
        } else if reader.span()? != b"null" {
            return Err(Malformed);
        }
        reader.end()?;
        Ok(members)
    }

    fn take_all(&mut self, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        loop {
            let name = reader.string()?;
            reader.expect(b':')?;
            self.take_one(name, reader)?;
            if !reader.take(b',') {
                return reader.expect(b'}');
            }
        }
    }

    fn take_one(&mut self, name: Literal<'a>, reader: &mut Reader<'a>) -> Result<(), Malformed> {
        let name = MemberName::of(name).unwrap_or_default();
        let text = match name.as_bytes() {
            b"protocol_version" => &mut self.protocol_version,
            b"type" => &mut self.kind_of_frame,
            b"token" => &mut self.token,
            b"name" => &mut self.name,
            b"id" => &mut self.id,
            b"from" => &mut self.from,
            b"to" => &mut self.to,
            b"ts" => &mut self.ts,
            b"source" => &mut self.source,
            b"kind" => &mut self.kind,
            b"hmac" => &mut self.hmac,
            b"delivery_key" => &mut self.delivery_key,
            b"result" => &mut self.result,
            b"reason" => &mut self.reason,
            b"body" => {
                self.body = Some(Body::read(reader)?);
                return Ok(());
            }
            b"receipts" => {
                self.receipts = reader.span()? == b"true";
                return Ok(());
            }
            b"names" => {
                self.names = Some(reader.span()?);
                return Ok(());
            }
            b"envelope" => {
                self.envelope = Some(reader.span()?);
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
