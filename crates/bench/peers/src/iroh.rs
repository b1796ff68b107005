//! iroh-relay: its server in a process of its own over plain HTTP or HTTPS, its own client as the
//! load.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use beacon_bench::closed_loop::Figures;
use beacon_bench::tls::Certificate;
use bytes::Bytes;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use iroh_base::SecretKey;
use iroh_dns::dns::DnsResolver;
use iroh_relay::client::{Client, ClientBuilder};
use iroh_relay::protos::relay::{ClientToRelayMsg, Datagrams, RelayToClientMsg};
use iroh_relay::server::{CertConfig, RelayConfig, Server as Relay, ServerConfig, TlsConfig};
use iroh_relay::tls::{CaTlsConfig, default_provider};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::closed_loop::{self, Load, Pair};
use crate::server::{Channel, Server};

/// Longest wait for a server that should answer at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a receiver waits before it may see that it is to stop.
const MOMENT: Duration = Duration::from_millis(100);

/// Connections before the measurement, so that what is kept for all is not counted for each.
const WARM_UP: u32 = 50;

/// Is the server: prints its address, and serves until it is ended.
///
/// As iroh-relay's own binary with `--dev`: one worker for each core, everyone let in, no
/// limits. It logs nothing and has no port for metrics.
///
/// # Errors
/// It cannot bind, or ends by itself.
pub(crate) fn serve(certificate: Option<&Path>) -> anyhow::Result<()> {
    let mut relay = RelayConfig::new((Ipv4Addr::LOCALHOST, 0));
    if let Some(folder) = certificate {
        let server_config = Certificate::in_folder(folder).server()?;
        let certificate = CertConfig::Manual { server_config };
        relay.tls = Some(TlsConfig::new((Ipv4Addr::LOCALHOST, 0), certificate));
    }
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut config = ServerConfig::default();
        config.relay = Some(relay);
        let mut relay = Relay::spawn(config).await?;
        let address = relay.https_addr().or_else(|| relay.http_addr());
        let address = address.context("it has an HTTP server")?;
        writeln!(io::stdout(), "{address}")?;
        relay.join().await??;
        Ok(())
    })
}

/// A server and the way to it.
struct Subject {
    server: Server,
    address: SocketAddr,
    names: DnsResolver,
    /// The folder with the certificate, of a server with TLS.
    certificate: Option<TempDir>,
}

impl Subject {
    fn start(channel: Channel) -> anyhow::Result<Self> {
        let mut arguments = vec!["--serve-iroh".to_owned()];
        let certificate = match channel {
            Channel::Plain => None,
            Channel::Tls => {
                let folder = tempfile::tempdir()?;
                Certificate::make(folder.path())?;
                arguments.extend(["--certificate".to_owned(), folder.path().display().to_string()]);
                Some(folder)
            }
        };
        let program = std::env::current_exe()?;
        let program = program.to_str().context("the path of this program is text")?;
        let mut server = Server::start(program, &arguments, Stdio::piped())?;
        let stdout = server.child.stdout.take().context("stdout was piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let address = line.trim().parse().context("iroh-relay does not start")?;
        Ok(Self { server, address, names: DnsResolver::new(), certificate })
    }

    /// Connects and logs in.
    async fn client(&self, number: u32) -> anyhow::Result<Client> {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", self.address).parse::<iroh_base::RelayUrl>()?;
        // Over plain HTTP the client asks for a configuration as well, and uses none.
        let tls = match &self.certificate {
            Some(folder) => Certificate::in_folder(folder.path()).client()?,
            None => CaTlsConfig::default().client_config(default_provider())?,
        };
        let builder = ClientBuilder::new(url, key(number), self.names.clone());
        let builder = builder.tls_client_config(tls);
        Ok(tokio::time::timeout(PATIENCE, builder.connect()).await??)
    }

    fn pair(&self, number: u32, load: &Load, frame: u64) -> anyhow::Result<Pair> {
        let (from, to) = (2 * number + 1, 2 * number + 2);
        let (mut receiver, receiving) = self.end(to)?;
        let (mut sender, sending) = self.end(from)?;
        let dst_endpoint_id = key(to).public();
        let payload = Bytes::from(vec![0xa5; load.size * usize::try_from(frame)?]);
        let (size, segment) = (load.size, NonZeroU16::new(u16::try_from(load.size)?));
        let send = move |mut packets: u64| {
            sending.block_on(async {
                while packets > 0 {
                    let count = packets.min(frame);
                    let contents = payload.slice(..size * usize::try_from(count)?);
                    let segment_size = segment.filter(|_| count > 1);
                    let datagrams = Datagrams { ecn: None, segment_size, contents };
                    sender.feed(ClientToRelayMsg::Datagrams { dst_endpoint_id, datagrams }).await?;
                    packets -= count;
                }
                Ok(sender.flush().await?)
            })
        };
        let receive = move || {
            receiving.block_on(async {
                let mut packets = 0;
                let mut next = tokio::time::timeout(MOMENT, receiver.next()).await.ok();
                while let Some(message) = next {
                    let message = message.context("iroh-relay ended the connection")??;
                    if let RelayToClientMsg::Datagrams { datagrams, .. } = message {
                        packets += datagrams.contents.len().div_ceil(size) as u64;
                    }
                    next = receiver.next().now_or_never();
                }
                Ok(packets)
            })
        };
        Ok(Pair { send: Box::new(send), most: load.window, receive: Box::new(receive) })
    }

    /// One side of a pair, on a runtime that its thread drives.
    fn end(&self, number: u32) -> anyhow::Result<(Client, Runtime)> {
        let runtime = current_thread()?;
        let client = runtime.block_on(self.client(number))?;
        Ok((client, runtime))
    }
}

/// Packets from client to client, `frame` of them in each frame at most.
///
/// # Errors
/// The server does not start, or does not carry the load.
pub(crate) fn throughput(load: &Load, frame: u64, channel: Channel) -> anyhow::Result<Figures> {
    let subject = Subject::start(channel)?;
    let pairs = (0..load.pairs).map(|number| subject.pair(number, load, frame));
    let pairs = pairs.collect::<anyhow::Result<_>>()?;
    closed_loop::measure(subject.server.id(), pairs, load)
}

/// CPU time of the server for a connection with its login, in microseconds; each client leaves
/// before the next comes.
///
/// # Errors
/// The server does not start, or lets a client not in.
pub(crate) fn login_us(count: u32, channel: Channel) -> anyhow::Result<f64> {
    let subject = Subject::start(channel)?;
    let mut before = subject.server.usage()?.cpu;
    current_thread()?.block_on(async {
        for number in 0..count + WARM_UP {
            if number == WARM_UP {
                before = subject.server.usage()?.cpu;
            }
            drop(subject.client(number).await?);
        }
        anyhow::Ok(())
    })?;
    let cpu = subject.server.usage()?.cpu - before;
    Ok(cpu.as_secs_f64() * 1e6 / f64::from(count))
}

/// Anonymous resident memory of the server for each of `count` clients that do nothing, in
/// bytes.
///
/// # Errors
/// The server does not start, or lets a client not in.
pub(crate) fn idle_bytes(count: u32, channel: Channel) -> anyhow::Result<f64> {
    let subject = Subject::start(channel)?;
    let mut before = 0;
    let mut clients = Vec::new();
    current_thread()?.block_on(async {
        for number in 0..count + WARM_UP {
            if number == WARM_UP {
                before = subject.server.usage()?.anonymous;
            }
            clients.push(subject.client(number).await?);
        }
        anyhow::Ok(())
    })?;
    let after = subject.server.usage()?.anonymous;
    Ok(after.saturating_sub(before) as f64 / f64::from(count))
}

fn current_thread() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The key of a client, which its number makes.
fn key(number: u32) -> SecretKey {
    let mut seed = [0x42; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_bytes(&seed)
}
