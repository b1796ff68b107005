//! The client of NetBird's protocol against relays that are made by hand: what it says, what it
//! takes, and what it makes of relays that refuse, fall silent, or say what they must not.

use beacon_client::ConnectError as DialError;
use beacon_client::netbird::{
    Client, ConnectError, Credential, Event, Options, PeerId, SendError, SessionError, token,
};
use beacon_client::wire::netbird::{
    CLOSING, HEALTHY, MAX_PAYLOAD, Message as FromClient, auth_response, peers_online,
    peers_went_offline, transport_header,
};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use super::{PATIENCE, SHORT};

type Socket = WebSocketStream<TcpStream>;

const INSTANCE: &str = "rel://relay.test:33080";

fn peer(name: &str) -> PeerId {
    PeerId::of_name(name)
}

/// A listener for one hand-made session, and the options to dial it.
async fn listen() -> (TcpListener, Options) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rel://{}", listener.local_addr().unwrap());
    let token = Credential::Token(token("s3cret", 4_000_000_000));
    (listener, Options::new(url, peer("alice"), token))
}

/// Upgrades a connection; checks that the request is one as NetBird's clients make it.
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
async fn accept(listener: &TcpListener) -> Socket {
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        assert_eq!(request.uri().path(), "/relay");
        for absent in ["origin", "sec-websocket-protocol", "sec-websocket-extensions"] {
            assert!(request.headers().get(absent).is_none(), "{absent}");
        }
        Ok(response)
    };
    let (tcp, _) = listener.accept().await.unwrap();
    tokio_tungstenite::accept_hdr_async(tcp, check).await.unwrap()
}

/// Reads the login, and answers it with this message.
async fn answer(socket: &mut Socket, message: Vec<u8>) {
    let login = next(socket).await;
    let Ok(FromClient::Auth(auth)) = FromClient::decode(&login) else { panic!("{login:?}") };
    assert_eq!((auth.peer, auth.token.expiry), (peer("alice"), 4_000_000_000));
    socket.send(Message::binary(message)).await.unwrap();
}

/// The next message of a client.
async fn next(socket: &mut Socket) -> Vec<u8> {
    let message = timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
    let Message::Binary(message) = message else { panic!("{message:?}") };
    message.to_vec()
}

/// A client that has logged in, and the relay's side.
async fn session(change: impl FnOnce(&mut Options)) -> (Client, Socket) {
    let (listener, mut options) = listen().await;
    change(&mut options);
    let relay = async {
        let mut socket = accept(&listener).await;
        answer(&mut socket, auth_response(INSTANCE)).await;
        socket
    };
    let (client, socket) = tokio::join!(Client::connect(&options), relay);
    let client = client.unwrap();
    assert_eq!(client.instance(), INSTANCE);
    (client, socket)
}

#[tokio::test]
async fn messages_go_out_and_events_come_in() {
    let (mut client, mut socket) = session(|_| ()).await;
    client.subscribe(&[peer("bob")]).await.unwrap();
    client.send_to(peer("bob"), b"there").await.unwrap();
    client.unsubscribe(&[peer("bob")]).await.unwrap();
    let (subscribe, packet, unsubscribe) =
        (next(&mut socket).await, next(&mut socket).await, next(&mut socket).await);
    assert!(
        matches!(FromClient::decode(&subscribe), Ok(FromClient::Subscribe(ids)) if ids.len() == 1)
    );
    let transport = FromClient::Transport { dest: peer("bob"), payload: b"there" };
    assert_eq!(FromClient::decode(&packet), Ok(transport));
    assert!(matches!(FromClient::decode(&unsubscribe), Ok(FromClient::Unsubscribe(_))));

    let back = [&transport_header(peer("bob"))[..], b"back"].concat();
    let told = [peers_online(&[peer("bob")]).next(), peers_went_offline(&[peer("bob")]).next()];
    // What no client knows is passed over.
    for message in [vec![1, 42], vec![], back].into_iter().chain(told.into_iter().flatten()) {
        socket.send(Message::binary(message)).await.unwrap();
    }
    let payload = b"back".to_vec().into();
    let expected = [
        Event::Packet { sender: peer("bob"), payload },
        Event::Online(vec![peer("bob")]),
        Event::Offline(vec![peer("bob")]),
    ];
    for event in expected {
        assert_eq!(client.recv().await.unwrap(), Some(event));
    }
}

#[tokio::test]
async fn largest_payload_passes_and_a_larger_one_is_refused() {
    let (client, mut socket) = session(|_| ()).await;
    let too_large = client.send_to(peer("bob"), &vec![7; MAX_PAYLOAD + 1]).await;
    assert_eq!(too_large, Err(SendError::TooLarge { bytes: 8_821, most: 8_820 }));
    client.send_to(peer("bob"), &vec![7; MAX_PAYLOAD]).await.unwrap();
    assert_eq!(next(&mut socket).await.len(), 8_820);
}

#[tokio::test]
async fn thousands_of_subscriptions_take_as_many_messages_as_needed() {
    let (client, mut socket) = session(|_| ()).await;
    let peers: Vec<_> = (0..1_000).map(|number| peer(&number.to_string())).collect();
    client.subscribe(&peers).await.unwrap();
    let mut subscribed = Vec::new();
    while subscribed.len() < peers.len() {
        let message = next(&mut socket).await;
        let Ok(FromClient::Subscribe(ids)) = FromClient::decode(&message) else { panic!() };
        subscribed.extend(ids.iter());
    }
    assert_eq!(subscribed, peers);
}

#[tokio::test]
async fn health_checks_are_answered_and_missed() {
    let (mut client, mut socket) = session(|options| options.timeouts.silence = 10 * SHORT).await;
    for _ in 0..3 {
        socket.send(Message::binary(HEALTHY.to_vec())).await.unwrap();
        assert_eq!(next(&mut socket).await, HEALTHY);
    }
    // Packets are no health checks.
    let packet = [&transport_header(peer("bob"))[..], b"x"].concat();
    socket.send(Message::binary(packet)).await.unwrap();
    assert!(matches!(client.recv().await.unwrap(), Some(Event::Packet { .. })));
    let error = client.recv().await.unwrap_err();
    assert!(matches!(error, SessionError::Silent(_)), "{error}");
    assert_eq!(client.recv().await.unwrap(), None, "once");
}

#[tokio::test]
async fn end_of_a_session_says_who_ended_it_and_why() {
    let (mut client, mut socket) = session(|_| ()).await;
    socket.send(Message::binary(CLOSING.to_vec())).await.unwrap();
    let error = client.recv().await.unwrap_err();
    assert!(matches!(error, SessionError::Closed), "{error}");

    let (mut client, socket) = session(|_| ()).await;
    drop(socket);
    let error = client.recv().await.unwrap_err();
    assert!(matches!(error, SessionError::Lost), "{error}");
    while client.send_to(peer("bob"), b"x").await.is_ok() {}

    let (mut client, mut socket) = session(|_| ()).await;
    let frame = CloseFrame { code: 1009.into(), reason: "message too large".into() };
    socket.close(Some(frame)).await.unwrap();
    let error = client.recv().await.unwrap_err();
    let reason = "message too large";
    assert!(
        matches!(&error, SessionError::Ended { code: 1009, reason: text } if text == reason),
        "{error}"
    );
}

#[tokio::test]
async fn close_follows_what_was_sent() {
    let (client, mut socket) = session(|_| ()).await;
    let relay = async {
        let packet = next(&mut socket).await;
        assert!(matches!(FromClient::decode(&packet), Ok(FromClient::Transport { .. })));
        assert_eq!(next(&mut socket).await, CLOSING);
        drop(socket);
    };
    client.send_to(peer("bob"), b"last").await.unwrap();
    let (closed, ()) = tokio::join!(client.close(), relay);
    closed.unwrap();
}

#[tokio::test]
async fn relay_that_ends_the_login_has_refused_it() {
    for says_why in [false, true] {
        let (listener, options) = listen().await;
        let relay = async {
            let mut socket = accept(&listener).await;
            let _login = next(&mut socket).await;
            if says_why {
                socket.close(None).await.unwrap();
            }
        };
        let (refused, ()) = tokio::join!(Client::connect(&options), relay);
        let error = refused.unwrap_err();
        assert!(matches!(error, ConnectError::Refused), "{error}");
        assert!(error.needs_attention());
    }
}

#[tokio::test]
async fn server_that_is_no_relay_is_told_from_one() {
    for message in [[&transport_header(peer("bob"))[..], b"x"].concat(), HEALTHY.to_vec(), vec![]] {
        let (listener, options) = listen().await;
        let relay = async {
            let mut socket = accept(&listener).await;
            answer(&mut socket, message).await;
            socket
        };
        let (refused, _socket) = tokio::join!(Client::connect(&options), relay);
        let error = refused.unwrap_err();
        assert!(matches!(error, ConnectError::Unexpected { .. }), "{error}");
    }

    let (listener, mut options) = listen().await;
    options.timeouts.login = SHORT;
    let (late, _socket) = tokio::join!(Client::connect(&options), accept(&listener));
    let error = late.unwrap_err();
    let is_late = matches!(error, ConnectError::Dial(DialError::Timeout { step: "the login", .. }));
    assert!(is_late, "{error}");
    assert!(!error.needs_attention());
}

#[tokio::test]
async fn token_that_no_login_holds_is_not_sent() {
    let (listener, mut options) = listen().await;
    options.credential = Credential::Token(vec![1; 171]);
    let (refused, _socket) = tokio::join!(Client::connect(&options), accept(&listener));
    assert!(matches!(refused.unwrap_err(), ConnectError::Token { bytes: 171 }));
}
