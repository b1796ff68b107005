//! A node of the demo: its key, and its connection to the relay over either transport.

use std::fmt;

use anyhow::Context as _;
use ed25519_dalek::SigningKey;

use super::Addresses;
use super::netbird::peer;
use crate::client::netbird::{self, Event};
use crate::client::{Client, Delivery, Options, udp};
use crate::ids::{NodeId, PublicKey};

/// How a node is connected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// A WebSocket.
    Wss,
    /// Datagrams.
    Udp,
    /// A WebSocket with TLS, as a client of NetBird.
    Ws,
    /// Datagrams over QUIC, as a client of NetBird.
    Quic,
}

impl Transport {
    /// Whether who uses it is a client of NetBird.
    pub(super) const fn is_netbird(self) -> bool {
        matches!(self, Self::Ws | Self::Quic)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wss => "WSS",
            Self::Udp => "UDP",
            Self::Ws => "WS",
            Self::Quic => "QUIC",
        })
    }
}

/// Who takes part: an id, and the key that the relay's directory must hold for it.
pub struct Node {
    /// The node's id.
    pub id: NodeId,
    /// The node's key.
    pub key: SigningKey,
}

impl Node {
    /// A node with a new key.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn generate(id: NodeId) -> Result<Self, getrandom::Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        Ok(Self { id, key: SigningKey::from_bytes(&seed) })
    }

    /// What the directory must hold.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.key.verifying_key().to_bytes())
    }
}

/// A connected node.
pub(super) enum Peer {
    Wss(Client),
    Udp(udp::Peer),
    /// With whom alone it has to do.
    Netbird(netbird::Client, NodeId),
}

impl Peer {
    pub(super) async fn connect(
        transport: Transport,
        relay: &Addresses,
        node: &Node,
        friend: NodeId,
    ) -> anyhow::Result<Self> {
        let context = || format!("node {} cannot connect over {transport}", node.id);
        let over = match transport {
            Transport::Wss => {
                let options = Options::new(&relay.wss_url, node.id, node.key.clone());
                return Client::connect(&options).await.map(Self::Wss).with_context(context);
            }
            Transport::Udp => {
                let key = Some(node.public_key());
                let peer = udp::Peer::connect(relay.udp, node.id, key, false).await;
                return peer.map(Self::Udp).with_context(context);
            }
            Transport::Ws => netbird::Transport::WebSocket,
            Transport::Quic => netbird::Transport::Quic,
        };
        let site = relay.netbird.as_ref().context("the relay has no listener for NetBird")?;
        let client = site.connect(over, node.id).await;
        client.map(|client| Self::Netbird(client, friend)).with_context(context)
    }

    pub(super) async fn send_to(&mut self, dest: NodeId, payload: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Wss(client) => Ok(client.send_to(dest, payload).await?),
            Self::Udp(peer) => Ok(peer.send_to(dest, payload).await?),
            Self::Netbird(client, _) => Ok(client.send_to(peer(dest), payload).await?),
        }
    }

    /// Cancel-safe.
    pub(super) async fn recv(&mut self) -> anyhow::Result<Delivery> {
        match self {
            Self::Wss(client) => client.recv().await?.context("the session is over"),
            Self::Udp(peer) => Ok(peer.recv().await?),
            Self::Netbird(client, friend) => loop {
                let event = client.recv().await?.context("the session is over")?;
                if let Event::Packet { sender, payload } = event
                    && sender == peer(*friend)
                {
                    return Ok(Delivery::new(*friend, payload));
                }
            },
        }
    }

    /// Leaves the relay; a UDP node has nothing to say for that.
    pub(super) async fn leave(self) -> anyhow::Result<()> {
        match self {
            Self::Wss(client) => Ok(client.bye().await?),
            Self::Udp(_) => Ok(()),
            Self::Netbird(client, _) => Ok(client.close().await?),
        }
    }
}
