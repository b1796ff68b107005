//! In what a door's WebSocket is not as other doors'.

/// In what a door's WebSocket differs, for clients that were written for another server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dialect {
    /// Text need not be UTF-8: the door looks.
    pub takes_any_text: bool,
    /// A Close frame of the peer is answered with the same reason as well.
    pub echoes_close: bool,
    /// What a request is told that is no upgrade, in place of the relay's own words.
    pub upgrade_required: Option<&'static str>,
}

impl Dialect {
    /// The payload that answers that of a peer's Close frame; none where the door has to say it.
    pub(super) fn answer_to_close(self, said: &[u8]) -> Option<&[u8]> {
        if self.echoes_close { Some(said) } else { said.get(..2) }
    }
}
