//! Cuts runs into what one message each carries: a whole run where it may be segmented, else
//! packet by packet.

use super::Run;

/// How far a list of runs has been sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Position {
    pub(super) run: usize,
    byte: usize,
}

impl Position {
    /// What goes in one message from here on, and the position behind it; none at the end.
    pub(super) fn next<'a>(
        self,
        runs: &[Run<'a>],
        segmented: impl Fn(&Run<'a>) -> bool,
    ) -> Option<(Run<'a>, Self)> {
        let run = runs.get(self.run)?;
        let rest = run.bytes.get(self.byte..).expect("a position is inside of its run");
        let is_whole = rest.len() <= run.segment || segmented(run);
        let length = if is_whole { rest.len() } else { run.segment.max(1) };
        Some((self.piece(run, length), self.after(run, length)))
    }

    /// What lies between this position and the next one, which is in the same run or behind it.
    pub(super) fn until<'a>(self, end: Self, runs: &[Run<'a>]) -> Run<'a> {
        let run = runs.get(self.run).expect("a position before another is inside of its run");
        let end = if end.run == self.run { end.byte } else { run.bytes.len() };
        self.piece(run, end - self.byte)
    }

    fn piece<'a>(self, run: &Run<'a>, length: usize) -> Run<'a> {
        let bytes = run.bytes.get(self.byte..self.byte + length);
        Run { bytes: bytes.expect("a piece is inside of its run"), ..*run }
    }

    const fn after(self, run: &Run<'_>, length: usize) -> Self {
        let byte = self.byte + length;
        if byte < run.bytes.len() {
            Self { byte, ..self }
        } else {
            Self { run: self.run + 1, byte: 0 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(bytes: &[u8], segment: usize) -> Run<'_> {
        Run { to: ([192, 0, 2, 1], 9).into(), from: None, bytes, segment }
    }

    fn cut(runs: &[Run<'_>], segmented: bool) -> Vec<(usize, Vec<u8>, usize)> {
        let mut at = Position::default();
        let mut pieces = Vec::new();
        while let Some((piece, next)) = at.next(runs, |_| segmented) {
            assert_eq!(at.until(next, runs).bytes, piece.bytes);
            pieces.push((at.run, piece.bytes.to_vec(), piece.packets()));
            at = next;
        }
        pieces
    }

    #[test]
    fn runs_go_whole_or_packet_by_packet() {
        let runs = [run(b"aabbc", 2), run(b"", 0), run(b"dd", 2)];
        let piece = |run, bytes: &[u8], packets| (run, bytes.to_vec(), packets);

        assert_eq!(cut(&runs, true), [piece(0, b"aabbc", 3), piece(1, b"", 1), piece(2, b"dd", 1)]);
        assert_eq!(
            cut(&runs, false),
            [
                piece(0, b"aa", 1),
                piece(0, b"bb", 1),
                piece(0, b"c", 1),
                piece(1, b"", 1),
                piece(2, b"dd", 1)
            ]
        );
    }
}
