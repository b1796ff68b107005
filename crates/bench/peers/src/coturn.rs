//! coturn: a TURN server of Debian's, and the least of a TURN client (RFC 8656).
//!
//! A pair is a client, whose packets are ChannelData, and a plain UDP socket as its peer.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};
use beacon_bench::closed_loop::Figures;
use beacon_relay::net::udp::{
    self, BatchSocket, Datagrams as _, MAX_RUN, MAX_RUN_PACKETS, MAX_SEGMENT, Received, Run,
};

use crate::closed_loop::{self, Load, Pair};
use crate::server::Server;

/// Requests before a server that does not answer is given up; each waits 100 ms.
const TRIES: u32 = 50;

const ALLOCATE: u16 = 0x0003;
const CHANNEL_BIND: u16 = 0x0009;
/// Added to the type of a request, it makes the type of its success.
const SUCCESS: u16 = 0x0100;
const CHANNEL_NUMBER: u16 = 0x000c;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const REQUESTED_TRANSPORT: u16 = 0x0019;
const MAGIC_COOKIE: u32 = 0x2112_a442;
/// UDP among the protocols of IP.
const UDP: u8 = 17;
/// The first number that a channel may have; each client has one channel.
const CHANNEL: u16 = 0x4000;

/// The version of the coturn that is installed.
///
/// # Errors
/// There is none.
pub(crate) fn version() -> anyhow::Result<String> {
    let output = Command::new("turnserver").arg("--version").stderr(Stdio::null()).output();
    let output = output.context("cannot run turnserver, which is in Debian's package coturn")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    Ok(version.context("turnserver names its version")?.to_owned())
}

/// Packets from clients to peers.
///
/// # Errors
/// The server does not start, or does not answer.
pub(crate) fn throughput(load: &Load) -> anyhow::Result<Figures> {
    let subject = Subject::start()?;
    let pairs = (0..load.pairs).map(|_| subject.pair(load));
    let pairs = pairs.collect::<anyhow::Result<_>>()?;
    closed_loop::measure(subject.server.id(), pairs, load)
}

/// A server, its address, and the folder that it may write to.
struct Subject {
    server: Server,
    address: SocketAddr,
    folder: PathBuf,
}

impl Subject {
    /// Starts coturn with a thread for each core, without TLS, credentials or limits.
    fn start() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("bench-peers-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        // It takes no port 0: one that was free a moment ago.
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let cores = std::thread::available_parallelism()?;
        let (port, folder_name) = (address.port(), folder.display());
        let arguments = format!(
            "-n --listening-ip 127.0.0.1 --relay-ip 127.0.0.1 --listening-port {port} \
             --relay-threads {cores} --no-auth --allow-loopback-peers --no-tls --no-dtls \
             --no-tcp --no-tcp-relay --no-cli --no-rfc5780 --log-file stdout \
             --userdb {folder_name}/users --pidfile {folder_name}/id"
        );
        let arguments: Vec<_> = arguments.split_whitespace().map(str::to_owned).collect();
        let server = Server::start("turnserver", &arguments, Stdio::null())?;
        Ok(Self { server, address, folder })
    }

    /// A client with a channel to a peer.
    fn pair(&self, load: &Load) -> anyhow::Result<Pair> {
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let peer = BatchSocket::new(udp::open(local)?)?;
        let client = BatchSocket::new(udp::open(local)?)?;
        let SocketAddr::V4(peer_address) = peer.address() else { bail!("the peer is on IPv4") };
        let transport = attribute(REQUESTED_TRANSPORT, [UDP, 0, 0, 0]);
        self.request(&client, ALLOCATE, &transport)?;
        let [high, low] = CHANNEL.to_be_bytes();
        let channel = attribute(CHANNEL_NUMBER, [high, low, 0, 0]);
        let place = attribute(XOR_PEER_ADDRESS, xor_address(peer_address));
        self.request(&client, CHANNEL_BIND, &[channel, place].concat())?;

        let packet = channel_data(load.size)?;
        let most = if packet.len() > MAX_SEGMENT { 1 } else { MAX_RUN / packet.len() };
        let most = most.min(MAX_RUN_PACKETS);
        let (run, segment, to) = (packet.repeat(most), packet.len(), self.address);
        let send = move |packets: u64| {
            let bytes = run.get(..segment * usize::try_from(packets)?).context("a run holds it")?;
            client.send(&[Run { to, from: None, bytes, segment }], &mut |_, _, _| {});
            Ok(())
        };
        let mut received = Received::new();
        let receive = move || {
            peer.receive(&mut received)?;
            Ok(received.iter().count() as u64)
        };
        Ok(Pair { send: Box::new(send), most: most as u64, receive: Box::new(receive) })
    }

    /// Sends a request until the server says yes.
    fn request(&self, client: &BatchSocket, kind: u16, attributes: &[u8]) -> anyhow::Result<()> {
        let mut request = kind.to_be_bytes().to_vec();
        request.extend_from_slice(&u16::try_from(attributes.len())?.to_be_bytes());
        request.extend_from_slice(&MAGIC_COOKIE.to_be_bytes());
        // The id of the transaction: a client has one at a time.
        request.extend_from_slice(&[0x42; 12]);
        request.extend_from_slice(attributes);
        let mut received = Received::new();
        for _ in 0..TRIES {
            let (bytes, segment) = (request.as_slice(), request.len());
            client.send(&[Run { to: self.address, from: None, bytes, segment }], &mut |_, _, _| {});
            client.receive(&mut received)?;
            let success = (kind + SUCCESS).to_be_bytes();
            if received.iter().any(|(_, answer)| answer.starts_with(&success)) {
                return Ok(());
            }
        }
        bail!("coturn at {} does not allow request {kind:#06x}", self.address)
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        // What it left, it left in the system's folder for such things.
        let _removed = fs::remove_dir_all(&self.folder);
    }
}

/// An attribute whose value needs no padding.
fn attribute<const N: usize>(kind: u16, value: [u8; N]) -> Vec<u8> {
    let length = u16::try_from(N).expect("attributes here are short");
    [&kind.to_be_bytes()[..], &length.to_be_bytes(), &value].concat()
}

/// An address as STUN writes it: XORed with the magic cookie.
fn xor_address(address: SocketAddrV4) -> [u8; 8] {
    const IPV4: u8 = 1;
    let cookie = MAGIC_COOKIE.to_be_bytes();
    let [a, b] = (address.port() ^ u16::from_be_bytes([cookie[0], cookie[1]])).to_be_bytes();
    let [c, d, e, f] = (address.ip().to_bits() ^ MAGIC_COOKIE).to_be_bytes();
    [0, IPV4, a, b, c, d, e, f]
}

/// A packet on the channel: 4 bytes of header, then the payload.
fn channel_data(size: usize) -> anyhow::Result<Vec<u8>> {
    let length = u16::try_from(size).context("a payload of TURN is shorter than 64 KiB")?;
    Ok([&CHANNEL.to_be_bytes()[..], &length.to_be_bytes(), &vec![0xa5; size]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_written_as_rfc_5769_writes_it() {
        let address = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 32_853);

        assert_eq!(xor_address(address), [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
    }
}
