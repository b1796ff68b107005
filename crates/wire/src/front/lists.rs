//! Lists in messages: what is delivered, what became of what was sent, and names.

use super::rest::Rest;
use super::{Outcome, Refusal, put_text};

/// Messages for a session, each with its key. They were looked through: none is cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Letters<'a>(&'a [u8]);

impl<'a> Letters<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        while !rest.0.is_empty() {
            letter(&mut rest)?;
        }
        Some(Self(bytes))
    }

    /// Appends a message to what [`super::Message::begin_deliver`] has begun.
    ///
    /// # Panics
    /// The key is longer than [`super::MAX_TEXT`], or the body than 4 GiB.
    pub fn push(out: &mut Vec<u8>, key: &str, body: &[u8]) {
        put_text(out, key);
        let length = u32::try_from(body.len()).expect("messages are bounded");
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(body);
    }

    pub(super) const fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> IntoIterator for Letters<'a> {
    type Item = (&'a str, &'a [u8]);
    type IntoIter = LettersIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        LettersIter(Rest(self.0))
    }
}

/// The keys and the bodies of [`Letters`].
#[derive(Clone, Debug)]
pub struct LettersIter<'a>(Rest<'a>);

impl<'a> Iterator for LettersIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        letter(&mut self.0)
    }
}

fn letter<'a>(rest: &mut Rest<'a>) -> Option<(&'a str, &'a [u8])> {
    let key = rest.text()?;
    let length = usize::try_from(rest.u32()?).ok()?;
    Some((key, rest.bytes(length)?))
}

/// Names of channels. They were looked through: none is cut off.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Texts<'a>(&'a [u8]);

impl<'a> Texts<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        while !rest.0.is_empty() {
            rest.text()?;
        }
        Some(Self(bytes))
    }

    /// Appends a name to what [`super::Message::begin_subscribe`] has begun.
    ///
    /// # Panics
    /// It is longer than [`super::MAX_TEXT`].
    pub fn push(out: &mut Vec<u8>, text: &str) {
        put_text(out, text);
    }

    pub(super) const fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> IntoIterator for Texts<'a> {
    type Item = &'a str;
    type IntoIter = TextsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        TextsIter(Rest(self.0))
    }
}

/// The names of [`Texts`].
#[derive(Clone, Debug)]
pub struct TextsIter<'a>(Rest<'a>);

impl<'a> Iterator for TextsIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.text()
    }
}

/// What became of submissions. They were looked through: each is one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Outcomes<'a>(&'a [u8]);

const STORED: u8 = 0;
const PARTLY: u8 = 1;
const DUPLICATE: u8 = 2;
/// And the number of the reason.
const REFUSED: u8 = 16;

impl Outcome {
    /// Appends it to what [`super::Message::begin_answered`] has begun.
    pub fn encode(self, out: &mut Vec<u8>) {
        match self {
            Self::Stored => out.push(STORED),
            Self::Partly { stored, of } => {
                out.push(PARTLY);
                out.extend_from_slice(&stored.to_be_bytes());
                out.extend_from_slice(&of.to_be_bytes());
            }
            Self::Duplicate => out.push(DUPLICATE),
            Self::Refused(refusal) => out.push(REFUSED + refusal as u8),
        }
    }
}

impl<'a> Outcomes<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = Rest(bytes);
        while !rest.0.is_empty() {
            outcome(&mut rest)?;
        }
        Some(Self(bytes))
    }

    pub(super) const fn bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> IntoIterator for Outcomes<'a> {
    type Item = Outcome;
    type IntoIter = OutcomesIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        OutcomesIter(Rest(self.0))
    }
}

/// The outcomes of [`Outcomes`].
#[derive(Clone, Debug)]
pub struct OutcomesIter<'a>(Rest<'a>);

impl Iterator for OutcomesIter<'_> {
    type Item = Outcome;

    fn next(&mut self) -> Option<Self::Item> {
        outcome(&mut self.0)
    }
}

fn outcome(rest: &mut Rest<'_>) -> Option<Outcome> {
    Some(match rest.u8()? {
        STORED => Outcome::Stored,
        PARTLY => Outcome::Partly { stored: rest.u32()?, of: rest.u32()? },
        DUPLICATE => Outcome::Duplicate,
        number => {
            let mut refusals = Refusal::ALL.into_iter();
            let refusal = refusals.find(|refusal| REFUSED + *refusal as u8 == number)?;
            Outcome::Refused(refusal)
        }
    })
}
