//! HTTPS to an authority: one request a connection, bounded in time and size.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::http::response::Parts;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use crate::net::dial::Destination;
use crate::net::resolve::Resolver;

/// Time for one request, from the look-up of the name to the last byte.
const LONGEST: Duration = Duration::from_secs(30);

/// Longest body of an answer, in bytes: a chain has a tenth of it.
const MOST_BODY: usize = 256 * 1_024;

/// Longest head of an answer, in bytes.
const MOST_HEAD: usize = 32 * 1_024;

type Cause = Box<dyn StdError + Send + Sync>;

/// Why a request has no answer, or none that is an authority's.
#[derive(Debug, thiserror::Error)]
#[error("{host}: {what}")]
pub(super) struct HttpError {
    host: String,
    what: What,
}

#[derive(Debug, thiserror::Error)]
enum What {
    #[error("not reached: {0}")]
    Connect(std::io::Error),
    #[error("its TLS is not to be trusted: {0}")]
    Tls(std::io::Error),
    #[error("no answer: {0}")]
    Exchange(Cause),
    #[error("no answer within {LONGEST:?}")]
    Late,
    #[error("answers {0}")]
    Status(StatusCode),
    #[error("the directory names {0}, which is no https URL")]
    NotHttps(Uri),
}

/// How long an authority wants to be left alone; the last that said so.
pub(super) type RetryAfter = Arc<Mutex<Option<Duration>>>;

/// A client that trusts whom its configuration does.
#[derive(Clone)]
pub(super) struct Http {
    tls: TlsConnector,
    resolver: Resolver,
    retry_after: RetryAfter,
}

impl Http {
    pub(super) fn new(tls: Arc<ClientConfig>, resolver: Resolver, retry_after: RetryAfter) -> Self {
        Self { tls: TlsConnector::from(tls), resolver, retry_after }
    }

    async fn exchange(self, request: Request<BodyWrapper<Bytes>>) -> Result<BytesResponse, Error> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let failed = |what| Error::Other(Box::new(HttpError { host: host.clone(), what }));
        if request.uri().scheme_str() != Some("https") || host.is_empty() {
            return Err(failed(What::NotHttps(request.uri().clone())));
        }
        let answered = timeout(LONGEST, self.send(request, &host)).await;
        let (parts, body) = answered.map_err(|_| failed(What::Late))?.map_err(failed)?;
        if matches!(parts.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            *self.retry_after.lock() = retry_after(&parts, SystemTime::now());
        }
        // The library reads what an authority says; of others, such as a proxy before it, it would
        // say that they speak no JSON.
        let is_failure = parts.status.is_client_error() || parts.status.is_server_error();
        let content = parts.headers.get(CONTENT_TYPE).and_then(|content| content.to_str().ok());
        if is_failure && !content.is_some_and(|content| content.contains("json")) {
            return Err(failed(What::Status(parts.status)));
        }
        Ok(BytesResponse { parts, body: Box::new(body) })
    }

    async fn send(
        &self,
        request: Request<BodyWrapper<Bytes>>,
        host: &str,
    ) -> Result<(Parts, Bytes), What> {
        let port = request.uri().port_u16().unwrap_or(443);
        let destination = Destination::new(host, port, self.resolver.clone());
        let stream = destination.connect().await.map_err(What::Connect)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare);
        let name = name.map_err(|error| What::Tls(std::io::Error::other(error)))?;
        let stream = self.tls.connect(name, stream).await.map_err(What::Tls)?;
        let mut connection = http1::Builder::new();
        connection.max_buf_size(MOST_HEAD);
        let (mut sender, connection) = connection
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| What::Exchange(error.into()))?;
        // It ends with the exchange, whatever becomes of that.
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let response = sender.send_request(to_origin(request)).await;
        let (parts, body) =
            response.map_err(|error| What::Exchange(error.into())).map(Response::into_parts)?;
        let body = Limited::new(body, MOST_BODY).collect().await.map_err(What::Exchange)?;
        Ok((parts, body.to_bytes()))
    }
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        Box::pin(self.clone().exchange(request))
    }
}

/// The request as its server wants it: with its host in a header, and nothing but the path.
fn to_origin(mut request: Request<BodyWrapper<Bytes>>) -> Request<BodyWrapper<Bytes>> {
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::from_str(authority);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = path.parse::<Uri>();
    if let (Ok(host), Ok(path)) = (host, path) {
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = path;
    }
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    request
}

/// What an answer says of the next request.
fn retry_after(parts: &Parts, now: SystemTime) -> Option<Duration> {
    let text = parts.headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).ok(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{RootCertStore, ServerConfig};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    /// Asks a server over TLS that answers this; what it heard, and what came of it.
    async fn ask(answer: Vec<u8>) -> (String, Result<Bytes, String>, Option<Duration>) {
        let provider = || Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server = ServerConfig::builder_with_provider(provider());
        let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let server = server.with_single_cert(vec![certificate.clone()], key).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = ClientConfig::builder_with_provider(provider());
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(roots).with_no_client_auth();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/a?b", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::new(server)).accept(stream).await.unwrap();
            let mut heard = vec![0; 4_096];
            let length = stream.read(&mut heard).await.unwrap();
            // Whoever has enough leaves.
            let _left = stream.write_all(&answer).await;
            let _left = stream.shutdown().await;
            String::from_utf8(heard[..length].to_vec()).unwrap()
        });
        let retry_after = RetryAfter::default();
        let http = Http::new(Arc::new(client), Resolver::shared(), Arc::clone(&retry_after));
        let request = Request::get(url).body(BodyWrapper::default()).unwrap();
        let body = match http.request(request).await {
            Ok(mut answer) => answer.body.into_bytes().await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let asked = *retry_after.lock();
        (serving.await.unwrap(), body, asked)
    }

    #[tokio::test]
    async fn answer_is_read_up_to_a_bound() {
        let (heard, body, asked) = ask(b"HTTP/1.1 200 OK\r\n\r\nhello".to_vec()).await;
        let heard = heard.to_lowercase();
        assert!(heard.starts_with("get /a?b http/1.1\r\n"), "{heard}");
        assert!(
            heard.contains("\r\nhost: 127.0.0.1:") && heard.contains("connection: close"),
            "{heard}"
        );
        assert_eq!((body, asked), (Ok("hello".into()), None));

        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(MOST_BODY + 1_000, b'x');
        let (_, body, _) = ask(endless).await;
        assert!(body.unwrap_err().contains("length limit exceeded"));
        let mut head = b"HTTP/1.1 200 OK\r\nA: ".to_vec();
        head.resize(2 * MOST_HEAD, b'x');
        let (_, body, _) = ask(head).await;
        assert!(body.unwrap_err().contains("no answer: "));
    }

    #[tokio::test]
    async fn what_is_no_answer_of_an_authority_is_told_with_its_status() {
        let html = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 90\r\nContent-Type: text/html\r\n\r\n<p>";
        let (_, body, asked) = ask(html.as_bytes().to_vec()).await;
        assert_eq!(body.unwrap_err(), "127.0.0.1: answers 503 Service Unavailable");
        assert_eq!(asked, Some(Duration::from_secs(90)));
        let limited = "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 7\r\n\
                       Content-Type: application/problem+json\r\n\r\n{}";
        let (_, body, asked) = ask(limited.as_bytes().to_vec()).await;
        assert_eq!((body, asked), (Ok("{}".into()), Some(Duration::from_secs(7))));
    }

    #[tokio::test]
    async fn nothing_is_said_without_tls() {
        let client = ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ));
        let client = client.with_safe_default_protocol_versions().unwrap();
        let client = client.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        let http = Http::new(Arc::new(client), Resolver::shared(), RetryAfter::default());
        let request = Request::get("http://127.0.0.1:1/").body(BodyWrapper::default()).unwrap();
        let error = http.request(request).await.err().unwrap().to_string();
        assert!(error.contains("which is no https URL"), "{error}");
    }
}
