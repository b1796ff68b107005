//! JSON by the rules of Go's `encoding/json`, with which peers of several protocols read and write:
//! what they read alike they must write alike, to the byte.
//!
//! One pass, no tree: a reader that stands at a place of the text, and functions that append.

mod body;
mod member;
mod plain;
mod read;
mod text;
mod write;

pub use body::Body;
pub(crate) use member::Text;
pub(crate) use read::Reader;
pub(crate) use text::{Literal, MemberName};
pub(crate) use write::{push_text, text_length};

/// Deepest nesting of objects and arrays that is read, as of Go.
pub const MAX_DEPTH: usize = 10_000;

/// A text is not JSON, or JSON of another form.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not JSON of the expected form")]
pub struct Malformed;
