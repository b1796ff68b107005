//! A crowd of daemons on one runtime: each keeps a WebSocket through a TLS proxy, from the
//! address of its office, and dials again by the fleet's back-off when it ends.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use beacon_relay::client::backoff::Backoff;
use beacon_relay::ids::{NodeId, PublicKey};
use beacon_relay::net::tls::{Trust, client_config};
use beacon_relay::wire::auth::{AUTH_OK, Challenge, Generation, MaxMessage, Reply};
use beacon_relay::wire::beacon;
use ed25519_dalek::Signer as _;
use futures_util::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use rustix::process::{Resource, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::harness::{Node, PATIENCE, look_until};

/// Longest wait for what a crowd does: a thousand TLS handshakes on a machine with other work.
pub(super) const CROWD_PATIENCE: Duration = Duration::from_secs(60);

/// Daemons that log in for the first time at once. More of them would only time each other out.
const FIRST_LOGINS: usize = 64;

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// The daemons; they end with it.
pub(super) struct Crowd {
    size: usize,
    seen: Arc<Seen>,
    probe: watch::Sender<()>,
    _runtime: Runtime,
}

/// What the daemons have seen, all together.
#[derive(Default)]
pub(super) struct Seen {
    /// Sessions that are open.
    live: AtomicUsize,
    /// Logins that were accepted.
    accepted: AtomicUsize,
    /// Upgrades that got 429.
    pub(super) limited: AtomicUsize,
    /// Dials that failed otherwise.
    pub(super) failed: AtomicUsize,
    /// Answers to probes.
    answers: AtomicUsize,
    /// How sessions ended: the close code, or none.
    pub(super) ends: Mutex<BTreeMap<Option<u16>, usize>>,
}

/// What one daemon needs.
#[derive(Clone)]
struct Daemon {
    node: Node,
    office: Ipv4Addr,
    proxy: SocketAddr,
    tls: TlsConnector,
    first_logins: Arc<Semaphore>,
    seen: Arc<Seen>,
    probed: watch::Receiver<()>,
}

impl Crowd {
    /// So many daemons of the nodes 1 and up, in so many offices. Their first logins come one
    /// after another, [`FIRST_LOGINS`] at a time; all later ones when each daemon wants.
    pub(super) fn dial(size: usize, offices: usize, proxy: SocketAddr, ca: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let seen = Arc::<Seen>::default();
        let (probe, probed) = watch::channel(());
        let first_logins = Arc::new(Semaphore::new(FIRST_LOGINS));
        let tls = TlsConnector::from(client_config(&Trust::CaFile(ca.to_owned())).unwrap());
        for number in 0..size {
            let daemon = Daemon {
                node: Node::new(u32::try_from(number).unwrap() + 1),
                office: office(number % offices),
                proxy,
                tls: tls.clone(),
                first_logins: Arc::clone(&first_logins),
                seen: Arc::clone(&seen),
                probed: probed.clone(),
            };
            runtime.spawn(daemon.live());
        }
        Self { size, seen, probe, _runtime: runtime }
    }

    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Waits until all are connected.
    pub(super) fn wait_until_connected(&self, patience: Duration) {
        let all = || (count(&self.seen.live) == self.size).then_some(());
        look_until(Instant::now() + patience, all).unwrap_or_else(|| self.complain("connected"));
    }

    /// Waits until so many sessions have ended.
    pub(super) fn wait_for_ends(&self, number: usize) {
        let ended = || (self.seen.ends.lock().values().sum::<usize>() == number).then_some(());
        look_until(Instant::now() + CROWD_PATIENCE, ended)
            .unwrap_or_else(|| self.complain("ended"));
    }

    /// Waits until so many logins were accepted.
    pub(super) fn wait_for_accepted(&self, number: usize) {
        let accepted = || (count(&self.seen.accepted) >= number).then_some(());
        look_until(Instant::now() + CROWD_PATIENCE, accepted)
            .unwrap_or_else(|| self.complain("accepted"));
    }

    /// Lets all that are connected ask the relay something; waits until all are answered.
    pub(super) fn probe(&self) {
        let expected = count(&self.seen.answers) + self.size;
        self.probe.send(()).unwrap();
        let answered = || (count(&self.seen.answers) == expected).then_some(());
        look_until(Instant::now() + CROWD_PATIENCE, answered)
            .unwrap_or_else(|| self.complain("answered"));
    }

    fn complain(&self, what: &str) -> ! {
        let Seen { live, accepted, limited, failed, answers, ends } = &*self.seen;
        let [live, accepted, limited, failed, answers] =
            [live, accepted, limited, failed, answers].map(count);
        panic!(
            "never all {what}: {live} live of {}, {accepted} accepted, {limited} limited, \
             {failed} failed, {answers} answers, {:?}",
            self.size,
            ends.lock()
        );
    }
}

/// An address of 127.0.0.0/8 that nobody else uses.
fn office(number: usize) -> Ipv4Addr {
    let [_, _, high, low] = u32::try_from(number).unwrap().to_be_bytes();
    Ipv4Addr::new(127, 42, high, low)
}

pub(super) fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::Relaxed)
}

fn add(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Daemon {
    async fn live(mut self) {
        let mut backoff = Backoff::default();
        let first_logins = Arc::clone(&self.first_logins);
        let mut turn = first_logins.acquire().await.ok();
        loop {
            match timeout(PATIENCE, self.log_in()).await.unwrap_or(Err(Error::ConnectionClosed)) {
                Ok(socket) => {
                    turn.take();
                    let began = Instant::now();
                    add(&self.seen.live);
                    add(&self.seen.accepted);
                    let end = self.use_session(socket).await;
                    self.seen.live.fetch_sub(1, Ordering::Relaxed);
                    *self.seen.ends.lock().entry(end).or_default() += 1;
                    backoff.session_ended(began.elapsed());
                }
                Err(Error::Http(response)) if response.status() == 429 => add(&self.seen.limited),
                Err(_) => add(&self.seen.failed),
            }
            let random = getrandom::u32().unwrap();
            sleep(backoff.next_delay(random)).await;
        }
    }

    async fn log_in(&self) -> Result<Socket, Error> {
        let tcp = TcpSocket::new_v4()?;
        tcp.bind((self.office, 0).into())?;
        let tcp = tcp.connect(self.proxy).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let tls = self.tls.connect(name, tcp).await?;
        let url = format!("wss://localhost:{}/v1/compat", self.proxy.port());
        let mut request = url.into_client_request()?;
        let pilot = HeaderValue::from_static("pilot.v1");
        request.headers_mut().insert("sec-websocket-protocol", pilot);
        let (mut socket, _) = client_async(request, tls).await?;

        let challenge = Challenge::decode(&next_text(&mut socket).await?).unwrap();
        let node = NodeId::new(self.node.id).unwrap();
        let text = challenge.signed_text(node, Generation::Second);
        let reply = Reply {
            node,
            public_key: PublicKey(self.node.key.verifying_key().to_bytes()),
            signature: self.node.key.sign(text.as_bytes()).to_bytes(),
            generation: None,
            max_message: MaxMessage::LEAST,
        };
        socket.send(Message::text(reply.encode())).await?;
        assert_eq!(next_text(&mut socket).await?, AUTH_OK);
        Ok(socket)
    }

    /// Answers probes until the session ends; its close code.
    async fn use_session(&mut self, mut socket: Socket) -> Option<u16> {
        self.probed.mark_unchanged();
        let mut discover = Vec::new();
        let node = NodeId::new(self.node.id).unwrap();
        beacon::encode_discover(node, None, false, &mut discover);
        loop {
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Binary(_))) => add(&self.seen.answers),
                    Some(Ok(Message::Close(frame))) => return frame.map(|frame| frame.code.into()),
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => return None,
                },
                changed = self.probed.changed() => {
                    changed.ok()?;
                    socket.send(Message::binary(discover.clone())).await.ok()?;
                }
            }
        }
    }
}

async fn next_text(socket: &mut Socket) -> Result<String, Error> {
    match socket.next().await {
        Some(Ok(Message::Text(text))) => Ok(text.as_str().to_owned()),
        Some(Err(error)) => Err(error),
        Some(Ok(_)) | None => Err(Error::Io(io::ErrorKind::UnexpectedEof.into())),
    }
}

/// Raises the descriptor limit of this process, and so of what it starts.
pub(super) fn raise_descriptors(wanted: u64) {
    let mut limit = getrlimit(Resource::Nofile);
    assert!(limit.maximum.is_none_or(|most| most >= wanted), "ulimit -Hn is below {wanted}");
    limit.current = Some(limit.current.unwrap_or(u64::MAX).max(wanted));
    setrlimit(Resource::Nofile, limit).unwrap();
}
