//! A bus that several relays serve: each has a [`Front`], whose sessions say what they have to say
//! to the relay that leads; that has a [`Host`] in front of its bus.
//!
//! Sans-IO: a link between two relays keeps the order of what is said over it, or ends. The leader
//! of an epoch is a host of its own, with the bus that has recovered all that epochs before have
//! committed. A front listens to the newest leader that it knows of alone, and to each it opens its
//! sessions anew.
//!
//! What holds, as long as commits of a former leader fail: what had an answer is stored, or was
//! refused; what a session has said comes to the bus in its order, whichever relay leads; nothing
//! is delivered by a former leader once a front knows of the next.

mod action;
mod credit;
mod fronting;
mod host;
mod link;
mod names;
mod order;
mod session;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use action::{Action, Claim};
pub use fronting::Front;
pub use host::Host;
pub use order::{Order, Output};
pub use session::Limits;

/// A link to a relay, which may be this one; another has another number.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LinkId(pub u64);
