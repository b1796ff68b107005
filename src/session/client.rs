//! Who connects.

use std::net::SocketAddr;

/// A client, as a door sees it during the login.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Where it is seen at: by the word of a trusted proxy, if it came by one.
    pub address: SocketAddr,
    /// It is the relay's own client, which looks whether peers are served: see
    /// [`super::Server::expect`].
    pub is_probe: bool,
}
