//! A tunnel through an HTTP proxy: `CONNECT` (RFC 9110 §9.3.6) with Basic credentials.

use std::io;
use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;

use super::{InvalidProxy, ProxyUrl};
use crate::Target;
use crate::net::dial::Destination;
use crate::net::resolve::Resolver;
use crate::net::tls::{TlsError, Trust, client_config};
use crate::socket::Stream;

/// Longest head of a proxy's answer, in bytes.
const MAX_HEAD: usize = 8 * 1_024;

/// The way through one proxy.
pub struct Tunnel {
    url: ProxyUrl,
    destination: Destination,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why there is no tunnel; shows neither user nor password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProxyError {
    /// The environment names a proxy that is none.
    #[error("the proxy in {name} is of no use: {reason}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What is wrong with its value.
        reason: InvalidProxy,
    },
    /// Nobody answers there, or its name does not resolve.
    #[error("cannot reach the proxy {proxy}: {source}")]
    Unreachable {
        /// The proxy.
        proxy: String,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS handshake with an `https://` proxy failed.
    #[error("the TLS handshake with the proxy {proxy} failed: {source}")]
    Handshake {
        /// The proxy.
        proxy: String,
        /// What TLS or the system said.
        source: io::Error,
    },
    /// It wants a user and a password (407, of some 401): none were given, or others.
    #[error("the proxy {proxy} wants {} (HTTP status {status})", wanted(*gave, *basic))]
    Authentication {
        /// The proxy.
        proxy: String,
        /// The HTTP status.
        status: u16,
        /// Whether it got credentials.
        gave: bool,
        /// Whether it takes Basic credentials, the only kind that we have.
        basic: bool,
    },
    /// It lets nobody through to there (403).
    #[error("the proxy {proxy} forbids connections to {authority} (HTTP status 403)")]
    Forbidden {
        /// The proxy.
        proxy: String,
        /// The relay's host and port.
        authority: String,
    },
    /// It answers with another status: of 502 to 504, it does not reach the relay.
    #[error("the proxy {proxy} does not connect to {authority}: HTTP status {status}")]
    Refused {
        /// The proxy.
        proxy: String,
        /// The relay's host and port.
        authority: String,
        /// The HTTP status.
        status: u16,
    },
    /// What it answers is no HTTP, or too much of it.
    #[error("{proxy} answers as no HTTP proxy does: {reason}")]
    Answer {
        /// The proxy.
        proxy: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The connection broke.
    #[error("the connection to the proxy {proxy} broke: {source}")]
    Broken {
        /// The proxy.
        proxy: String,
        /// What the system said.
        source: io::Error,
    },
}

fn wanted(gave: bool, basic: bool) -> &'static str {
    match (basic, gave) {
        (true, false) => "a user and a password, as in http://user:password@host:port",
        (true, true) => "another user or password",
        (false, _) => "a login of another kind than Basic, which is not supported",
    }
}

impl ProxyError {
    /// Whether a person has to change something before it can work.
    #[must_use]
    pub fn needs_attention(&self) -> bool {
        match self {
            Self::Variable { .. } | Self::Authentication { .. } | Self::Forbidden { .. } => true,
            // A time-out or too many requests pass by themselves, as do troubles of a gateway.
            Self::Refused { status, .. } => !matches!(status, 408 | 429 | 500 | 502..),
            Self::Handshake { source, .. } => {
                source.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
            }
            Self::Unreachable { .. } | Self::Answer { .. } | Self::Broken { .. } => false,
        }
    }
}

impl Tunnel {
    /// Prepares the way through a proxy. The certificate of an `https://` proxy is checked
    /// as the relay's, but for a fingerprint, which is the relay's alone. Blocks for the files.
    ///
    /// # Errors
    /// The certificate authorities are of no use.
    pub fn new(url: ProxyUrl, trust: &Trust, resolver: Resolver) -> Result<Self, TlsError> {
        let tls = if url.tls {
            let trust = if matches!(trust, Trust::Fingerprint(_)) { &Trust::System } else { trust };
            let name = ServerName::try_from(url.host.clone()).expect("a proxy's URL has a host");
            Some((TlsConnector::from(client_config(trust)?), name))
        } else {
            None
        };
        let destination = Destination::new(&url.host, url.port, resolver);
        Ok(Self { url, destination, tls })
    }

    /// The proxy.
    #[must_use]
    pub const fn url(&self) -> &ProxyUrl {
        &self.url
    }

    /// Connects to the proxy, and has it connect to the target. The caller bounds the time.
    ///
    /// # Errors
    /// No proxy there, or one that does not let us through.
    pub async fn open(
        &self,
        target: &Target,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, ProxyError> {
        self.open_noting(&mut None, target).await
    }

    /// As [`Self::open`]; `reached` is the address of the proxy that took a connection.
    pub(crate) async fn open_noting(
        &self,
        reached: &mut Option<SocketAddr>,
        target: &Target,
    ) -> Result<Box<dyn Stream>, ProxyError> {
        let proxy = || self.url.to_string();
        let tcp = self.destination.connect().await;
        let mut tcp = tcp.map_err(|source| ProxyError::Unreachable { proxy: proxy(), source })?;
        *reached = tcp.peer_addr().ok();
        match &self.tls {
            Some((connector, name)) => {
                let shaken = connector.connect(name.clone(), tcp).await;
                let mut tls =
                    shaken.map_err(|source| ProxyError::Handshake { proxy: proxy(), source })?;
                ask(&mut tls, &self.url, target).await?;
                Ok(Box::new(tls))
            }
            None => {
                ask(&mut tcp, &self.url, target).await?;
                Ok(Box::new(tcp))
            }
        }
    }

    /// Has this address of the proxy tried after all others.
    pub(crate) fn demote(&self, address: SocketAddr) {
        self.destination.demote(address);
    }
}

/// Asks the proxy at the other end of `stream` to connect to the target.
async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    url: &ProxyUrl,
    target: &Target,
) -> Result<(), ProxyError> {
    let Target { host, port, .. } = target;
    let authority =
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let broken = |source| ProxyError::Broken { proxy: url.to_string(), source };
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n");
    if let Some(credentials) = &url.credentials {
        request = format!("{request}Proxy-Authorization: Basic {credentials}\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;

    let answer = |reason| ProxyError::Answer { proxy: url.to_string(), reason };
    let (head, rest) = read_head(stream).await.map_err(|error| match error {
        HeadError::TooLong => answer("the head is longer than 8 KiB"),
        HeadError::Closed => answer("it closes the connection"),
        HeadError::Io(source) => broken(source),
    })?;
    let proxy = url.to_string();
    match status(&head).ok_or_else(|| answer("the head has no status"))? {
        // Neither TLS nor HTTP speaks first on a relay's side.
        200..=299 if rest > 0 => Err(answer("it speaks before it was spoken to")),
        200..=299 => Ok(()),
        403 => Err(ProxyError::Forbidden { proxy, authority }),
        status @ (401 | 407) => {
            let (gave, basic) = (url.credentials.is_some(), offers_basic(&head));
            Err(ProxyError::Authentication { proxy, status, gave, basic })
        }
        status => Err(ProxyError::Refused { proxy, authority, status }),
    }
}

enum HeadError {
    TooLong,
    Closed,
    Io(io::Error),
}

/// Reads the head of an answer; how many bytes came behind it.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(String, usize), HeadError> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = Vec::with_capacity(512);
    loop {
        let room = MAX_HEAD - head.len();
        let read = (&mut *stream).take(room as u64).read_buf(&mut head).await;
        if read.map_err(HeadError::Io)? == 0 {
            return Err(if room == 0 { HeadError::TooLong } else { HeadError::Closed });
        }
        if let Some(at) = head.windows(END.len()).position(|bytes| bytes == END) {
            let rest = head.len() - at - END.len();
            head.truncate(at);
            return Ok((String::from_utf8_lossy(&head).into_owned(), rest));
        }
    }
}

/// The status of `HTTP/1.1 200 …`.
fn status(head: &str) -> Option<u16> {
    let line = head.lines().next()?;
    let mut words = line.split(' ');
    let version = words.next()?;
    let status = words.next().filter(|status| status.len() == 3)?;
    if version.starts_with("HTTP/1.") { status.parse().ok() } else { None }
}

/// Whether a proxy that wants a login takes Basic credentials, by the kinds that it names.
fn offers_basic(head: &str) -> bool {
    let headers = head.lines().filter_map(|line| line.split_once(':'));
    let is_offer = |name: &str| {
        ["proxy-authenticate", "www-authenticate"]
            .iter()
            .any(|offer| name.eq_ignore_ascii_case(offer))
    };
    let mut kinds = headers.filter(|(name, _)| is_offer(name)).peekable();
    kinds.peek().is_none() || kinds.any(|(_, kind)| kind.to_ascii_lowercase().contains("basic"))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// Asks a proxy that answers so; what it was asked, and what came of it.
    async fn asked(url: &str, answer: &str) -> (String, Result<(), ProxyError>) {
        let (mut ours, mut theirs) = duplex(1 << 16);
        theirs.write_all(answer.as_bytes()).await.unwrap();
        theirs.shutdown().await.unwrap();
        let target = Target::parse("wss://relay.test").unwrap();
        let result = ask(&mut ours, &url.parse().unwrap(), &target).await;
        drop(ours);
        let mut request = String::new();
        theirs.read_to_string(&mut request).await.unwrap();
        (request, result)
    }

    #[tokio::test]
    async fn proxy_is_asked_by_name_with_basic_credentials() {
        let (request, result) =
            asked("http://Aladdin:open%20sesame@p", "HTTP/1.1 200 Connected\r\n\r\n").await;
        result.unwrap();
        let expected = "CONNECT relay.test:443 HTTP/1.1\r\nHost: relay.test:443\r\n\
                        Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n";
        assert_eq!(request, expected);
        let (request, result) = asked("http://p", "HTTP/1.0 200\r\nVia: x\r\n\r\n").await;
        result.unwrap();
        assert!(!request.contains("Authorization"), "{request}");
    }

    #[tokio::test]
    async fn refusals_say_what_to_do_and_no_password() {
        for (answer, part, attention) in [
            ("HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\n\r\nbody", "another user", true),
            ("HTTP/1.1 407 x\r\nproxy-authenticate: Negotiate\r\n\r\n", "another kind", true),
            ("HTTP/1.0 401 x\r\nWWW-Authenticate: Basic\r\n\r\n", "another user", true),
            ("HTTP/1.1 403 Filtered\r\n\r\n", "forbids connections to relay.test:443", true),
            ("HTTP/1.1 405 x\r\n\r\n", "HTTP status 405", true),
            ("HTTP/1.1 502 x\r\n\r\n", "HTTP status 502", false),
            ("HTTP/1.1 200 x\r\n\r\nearly", "speaks before", false),
            ("SSH-2.0-OpenSSH_9.2\r\n\r\n", "no status", false),
            ("HTTP/1.1 20 x\r\n\r\n", "no status", false),
            ("HTTP/1.1 200 x\r\n", "closes", false),
            ("", "closes", false),
        ] {
            let error = asked("http://me:secret@p", answer).await.1.unwrap_err();
            let text = error.to_string();
            assert!(text.contains(part) && !text.contains("secret"), "{answer:?}: {text}");
            assert_eq!(error.needs_attention(), attention, "{text}");
        }
        let error = asked("http://p", "HTTP/1.1 407 x\r\n\r\n").await.1.unwrap_err();
        assert!(error.to_string().contains("a user and a password"), "{error}");
    }

    #[tokio::test]
    async fn head_without_an_end_is_given_up_at_8_kib() {
        let endless = format!("HTTP/1.1 200 x\r\nX: {}", "x".repeat(3 * MAX_HEAD));
        let error = asked("http://p", &endless).await.1.unwrap_err();
        assert!(error.to_string().contains("8 KiB"), "{error}");
    }
}
