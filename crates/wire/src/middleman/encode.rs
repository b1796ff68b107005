//! Messages as brokers write them.

use super::{Body, Command, Header};

/// Appends one message to a buffer, part by part.
///
/// Target, names and values of headers are written as they are: who makes them keeps
/// line ends out of them.
#[derive(Debug)]
pub struct Encoder<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Encoder<'o> {
    /// Begins a message.
    pub fn begin(out: &'o mut Vec<u8>, command: Command<'_>, target: &str) -> Self {
        out.extend_from_slice(command.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(target.as_bytes());
        out.extend_from_slice(b"\r\n");
        Self { out }
    }

    /// Goes on with a message whose beginning is in the buffer.
    pub const fn resume(out: &'o mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Adds a header, its name spelled like this.
    pub fn header(&mut self, name: &str, value: &str) {
        debug_assert!(!name.contains('\n') && !value.contains('\n'), "a header of two lines");
        self.out.extend_from_slice(name.as_bytes());
        self.value(value);
    }

    /// Adds a header, its name in canonical case.
    pub fn forward(&mut self, header: Header<'_>) {
        header.push_name(self.out);
        self.value(header.value);
    }

    /// Adds header lines that were written before, each with its end.
    pub fn lines(&mut self, lines: &[u8]) {
        self.out.extend_from_slice(lines);
    }

    fn value(&mut self, value: &str) {
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// Ends the message with its body. A line that is a dot, or begins with two, gets one more.
    pub fn finish(self, body: Body<'_>) {
        self.out.extend_from_slice(b"\r\n");
        body.push(self.out);
    }
}
