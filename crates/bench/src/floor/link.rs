//! The one connection between two floors: TLS over TCP, or a stream of QUIC.
//!
//! A packet on it is the length of what its receiver gets, its destination, and that.

use std::io::{self, Read as _};
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::Context as _;
use beacon_relay::net::udp::Datagrams;
use bytes::Bytes;
use parking_lot::Mutex;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use quinn::{TransportConfig, VarInt};
use tokio::runtime::{Handle, Runtime};

use super::Places;
use super::lanes::{Lanes, push_head};
use crate::tls::{Certificate, NAME, Tls, TlsStream};

/// Length and destination.
const HEAD: usize = 8;

/// Bytes of one read.
const READ: usize = 262_144;

/// Pieces of a QUIC stream that are taken at once.
const PIECES: usize = 64;

/// Bytes of a QUIC stream under way.
const WINDOW: u32 = 8_388_608;

/// What two floors are joined by.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(in super::super) enum Transport {
    Tcp,
    Quic,
}

/// The way to the other floor.
pub(super) enum Link {
    Tcp(Box<Tcp>),
    Quic { stream: Box<Mutex<SendStream>>, runtime: Handle },
}

/// A stream whose two sides share the state of TLS.
pub(super) struct Tcp {
    stream: TcpStream,
    tls: Mutex<Tls>,
    /// The ciphertext of whoever writes.
    sealed: Mutex<Vec<u8>>,
}

impl Link {
    /// Sends the packets of a batch, waiting where it must; nothing is left of it.
    pub(super) fn send(&self, batch: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Self::Tcp(link) => link.send(batch),
            Self::Quic { stream, runtime } => {
                let mut stream = stream.lock();
                let written = stream.write_chunk(Bytes::from(mem::take(batch)));
                runtime.block_on(written).map_err(io::Error::other)
            }
        }
    }
}

impl Tcp {
    fn send(&self, batch: &[u8]) -> io::Result<()> {
        let mut sealed = self.sealed.lock();
        // The reader needs the state meanwhile, so it is not kept during the write.
        let length = self.tls.lock().seal(batch, &mut sealed)?;
        super::write(&self.stream, sealed.get(..length).unwrap_or_default())
    }

    fn receive(&self, mut deliver: Deliver) -> io::Result<()> {
        let mut incoming = vec![0; READ];
        let mut filled = 0;
        let (mut plain, mut answer) = (Vec::new(), Vec::new());
        loop {
            let read = (&self.stream).read(incoming.get_mut(filled..).unwrap_or_default())?;
            filled += read;
            let came = incoming.get_mut(..filled).unwrap_or_default();
            let opened = self.tls.lock().open(came, &mut plain, &mut answer)?;
            if read == 0 || opened.is_over {
                return Ok(());
            }
            incoming.copy_within(opened.used..filled, 0);
            filled -= opened.used;
            deliver.feed(&plain);
            deliver.flush();
            plain.clear();
        }
    }
}

/// What a floor needs to be joined.
pub(super) struct Join {
    pub(super) certificate: Certificate,
    pub(super) places: Arc<Places>,
    pub(super) socket: Arc<dyn Datagrams>,
}

impl Join {
    /// Waits for the other floor at the address that it returns.
    pub(super) fn wait(self, transport: Transport) -> anyhow::Result<SocketAddr> {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        match transport {
            Transport::Tcp => {
                let listener = TcpListener::bind(local)?;
                let address = listener.local_addr()?;
                let config = Arc::new(self.certificate.server()?);
                thread::spawn(move || {
                    let (stream, _) = listener.accept()?;
                    self.over_tcp(stream, Tls::server(config)?)
                });
                Ok(address)
            }
            Transport::Quic => {
                let runtime = Runtime::new()?;
                let config = QuicServerConfig::try_from(self.certificate.server()?)?;
                let mut config = ServerConfig::with_crypto(Arc::new(config));
                config.transport_config(transport_config());
                let _entered = runtime.enter();
                let endpoint = Endpoint::server(config, local)?;
                let address = endpoint.local_addr()?;
                thread::spawn(move || {
                    let accepted = runtime.block_on(async {
                        let incoming = endpoint.accept().await.context("it listens")?;
                        let connection = incoming.await?;
                        let streams = connection.accept_bi().await?;
                        anyhow::Ok((connection, streams))
                    });
                    accepted.and_then(|(connection, streams)| {
                        self.over_quic(&runtime, connection, streams)
                    })
                });
                Ok(address)
            }
        }
    }

    /// Joins the floor that waits at `to`.
    pub(super) fn dial(self, transport: Transport, to: SocketAddr) -> anyhow::Result<()> {
        let config = self.certificate.client()?;
        match transport {
            Transport::Tcp => {
                self.over_tcp(TcpStream::connect(to)?, Tls::client(Arc::new(config))?)
            }
            Transport::Quic => {
                let runtime = Runtime::new()?;
                let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
                config.transport_config(transport_config());
                let dialed = runtime.block_on(async {
                    let endpoint = Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0)))?;
                    let connection = endpoint.connect_with(config, to, NAME)?.await?;
                    let (mut send, receive) = connection.open_bi().await?;
                    // The other side hears of a stream by its first bytes: a packet of nothing.
                    let mut hello = Vec::new();
                    push_head(0, 0, &mut hello);
                    send.write_all(&hello).await?;
                    anyhow::Ok((connection, (send, receive)))
                });
                let (connection, streams) = dialed?;
                thread::spawn(move || self.over_quic(&runtime, connection, streams));
                Ok(())
            }
        }
    }

    fn over_tcp(self, stream: TcpStream, tls: Tls) -> anyhow::Result<()> {
        stream.set_nodelay(true)?;
        let (stream, tls) = TlsStream::new(stream, tls)?.into_parts()?;
        let link = Tcp { stream, tls: Mutex::new(tls), sealed: Mutex::default() };
        let link = Arc::new(Link::Tcp(Box::new(link)));
        self.publish(Arc::clone(&link));
        let deliver = self.deliver();
        thread::spawn(move || match &*link {
            Link::Tcp(link) => link.receive(deliver),
            Link::Quic { .. } => Ok(()),
        });
        Ok(())
    }

    /// Serves a stream of QUIC until it ends.
    fn over_quic(
        self,
        runtime: &Runtime,
        connection: Connection,
        (send, mut receive): (SendStream, RecvStream),
    ) -> anyhow::Result<()> {
        let (stream, handle) = (Box::new(Mutex::new(send)), runtime.handle().clone());
        self.publish(Arc::new(Link::Quic { stream, runtime: handle }));
        let mut deliver = self.deliver();
        // On this thread, which may wait for a peer.
        runtime.block_on(async move {
            let mut pieces = [const { Bytes::new() }; PIECES];
            while let Some(count) = receive.read_chunks(&mut pieces).await? {
                pieces.iter().take(count).for_each(|piece| deliver.feed(piece));
                deliver.flush();
            }
            drop(connection);
            Ok(())
        })
    }

    fn publish(&self, link: Arc<Link>) {
        // A floor is joined once.
        let _again = self.places.link.set(link);
    }

    fn deliver(&self) -> Deliver {
        Deliver {
            places: Arc::clone(&self.places),
            socket: Arc::clone(&self.socket),
            lanes: Lanes::default(),
            carry: Vec::new(),
        }
    }
}

fn transport_config() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(WINDOW.into());
    Arc::new(config)
}

/// Delivers what comes from the other floor.
struct Deliver {
    places: Arc<Places>,
    socket: Arc<dyn Datagrams>,
    lanes: Lanes,
    /// The beginning of a packet.
    carry: Vec<u8>,
}

impl Deliver {
    fn feed(&mut self, mut bytes: &[u8]) {
        while !self.carry.is_empty() && !bytes.is_empty() {
            let wanted = wanted(&self.carry).unwrap_or(HEAD);
            let (now, later) = bytes.split_at((wanted - self.carry.len()).min(bytes.len()));
            self.carry.extend_from_slice(now);
            bytes = later;
            if wanted_is_there(&self.carry) {
                let packet = mem::take(&mut self.carry);
                self.push(&packet);
            }
        }
        while let Some(packet) = wanted(bytes).and_then(|wanted| bytes.get(..wanted)) {
            self.push(packet);
            bytes = bytes.get(packet.len()..).unwrap_or_default();
        }
        self.carry.extend_from_slice(bytes);
    }

    fn push(&mut self, packet: &[u8]) {
        let dest = packet.get(4..HEAD).and_then(|dest| dest.first_chunk());
        let bytes = packet.get(HEAD..).unwrap_or_default();
        if let Some(dest) = dest.filter(|_| !bytes.is_empty()) {
            self.lanes.push(&self.places, u32::from_be_bytes(*dest), &[], bytes);
        }
    }

    fn flush(&mut self) {
        self.lanes.flush(&*self.socket);
    }
}

/// How long a packet is with its head, once its length is there.
fn wanted(bytes: &[u8]) -> Option<usize> {
    let length = u32::from_be_bytes(*bytes.first_chunk()?);
    Some(HEAD + usize::try_from(length).ok()?)
}

fn wanted_is_there(bytes: &[u8]) -> bool {
    bytes.len() >= HEAD && wanted(bytes).is_some_and(|wanted| bytes.len() >= wanted)
}
