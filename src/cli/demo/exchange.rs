//! Messages of the demo that each carry a piece of the file, and what came of them.

use std::time::Duration;

use super::carry::Row;

/// How much of the file is in one message, in bytes.
const PIECE: usize = 1_024;

/// Messages that each carry a piece of the file.
pub(super) struct Exchange<'a> {
    pub(super) pieces: Vec<&'a [u8]>,
    /// How many peers get each.
    pub(super) copies: usize,
    pub(super) latencies: Vec<Duration>,
}

impl<'a> Exchange<'a> {
    /// The beginning of a file, in so many pieces at most.
    pub(super) fn new(file: &'a [u8], most: usize, copies: usize) -> Self {
        Self { pieces: file.chunks(PIECE).take(most).collect(), copies, latencies: Vec::new() }
    }

    /// The row of the table.
    pub(super) fn into_row(self, cell: &str, ended: anyhow::Result<()>) -> Row {
        let Self { pieces, copies, mut latencies } = self;
        latencies.sort_unstable();
        let messages = pieces.len() * copies;
        Row {
            cell: cell.to_owned(),
            packets: messages as u64,
            bytes: pieces.iter().map(|piece| piece.len()).sum::<usize>() * copies,
            lost: (messages - latencies.len()) as u64,
            latencies,
            verdict: ended.map_err(|error| format!("{error:#}")),
        }
    }
}
