//! The same actions over HTTP: `POST /actions/<name>`, its arguments as a JSON object, for
//! whoever shows the token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Path, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http_body_util::LengthLimitError;
use serde_json::{Map, Value};
use sha2::Sha256;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::actions::by_http;
use super::{Action, Actions, BadRequest, MAX_REQUEST, Refused, reply};

/// Time for the body of a request to come.
const BODY_TIME: Duration = Duration::from_secs(5);

/// What whoever asks has to show. Kept as a MAC under a key of this process: the comparison
/// takes the same time whatever it is compared with.
pub struct Token {
    key: [u8; 32],
    mac: Vec<u8>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// The token of this text.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has randomness once it has booted");
        let mac = Self::mac(&key, secret).finalize().into_bytes().to_vec();
        Self { key, mac }
    }

    fn mac(key: &[u8; 32], secret: &str) -> Hmac<Sha256> {
        let mac: Hmac<Sha256> =
            Hmac::new_from_slice(key).expect("an HMAC takes keys of any length");
        mac.chain_update(secret.as_bytes())
    }

    fn is(&self, given: &str) -> bool {
        Self::mac(&self.key, given).verify_slice(&self.mac).is_ok()
    }
}

#[derive(Debug)]
struct Door {
    actions: Arc<Actions>,
    token: Option<Token>,
}

/// The routes of actions; without a token they refuse everything. Each connection has to bring its
/// address and its place, an `Arc<OwnedSemaphorePermit>`, as extensions.
pub fn routes(actions: Arc<Actions>, token: Option<Token>) -> Router {
    let door = Arc::new(Door { actions, token });
    Router::new().route("/actions/{name}", post(act)).with_state(door)
}

async fn act(
    State(door): State<Arc<Door>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    Extension(place): Extension<Arc<OwnedSemaphorePermit>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    match door.request(name, &headers, body).await {
        Ok(action) => match door.actions.run(action, by_http(from)).await {
            Ok(json) => answer(StatusCode::OK, &Ok(json)),
            Err(refused) => {
                let status = match refused {
                    Refused::NotHere(_) => StatusCode::NOT_FOUND,
                    Refused::Failed(_) => StatusCode::CONFLICT,
                    Refused::Unavailable(_) | Refused::NotAudited(_) => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                    Refused::Internal => StatusCode::INTERNAL_SERVER_ERROR,
                };
                answer(status, &Err(refused.to_string()))
            }
        },
        Err((bad, error)) => {
            if bad == BadRequest::WrongToken {
                door.actions.refuse_token(from, place).await;
            } else {
                door.actions.bad_requests.of(bad).increment();
            }
            let status = match bad {
                BadRequest::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
                BadRequest::Slow => StatusCode::REQUEST_TIMEOUT,
                BadRequest::NoToken | BadRequest::WrongToken => StatusCode::UNAUTHORIZED,
                BadRequest::NoActions | BadRequest::OtherUser => StatusCode::FORBIDDEN,
                BadRequest::Malformed
                | BadRequest::Aborted
                | BadRequest::CrowdedOut
                | BadRequest::Busy => StatusCode::BAD_REQUEST,
            };
            let mut response = answer(status, &Err(error));
            if bad == BadRequest::WrongToken {
                // Its place goes to somebody else.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            if status == StatusCode::UNAUTHORIZED {
                let scheme = HeaderValue::from_static("Bearer");
                response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
            }
            response
        }
    }
}

fn answer(status: StatusCode, result: &Result<String, String>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], reply(result)).into_response()
}

/// Whether a body could not be read because it is too large, and for no other reason.
fn is_too_large(error: &axum::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Door {
    async fn request(
        &self,
        name: String,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Action, (BadRequest, String)> {
        self.check(headers)?;
        let body = match timeout(BODY_TIME, to_bytes(body, MAX_REQUEST)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) if is_too_large(&error) => {
                return Err((
                    BadRequest::TooLarge,
                    format!("a body has {MAX_REQUEST} bytes at most"),
                ));
            }
            Ok(Err(_)) => return Err((BadRequest::Aborted, "the body broke off".to_owned())),
            Err(_) => {
                return Err((
                    BadRequest::Slow,
                    format!("no body within {} s", BODY_TIME.as_secs()),
                ));
            }
        };
        let malformed = |error: serde_json::Error| (BadRequest::Malformed, error.to_string());
        let mut fields = match body.trim_ascii() {
            [] => Map::new(),
            text => serde_json::from_slice(text).map_err(malformed)?,
        };
        fields.insert("action".to_owned(), Value::String(name));
        serde_json::from_value(Value::Object(fields)).map_err(malformed)
    }

    fn check(&self, headers: &HeaderMap) -> Result<(), (BadRequest, String)> {
        let Some(token) = &self.token else {
            let error = "this relay takes no actions over HTTP: --admin-token-file is not set";
            return Err((BadRequest::NoActions, error.to_owned()));
        };
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        match given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) {
            None => Err((BadRequest::NoToken, "a bearer token is needed".to_owned())),
            Some((_, given)) if token.is(given.trim()) => Ok(()),
            Some(_) => Err((BadRequest::WrongToken, "that is not the token".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_the_whole_text_and_is_never_shown() {
        let token = Token::new("0123456789abcdef");
        assert!(token.is("0123456789abcdef"));
        for other in ["", "0123456789abcde", "0123456789abcdef0", "0123456789ABCDEF"] {
            assert!(!token.is(other), "{other}");
        }
        assert!(!format!("{token:?}").contains("0123"));
    }
}
