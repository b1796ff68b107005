//! Frames of HTTP/2 (RFC 9113 §4 and §6), for the load and for the floor.

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Longest payload of a frame that every server takes, in bytes.
pub(crate) const MAX_FRAME: usize = 16_384;

/// Length of a frame's header, in bytes.
const HEADER: usize = 9;

/// As large as windows can be: they are opened once, for as much as a measurement takes.
const WINDOW: u32 = (1 << 31) - 1;

/// What a client begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Begins a connection with windows as large as they can be; `settings` are further ones.
pub(crate) fn open_windows(out: &mut Vec<u8>, settings: &[u8]) {
    // SETTINGS_INITIAL_WINDOW_SIZE.
    let settings = [settings, &[0, 4], &WINDOW.to_be_bytes()].concat();
    push_frame(out, SETTINGS, 0, 0, &settings);
    // 65,535 are open from the beginning.
    push_frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW - 65_535).to_be_bytes());
}

/// Appends a frame.
pub(crate) fn push_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("frames are short");
    let [_, length @ ..] = length.to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// A frame that has come.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The one that these bytes begin with, if it is whole.
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let [l0, l1, l2, kind, flags, stream @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes([0, l0, l1, l2])).ok()?;
        let payload = rest.get(..length)?;
        Some(Self { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// What it takes, with its header, in bytes.
    pub(crate) const fn length(&self) -> usize {
        HEADER + self.payload.len()
    }
}
