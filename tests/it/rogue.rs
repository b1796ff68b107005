//! A rogue relay between the project's own client and an honest relay (SPEC §4.3).

use std::net::{SocketAddr, TcpListener};

use beacon_relay::client::{Client, ConnectError, LoginError, Options};
use beacon_relay::ids::NodeId;
use serde_json::Value;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Message, accept_hdr};

use crate::harness::{Node, Relay};
use crate::peer::{AUTH_OK, Frame, Peer};

/// The honest relay's public name.
const NAME: &str = "relay.example.net";

/// What came of an attempt.
struct Attempt {
    /// What the client made of the rogue.
    client: Result<Client, ConnectError>,
    /// What the honest relay said to the reply that the rogue passed on, where there was one.
    verdict: Option<Frame>,
}

/// Has the project's client log in at a rogue, which passes the honest relay's challenge on as
/// `change` makes it, and the reply back.
async fn attempt(honest: SocketAddr, node: &Node, change: fn(&mut Value)) -> Attempt {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let options = Options::new(url, NodeId::new(node.id).unwrap(), node.key.clone());
    let rogue = tokio::task::spawn_blocking(move || pass_on(&listener, honest, change));
    let (client, verdict) = tokio::join!(Client::connect(&options), rogue);
    Attempt { client, verdict: verdict.unwrap() }
}

fn pass_on(listener: &TcpListener, honest: SocketAddr, change: fn(&mut Value)) -> Option<Frame> {
    let (victim, _) = listener.accept().unwrap();
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    let echo = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let name = "sec-websocket-protocol";
        response.headers_mut().insert(name, request.headers()[name].clone());
        Ok(response)
    };
    let mut victim = accept_hdr(victim, echo).unwrap();
    let mut honest = Peer::upgrade(honest);
    let mut challenge = honest.challenge();
    assert_eq!(challenge["relay"], NAME);
    change(&mut challenge);
    victim.send(Message::text(challenge.to_string())).unwrap();
    let Ok(Message::Text(reply)) = victim.read() else { return None };
    honest.send(1, reply.as_bytes());
    let verdict = honest.read();
    if verdict == Some((1, AUTH_OK.to_vec())) {
        victim.send(Message::text(String::from_utf8(AUTH_OK.to_vec()).unwrap())).unwrap();
    }
    verdict
}

fn refused() -> Option<Frame> {
    Some((8, [&1008_u16.to_be_bytes()[..], b"auth failed"].concat()))
}

fn accepted(relay: &Relay) -> f64 {
    relay.metric("pilot_beacon_wss_connections_total{outcome=\"auth_ok\"}")
}

#[tokio::test]
async fn spec_4_3_client_does_not_sign_for_a_relay_that_it_did_not_dial() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &["--relay-name", NAME]);
    let attempt = attempt(relay.wss, &node, |_| ()).await;
    let error = attempt.client.unwrap_err();
    assert!(matches!(error, ConnectError::Login(LoginError::OtherRelay { .. })), "{error}");
    assert_eq!(attempt.verdict, None);
    assert_eq!(accepted(&relay), 0.0);
}

#[tokio::test]
async fn spec_4_3_signature_for_the_rogue_does_not_hold_at_the_relay() {
    let node = Node::new(11);
    let relay = Relay::with_nodes(&[&node], &["--relay-name", NAME]);
    let attempt = attempt(relay.wss, &node, |challenge| challenge["relay"] = "127.0.0.1".into());
    let attempt = attempt.await;
    assert_eq!(attempt.verdict, refused());
    assert!(attempt.client.is_err());
    assert_eq!(accepted(&relay), 0.0);
}

/// The gap that is left, and how an operator closes it.
#[tokio::test]
async fn spec_4_3_rogue_that_hides_the_name_fails_where_the_third_generation_is_demanded() {
    let node = Node::new(11);
    for (minimum, verdict) in [("3", refused()), ("1", Some((1, AUTH_OK.to_vec())))] {
        let arguments = ["--relay-name", NAME, "--min-auth-generation", minimum];
        let relay = Relay::with_nodes(&[&node], &arguments);
        let attempt = attempt(relay.wss, &node, |challenge| {
            challenge.as_object_mut().unwrap().remove("relay");
        });
        let attempt = attempt.await;
        assert_eq!(attempt.verdict, verdict, "at least {minimum}");
        assert_eq!(attempt.client.is_ok(), minimum == "1");
    }
}
