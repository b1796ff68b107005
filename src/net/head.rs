//! The line ends of HTTP/1.1 request heads, looked at before the HTTP library reads them.
//!
//! The library takes a lone LF for the end of a line, as RFC 9112 §2.2 lets it. A proxy in front may
//! take it for a part of the line, and so pass a head on that means something else here. Who sends
//! one is no client that we know of, and is refused.

use tokio::io::ReadBuf;

/// The headers that say that a body follows.
const BODY: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];

/// Longest name of them.
const NAME: usize = 17;

/// Looks at what comes in on one connection, a request after the other.
#[derive(Debug)]
pub(crate) struct HeadCheck {
    state: State,
    /// Whether the connection goes on with another head after a request without a body.
    again: bool,
    /// Whether there was a line of this head: empty ones may precede it.
    begun: bool,
    has_body: bool,
    /// Whether there was a colon in this line: what precedes the first is the name, and only that.
    named: bool,
    /// Bytes of this line, without its end.
    length: usize,
    name: [u8; NAME],
    after_cr: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Head,
    /// A line has ended without a CR: the rest is not to be read.
    Broken,
    /// What follows is no head: a body, or another protocol.
    Over,
}

impl HeadCheck {
    /// Looks at the first head alone: what follows it is another protocol.
    pub(crate) const fn once() -> Self {
        Self {
            state: State::Head,
            again: false,
            begun: false,
            has_body: false,
            named: false,
            length: 0,
            name: [0; NAME],
            after_cr: false,
        }
    }

    /// Looks at each head up to the first with a body. The caller has to end the connection
    /// after that request: see [`says_body`].
    pub(crate) const fn up_to_a_body() -> Self {
        Self { again: true, ..Self::once() }
    }

    /// Takes what a read has added to `buffer`, which had `before` bytes. From a lone LF on it
    /// becomes NUL, which is nowhere allowed: the library then answers with 400.
    pub(crate) fn take(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        if self.state == State::Over {
            return;
        }
        for byte in buffer.filled_mut().iter_mut().skip(before) {
            self.next(*byte);
            match self.state {
                State::Head => {}
                State::Broken => *byte = 0,
                State::Over => return,
            }
        }
    }

    fn next(&mut self, byte: u8) {
        if self.state != State::Head {
            return;
        }
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        match byte {
            b'\r' => {}
            b'\n' if !after_cr => self.state = State::Broken,
            b'\n' => self.end_line(),
            b':' if !self.named => {
                let name = self.name.get(..self.length).unwrap_or_default();
                self.has_body |= BODY.iter().any(|body| name.eq_ignore_ascii_case(body));
                self.named = true;
                self.length += 1;
            }
            other => {
                if let Some(place) = self.name.get_mut(self.length) {
                    *place = other;
                }
                self.length += 1;
            }
        }
    }

    fn end_line(&mut self) {
        self.named = false;
        if self.length > 0 {
            self.begun = true;
            self.length = 0;
        } else if self.begun {
            let is_over = self.has_body || !self.again;
            self.state = if is_over { State::Over } else { State::Head };
            self.begun = false;
        }
    }
}

/// Whether a request says that a body follows, by the headers that [`HeadCheck`] looks for.
pub(crate) fn says_body(headers: &hyper::HeaderMap) -> bool {
    headers.contains_key(hyper::header::CONTENT_LENGTH)
        || headers.contains_key(hyper::header::TRANSFER_ENCODING)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library sees of these bytes, however they are cut.
    fn seen(mut check: HeadCheck, bytes: &[u8], cut: usize) -> Vec<u8> {
        let mut seen = Vec::new();
        for piece in bytes.chunks(cut) {
            let mut room = [0; 64];
            let mut buffer = ReadBuf::new(&mut room);
            buffer.put_slice(b"before\n");
            buffer.put_slice(piece);
            check.take(&mut buffer, 7);
            assert_eq!(&buffer.filled()[..7], b"before\n");
            seen.extend_from_slice(&buffer.filled()[7..]);
        }
        seen
    }

    #[test]
    fn lone_line_feed_of_a_head_becomes_what_no_head_may_have() {
        let heads: [&[u8]; 6] = [
            b"GET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n\n",
            b"\nGET / HTTP/1.1\r\n\r\n",
            b"\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: \r \nHost: a\r\n\r\n",
        ];
        for head in heads {
            for cut in [1, 3, 50] {
                let bare = (0..head.len())
                    .find(|at| head[*at] == b'\n' && (*at == 0 || head[at - 1] != b'\r'))
                    .unwrap();
                let seen = seen(HeadCheck::once(), head, cut);
                assert_eq!(seen[..bare], head[..bare]);
                assert!(seen[bare..].iter().all(|byte| *byte == 0), "{seen:?}");
            }
        }
    }

    #[test]
    fn what_follows_a_head_is_not_touched() {
        let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x82\x81\n\n\n\n\n";
        let post = b"GET / HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\n\n\n\n";
        for cut in [1, 7, 50] {
            assert_eq!(seen(HeadCheck::once(), upgrade, cut), upgrade);
            assert_eq!(seen(HeadCheck::up_to_a_body(), post, cut), post);
        }
        let second = b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\nHost: a\r\n\r\n";
        assert_ne!(seen(HeadCheck::up_to_a_body(), second, 9), second);
    }

    #[test]
    fn name_put_together_from_two_lines_ended_the_check() {
        // The second line left the colon's place in the name as the first line had filled it.
        let pieced =
            b"GET / HTTP/1.1\r\nabcdeft: 1\r\nconten:-length:x\r\n\r\nGET / HTTP/1.1\nHost: a";
        let bare = pieced.len() - b"\nHost: a".len();
        for cut in [1, 7, 50] {
            let seen = seen(HeadCheck::up_to_a_body(), pieced, cut);
            assert_eq!(seen[..bare], pieced[..bare]);
            assert!(seen[bare..].iter().all(|byte| *byte == 0), "{seen:?}");
        }
    }
}
