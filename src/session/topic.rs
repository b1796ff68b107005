//! Topics of a door, as operators see them.

use serde::Serialize;

/// What there is of a topic here.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Sessions that subscribe to it.
    pub subscribers: usize,
    /// Whether clients may publish to it,
    pub clients_publish: bool,
    /// and subscribe.
    pub clients_subscribe: bool,
    /// Sessions that answer its requests.
    pub responders: usize,
    /// Requests that they work on at a time, all together.
    pub workers: usize,
    /// Requests that they have not answered.
    pub outstanding: usize,
}
