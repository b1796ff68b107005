//! A TLS connection that was accepted, with what waits on both of its sides.
//!
//! It owns memory only while something waits: ciphertext that is no whole record, plaintext that
//! its reader had no room for, and ciphertext that the kernel has not taken.

use std::io;
use std::mem;
use std::sync::Arc;

use rustls::ServerConfig;

use super::engine::{Ciphertext, Engine};

/// Longest record with its header, of TLS 1.2, in bytes.
pub(super) const MAX_RECORD: usize = 5 + 16_384 + 2_048;

/// Ciphertext that is kept since it is no whole record or message yet, at most: a hello in the
/// smallest records that make sense. Records of a session are whole below that.
pub(super) const MOST_CARRIED: usize = 32_768;

/// A connection and what waits on both of its sides.
#[derive(Debug)]
pub(super) struct Records {
    pub(super) engine: Engine,
    /// Ciphertext that came and is no whole record.
    pub(super) carry: Vec<u8>,
    /// Plaintext that came and that nobody has taken.
    plain: Vec<u8>,
    /// Ciphertext that the kernel has not taken.
    pub(super) tail: Vec<u8>,
    /// Bytes of the caller's that are encrypted and of which the caller has not heard.
    pub(super) owed: usize,
    /// Somebody is in the system call with what goes before the tail.
    pub(super) writing: bool,
    /// The peer has said that nothing more comes, or has gone.
    pub(super) ended: bool,
    /// Nothing can be read or written any more.
    pub(super) failed: bool,
}

impl Records {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            engine: Engine::server(config)?,
            carry: Vec::new(),
            plain: Vec::new(),
            tail: Vec::new(),
            owed: 0,
            writing: false,
            ended: false,
            failed: false,
        })
    }

    /// Whether plaintext waits to be read.
    pub(super) const fn has_plain(&self) -> bool {
        !self.plain.is_empty()
    }

    /// Moves plaintext that waits to `out`; how much.
    pub(super) fn take_plain(&mut self, out: &mut [u8]) -> usize {
        let taken = self.plain.len().min(out.len());
        let (now, later) = self.plain.split_at(taken);
        out.get_mut(..taken).expect("no more is taken than fits").copy_from_slice(now);
        // What stays goes into a buffer of its own size, or none.
        self.plain = later.to_vec();
        taken
    }

    /// What is kept, in bytes.
    #[cfg(test)]
    pub(super) fn buffers(&self) -> usize {
        self.carry.capacity() + self.plain.capacity() + self.tail.capacity()
    }

    /// Takes what came, the carried bytes first, and writes its plaintext to `out`, what does
    /// not fit behind what waits. Returns how much is in `out`.
    pub(super) fn open(
        &mut self,
        incoming: &mut [u8],
        out: &mut [u8],
    ) -> Result<usize, rustls::Error> {
        let mut filled = 0;
        let plain = &mut self.plain;
        let mut answer = Ciphertext::from(mem::take(&mut self.tail));
        let opened = |payload: &[u8]| {
            let room = out.get_mut(filled..).expect("it is filled from the start");
            let fits = payload.len().min(room.len());
            let (now, later) = payload.split_at(fits);
            room.get_mut(..fits).expect("it fits").copy_from_slice(now);
            plain.extend_from_slice(later);
            filled += fits;
        };
        let done = self.engine.open(incoming, opened, &mut answer);
        self.tail = answer.into();
        self.ended |= self.engine.has_ended();
        let rest = incoming.get(done?..).expect("no more is discarded than there is");
        if rest.is_empty() {
            self.carry = Vec::new();
        } else {
            self.carry.clear();
            self.carry.extend_from_slice(rest);
        }
        Ok(filled)
    }

    /// Encrypts `plain` behind `out`, and before it what the library has to say.
    pub(super) fn seal(&mut self, plain: &[u8], out: &mut Ciphertext) -> io::Result<()> {
        let sealed = self.engine.seal(plain, &mut self.carry, out);
        self.ended |= self.engine.has_ended();
        sealed
    }

    /// Queues that nothing more comes.
    pub(super) fn seal_end(&mut self) -> io::Result<()> {
        let mut tail = Ciphertext::from(mem::take(&mut self.tail));
        let sealed = self.engine.seal_end(&mut self.carry, &mut tail);
        self.tail = tail.into();
        self.ended |= self.engine.has_ended();
        sealed
    }
}
