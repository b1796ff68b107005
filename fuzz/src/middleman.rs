//! The grammar of middleman: what is read is what a second reader, which goes byte by byte, reads;
//! what was read and is written reads the same, and is written the same from then on; any text
//! comes back as a body. The input is also a message of a relay, which has one form.

use beacon_wire::middleman::{
    Body, Command, Encoder, Guid, Headers, Malformed, Message, RelayMessage,
};

/// Takes one input: a frame, which is also a body and a GUID.
///
/// # Panics
/// Where the readers differ, or a message does not come back.
pub fn run(input: &[u8]) {
    let read = Message::parse(input);
    compare(input, read);
    if let Ok(message) = read {
        comes_back(&message);
    }
    if let Ok(message) = RelayMessage::parse(input) {
        let mut again = Vec::new();
        message.encode(&mut again);
        assert_eq!(again, input, "a message of a relay has one form");
    }
    let Ok(text) = str::from_utf8(input) else { return };
    any_body(text);
    if let Ok(guid) = text.parse::<Guid>() {
        assert_eq!(guid.to_string(), text);
    }
}

/// What the second reader makes of a frame.
struct Naive {
    top: Vec<u8>,
    /// Names in canonical case, and values.
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
}

fn compare(input: &[u8], read: Result<Message<'_>, Malformed>) {
    let naive = naive(input).filter(|_| str::from_utf8(input).is_ok());
    let (message, naive) = match (read, naive) {
        (Ok(message), Some(naive)) => (message, naive),
        (Err(Malformed::TooManyHeaders | Malformed::HeadersTooLong), _) | (Err(_), None) => return,
        (read, naive) => panic!("{read:?}, and the second reader {}", naive.is_some()),
    };
    let top = [message.command.as_str(), message.target].join(" ");
    assert_eq!(top.as_bytes(), naive.top);
    let headers = message.headers.iter().map(|header| {
        let mut name = Vec::new();
        header.push_name(&mut name);
        (name, header.value.as_bytes().to_vec())
    });
    let headers: Vec<_> = headers.collect();
    assert_eq!(headers, naive.headers);
    assert!(headers.len() <= Headers::MOST);
    assert_eq!(message.body.text().as_bytes(), naive.body);
    let lines: Vec<_> = message.body.lines().collect();
    assert_eq!(lines.join("\n").as_bytes(), naive.body);
    assert_eq!(message.body.is_empty(), naive.body.is_empty());
}

/// The line that begins at `at`, without its end, and where the next begins.
fn line(input: &[u8], at: &mut usize) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    loop {
        let byte = *input.get(*at)?;
        *at += 1;
        if byte == b'\n' {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Some(line);
        }
        line.push(byte);
    }
}

fn naive(input: &[u8]) -> Option<Naive> {
    let mut at = 0;
    let top = line(input, &mut at)?;
    if !top.contains(&b' ') {
        return None;
    }
    let mut headers = Vec::new();
    loop {
        let line = line(input, &mut at)?;
        if line.is_empty() {
            break;
        }
        headers.push(naive_header(&line)?);
    }
    let mut lines: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut line = line(input, &mut at)?;
        if line == b"." {
            break;
        }
        if line.starts_with(b"..") {
            line.remove(0);
        }
        lines.push(line);
    }
    Some(Naive { top, headers, body: lines.join(&b'\n') })
}

fn naive_header(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || name[0] == b' ' {
        return None;
    }
    let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let first = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let last = value.iter().rposition(|byte| !is_space(byte)).map_or(first, |at| at + 1);
    let value = &value[first..last];
    if value.iter().any(|byte| *byte < 0x20 && *byte != b'\t' || *byte == 0x7f) {
        return None;
    }
    if !name.iter().all(|byte| {
        byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte) || *byte == b' '
    }) {
        return None;
    }
    let mut canonical = name.to_vec();
    if !name.contains(&b' ') {
        canonical.make_ascii_lowercase();
        for at in 0..name.len() {
            if at == 0 || name[at - 1] == b'-' {
                canonical[at].make_ascii_uppercase();
            }
        }
    }
    Some((canonical, value.to_vec()))
}

fn comes_back(message: &Message<'_>) {
    let mut once = Vec::new();
    message.encode(&mut once);
    let again = Message::parse(&once);
    assert_eq!(again, Ok(*message));
    let mut twice = Vec::new();
    again.expect("it was compared").encode(&mut twice);
    assert_eq!(once, twice, "a message changes from hop to hop");
    // Whoever ends a frame at the first line that is a dot finds the end.
    let text = str::from_utf8(&once).expect("it was parsed");
    let end = text.find("\n.\r\n").expect("it ends with that");
    assert_eq!(end + "\n.\r\n".len(), text.len());
    assert!(!text.contains("\n.\n"));
}

fn any_body(text: &str) {
    let mut out = Vec::new();
    Encoder::begin(&mut out, Command::Pub, "Chat").finish(Body::of(text));
    let message = Message::parse(&out).expect("a body is any text");
    assert_eq!(message.body.text(), text);
    assert_eq!(message.body, Body::of(text));
}
