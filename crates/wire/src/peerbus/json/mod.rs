//! JSON by the rules of Go's `encoding/json`, which the peers of the bus sign their messages with:
//! what they read alike they must write alike, to the byte.
//!
//! One pass, no tree: a reader that stands at a place of the text, and functions that append.

mod body;
mod plain;
mod read;
mod text;
mod write;

pub use body::Body;
pub(super) use read::Reader;
pub(super) use text::{Literal, MemberName};
pub(super) use write::{push_text, text_length};

/// Deepest nesting of objects and arrays that is read, as of Go.
pub const MAX_DEPTH: usize = 10_000;

/// A text is not JSON, or JSON of another form.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not JSON of the expected form")]
pub struct Malformed;
