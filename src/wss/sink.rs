//! Where the frames of peers go.

use std::sync::Arc;
use std::time::Instant;

use super::Session;
use crate::ids::NodeId;
use crate::wire::Frames;

/// Takes the binary frames of authenticated peers, a whole read batch at a time.
pub trait FrameSink: Send + Sync + 'static {
    /// Takes the frames of one read, which came from `session` at `now`. It runs on the
    /// session's own task and must not wait: meanwhile that peer is not read.
    fn frames(&self, session: &Arc<Session>, frames: Frames<'_>, now: Instant);

    /// Whether a node is known to have a session somewhere else, from which a login here would
    /// take over.
    fn has_session_elsewhere(&self, _node: NodeId, _now: Instant) -> bool {
        false
    }
}

/// A sink that calls a function for each frame.
#[derive(Debug)]
pub struct PerFrame<F>(F);

/// Makes a sink of a function that takes the authenticated node and the borrowed frame.
pub const fn per_frame<F: Fn(NodeId, &[u8]) + Send + Sync + 'static>(function: F) -> PerFrame<F> {
    PerFrame(function)
}

impl<F: Fn(NodeId, &[u8]) + Send + Sync + 'static> FrameSink for PerFrame<F> {
    fn frames(&self, session: &Arc<Session>, frames: Frames<'_>, _: Instant) {
        if session.is_open() {
            frames.iter().for_each(|frame| self.0(session.id(), frame));
        }
    }
}
