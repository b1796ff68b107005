//! Why sessions end.

use crate::words;

words! {
    /// Why a session ends; the first reason stays.
    pub enum End {
        /// The peer said bye, or closed as who leaves does: with 1000 or without a code.
        PeerLeft => "peer_left",
        /// The peer's side closed with another code: it has failed, or the proxy restarts.
        PeerClosed => "peer_closed",
        /// The connection ended without a close.
        ConnectionLost => "connection_lost",
        /// A newer session of the same peer took its place.
        Replaced => "replaced",
        /// The relay shuts down.
        ShuttingDown => "shutting_down",
        /// The key that the peer proved to have is no longer its own.
        KeyWithdrawn => "key_withdrawn",
        /// The peer broke the framing rules; the door knows how.
        Violation => "violation",
        /// Nothing was heard for too long, or a ping was not answered.
        Idle => "idle",
        /// The kernel took nothing of what was in flight for too long.
        WriteTimeout => "write_timeout",
        /// More would have waited for the peer than its outbox holds.
        Overflow => "overflow",
        /// An operator ended it.
        Kicked => "kicked",
        /// What the peer sent could not be stored: it has to send it again.
        NotStored => "not_stored",
        /// A panic of the relay's own code.
        Failed => "failed",
    }
}
