//! The client's side of the protocol: what it writes, and what it reads.

use super::{
    AUTH, AUTH_RESPONSE, CLOSE, DecodeError, HEALTH_CHECK, MAGIC, MAX_IDS, MAX_MESSAGE,
    PEERS_ONLINE, PEERS_WENT_OFFLINE, PeerId, PeerIds, SUBSCRIBE, TRANSPORT, UNSUBSCRIBE, VERSION,
    ids, listed,
};

/// Longest payload of a packet, in bytes.
///
/// `8_782` = `8_820` (longest message) - 38 (version, type and id).
pub const MAX_PAYLOAD: usize = MAX_MESSAGE - super::TRANSPORT_HEADER;

/// What a relay says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FromRelay<'a> {
    /// A packet of another peer.
    Transport {
        /// Who sent it.
        source: PeerId,
        /// What it carries.
        payload: &'a [u8],
    },
    /// The relay ends the connection.
    Close,
    /// The relay is alive, and wants to hear the same.
    HealthCheck,
    /// The login was good; the text says where the relay is.
    AuthResponse(&'a str),
    /// These peers are there.
    PeersOnline(PeerIds<'a>),
    /// These have gone.
    PeersWentOffline(PeerIds<'a>),
}

impl<'a> FromRelay<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// Why it is none that relays send.
    pub fn decode(message: &'a [u8]) -> Result<Self, DecodeError> {
        let [version, kind, body @ ..] = message else {
            return Err(DecodeError::NoType(message.len()));
        };
        if *version != VERSION {
            return Err(DecodeError::Version(*version));
        }
        let wrong = DecodeError::Length { kind: *kind, length: message.len() };
        if message.len() > MAX_MESSAGE {
            return Err(wrong);
        }
        match *kind {
            TRANSPORT => {
                let (source, payload) = body.split_first_chunk().ok_or(wrong)?;
                Ok(Self::Transport { source: PeerId(*source), payload })
            }
            CLOSE => Ok(Self::Close),
            HEALTH_CHECK => Ok(Self::HealthCheck),
            AUTH_RESPONSE => {
                str::from_utf8(body).map(Self::AuthResponse).map_err(|_| DecodeError::Login)
            }
            PEERS_ONLINE => ids(body).map(Self::PeersOnline).ok_or(wrong),
            PEERS_WENT_OFFLINE => ids(body).map(Self::PeersWentOffline).ok_or(wrong),
            other => Err(DecodeError::TypeOfRelay(other)),
        }
    }
}

/// The login of a peer with a token as it was given out.
#[must_use]
pub fn auth(peer: PeerId, token: &[u8]) -> Vec<u8> {
    [&[VERSION, AUTH], &MAGIC[..], &peer.0, token].concat()
}

/// The messages that subscribe to peers, each to [`MAX_IDS`] at most.
pub fn subscribe(peers: &[PeerId]) -> impl Iterator<Item = Vec<u8>> {
    listed(SUBSCRIBE, peers, MAX_IDS)
}

/// The messages that end subscriptions to peers, each to [`MAX_IDS`] at most.
pub fn unsubscribe(peers: &[PeerId]) -> impl Iterator<Item = Vec<u8>> {
    listed(UNSUBSCRIBE, peers, MAX_IDS)
}
