//! The floor for peers of NetBird's protocol over QUIC: one task for each, which writes the source
//! over the destination of each datagram.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use beacon_wire::netbird::{Message, PeerId, auth_response, transport_header};
use bytes::Bytes;
use foldhash::fast::RandomState;
use parking_lot::RwLock;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, Incoming, ServerConfig};
use tokio::runtime::Runtime;

use crate::netbird::{ALPN, EXPOSED, quic_transport};
use crate::tls::Certificate;

/// Where all peers are.
type Places = RwLock<HashMap<PeerId, Connection, RandomState>>;

/// Serves until it is ended; prints its address as the relay logs its own.
pub(super) fn run(certificate: &Certificate) -> anyhow::Result<()> {
    let mut tls = certificate.server()?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config.transport_config(quic_transport());
    let runtime = Runtime::new()?;
    runtime.block_on(async {
        let endpoint = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let address = endpoint.local_addr()?;
        writeln!(io::stderr(), "listening wss={address} udp={address}")?;
        let places = Arc::<Places>::default();
        while let Some(incoming) = endpoint.accept().await {
            let places = Arc::clone(&places);
            tokio::spawn(async move { serve(incoming, &places).await });
        }
        Ok(())
    })
}

async fn serve(incoming: Incoming, places: &Places) -> anyhow::Result<()> {
    let connection = incoming.await?;
    let login = connection.read_datagram().await?;
    let Ok(Message::Auth(auth)) = Message::decode(&login) else { return Ok(()) };
    places.write().insert(auth.peer, connection.clone());
    connection.send_datagram(auth_response(EXPOSED).into())?;
    let head = transport_header(auth.peer);
    // The load has one destination for each sender.
    let mut place: Option<(PeerId, Connection)> = None;
    loop {
        let message = connection.read_datagram().await?;
        let Ok(Message::Transport { dest, payload }) = Message::decode(&message) else { continue };
        if place.as_ref().is_none_or(|(known, _)| *known != dest) {
            place = places.read().get(&dest).map(|place| (dest, place.clone()));
        }
        if let Some((_, to)) = &place {
            to.send_datagram(Bytes::from([&head[..], payload].concat())).context("a peer")?;
        }
    }
}
