//! The client library against a minimal relay: logins, sessions, redials.
#![allow(clippy::unwrap_used)]

mod keyop;
mod netbird;
mod packages;
mod peerbus;
mod relay;
mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use beacon_client::ids::NodeId;
use beacon_client::net::resolve::Resolver;
use beacon_client::wire::auth::{AUTH_OK, Generation};
use beacon_client::wire::beacon;
use beacon_client::{
    Client, ConnectError, Interruption, LoginError, Options, Proxy, Reconnecting, SendError,
    SessionError, State, Timeouts, udp,
};
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use relay::Relay;

const SHORT: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(10);

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn options(url: &str, number: u32) -> Options {
    Options::new(url, node(number), SigningKey::from_bytes(&[7; 32]))
}

/// A listener for one hand-made session, and the options to dial it.
async fn listen() -> (TcpListener, Options) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    (listener, options(&url, 1))
}

async fn accept(listener: &TcpListener) -> relay::Socket {
    relay::upgrade(listener.accept().await.unwrap().0).await
}

/// Challenges with `name`; what came of the login on both sides.
async fn login(
    name: Option<&str>,
    change: impl FnOnce(&mut Options),
) -> (Result<Client, ConnectError>, Option<Generation>) {
    let (listener, mut options) = listen().await;
    change(&mut options);
    let relay = async {
        let mut socket = accept(&listener).await;
        let (_, generation) = relay::challenge(&mut socket, name).await?;
        socket.send(Message::text(AUTH_OK)).await.unwrap();
        Some(generation)
    };
    tokio::join!(Client::connect(&options), relay)
}

#[tokio::test]
async fn nameless_relay_gets_a_reply_of_the_second_generation() {
    let (client, generation) = login(None, |_| ()).await;
    client.unwrap();
    assert_eq!(generation, Some(Generation::Second));
}

#[tokio::test]
async fn relay_that_names_the_dialled_host_gets_the_third_generation() {
    let (client, generation) = login(Some("127.0.0.1"), |_| ()).await;
    client.unwrap();
    assert_eq!(generation, Some(Generation::Third));
}

#[tokio::test]
async fn relay_name_that_was_given_gets_the_third_generation() {
    let name = Some("Relay.Example.net".to_owned());
    let (client, generation) =
        login(Some("relay.example.net"), |options| options.relay_name = name).await;
    client.unwrap();
    assert_eq!(generation, Some(Generation::Third));
}

#[tokio::test]
async fn challenge_that_a_rogue_relay_passes_on_is_never_signed() {
    let (client, generation) = login(Some("relay.example.net"), |_| ()).await;
    let error = client.unwrap_err();
    assert!(matches!(&error, ConnectError::Login(LoginError::OtherRelay { .. })), "{error}");
    assert!(error.needs_attention());
    assert_eq!(generation, None);
}

#[tokio::test]
async fn relay_without_a_required_name_gets_no_reply() {
    let (client, generation) = login(None, |options| options.require_relay_name = true).await;
    let error = client.unwrap_err();
    assert!(matches!(error, ConnectError::Login(LoginError::NoRelayName)), "{error}");
    assert_eq!(generation, None);
}

#[tokio::test]
async fn refusal_is_told_from_other_closes() {
    for (code, reason) in [(1008, "auth failed"), (1001, "going away")] {
        let (listener, options) = listen().await;
        let relay = async {
            let mut socket = accept(&listener).await;
            relay::challenge(&mut socket, None).await.unwrap();
            relay::close(socket, code, reason).await;
        };
        let (client, ()) = tokio::join!(Client::connect(&options), relay);
        let error = client.unwrap_err();
        let refused = matches!(&error, ConnectError::Login(LoginError::Refused { reason: text }) if text == reason);
        let closed = matches!(
            &error,
            ConnectError::Login(LoginError::Closed { code: Some(1001), reason: text }) if text == reason
        );
        assert_eq!((refused, closed), (code == 1008, code == 1001), "{error}");
    }
}

#[tokio::test]
async fn relay_that_stays_silent_is_a_timeout_of_its_step() {
    let (listener, mut options) = listen().await;
    options.timeouts.connect = SHORT;
    let error = Client::connect(&options).await.unwrap_err();
    let connecting = "connecting";
    assert!(matches!(error, ConnectError::Timeout { step, .. } if step == connecting), "{error}");
    drop(listener);

    let (listener, mut options) = listen().await;
    options.timeouts.login = SHORT;
    let (client, _socket) = tokio::join!(Client::connect(&options), accept(&listener));
    let error = client.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout { step: "the login", .. }), "{error}");
    assert!(!error.needs_attention());
}

#[tokio::test]
async fn server_that_is_no_relay_is_reported_with_its_status() {
    for (status, needs_attention) in [(404, true), (429, false), (503, false)] {
        let (listener, options) = listen().await;
        let server = async {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                tcp.read_buf(&mut request).await.unwrap();
            }
            let answer = format!("HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n");
            tcp.write_all(answer.as_bytes()).await.unwrap();
        };
        let (client, ()) = tokio::join!(Client::connect(&options), server);
        let error = client.unwrap_err();
        assert!(
            matches!(error, ConnectError::Status { status: found } if found == status),
            "{error}"
        );
        assert_eq!(error.needs_attention(), needs_attention);
    }
}

#[tokio::test]
async fn nobody_listening_is_named() {
    let (listener, options) = listen().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = Client::connect(&options).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn payloads_go_between_websocket_and_udp_nodes() {
    let relay = Relay::start(u32::MAX).await;
    let mut client = Client::connect(&options(&relay.url, 1)).await.unwrap();
    let mut peer = udp::Peer::connect(relay.udp, node(2), None, true).await.unwrap();
    assert!(peer.observed().ip().is_loopback());

    client.send_to(node(2), b"over").await.unwrap();
    let delivery = peer.recv().await.unwrap();
    assert_eq!((delivery.sender, &*delivery.payload), (node(1), &b"over"[..]));
    peer.send_to(node(1), b"and back").await.unwrap();
    let delivery = client.recv().await.unwrap().unwrap();
    assert_eq!((delivery.sender, &*delivery.payload), (node(2), &b"and back"[..]));
    client.bye().await.unwrap();
}

#[tokio::test]
async fn largest_packet_passes_and_a_larger_one_is_refused() {
    let relay = Relay::start(u32::MAX).await;
    let mut client = Client::connect(&options(&relay.url, 1)).await.unwrap();
    let largest = vec![7; beacon_client::MAX_PAYLOAD];
    client.send_to(node(1), &largest).await.unwrap();
    assert_eq!(client.recv().await.unwrap().unwrap().payload, largest);
    let refused = client.send_to(node(1), &vec![7; largest.len() + 1]).await;
    assert_eq!(refused, Err(SendError::TooLarge { bytes: 65_537 }));
}

#[tokio::test]
async fn discover_and_ping_are_answered() {
    let relay = Relay::start(u32::MAX).await;
    let client = Client::connect(&options(&relay.url, 1)).await.unwrap();
    assert!(client.discover().await.unwrap().ip().is_loopback());
    assert!(client.ping().await.unwrap() < PATIENCE);
}

#[tokio::test]
async fn bye_follows_what_was_sent() {
    let (listener, options) = listen().await;
    let relay = async {
        let mut socket = accept(&listener).await;
        relay::log_in(&mut socket).await;
        let mut received = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            let bye = message.is_text();
            received.push(message);
            if bye {
                break;
            }
        }
        relay::close(socket, 1000, "bye").await;
        received
    };
    let client = async {
        let client = Client::connect(&options).await.unwrap();
        for _ in 0..300 {
            client.send_to(node(2), b"x").await.unwrap();
        }
        client.bye().await.unwrap();
    };
    let (received, ()) = tokio::join!(relay, client);
    assert_eq!(received.len(), 301);
    let mut packet = Vec::new();
    beacon::encode_relay(node(1), node(2), b"x", &mut packet);
    assert!(received[..300].iter().all(|message| *message == Message::binary(packet.clone())));
    assert_eq!(received[300], Message::text(r#"{"type":"bye"}"#));
}

#[tokio::test]
async fn closed_session_says_why_once_and_then_stays_over() {
    let (listener, options) = listen().await;
    let relay = async {
        let mut socket = accept(&listener).await;
        relay::log_in(&mut socket).await;
        relay::close(socket, 1000, "replaced").await;
    };
    let client = async {
        let mut client = Client::connect(&options).await.unwrap();
        let error = client.recv().await.unwrap_err();
        assert!(
            matches!(&error, SessionError::Closed { code: Some(1000), reason } if reason == "replaced"),
            "{error}"
        );
        assert_eq!(client.recv().await.unwrap(), None);
        assert_eq!(client.send_to(node(2), b"x").await, Err(SendError::Ended));
    };
    tokio::join!(relay, client);
}

#[tokio::test]
async fn relay_that_does_not_answer_pings_is_given_up() {
    let (listener, mut options) = listen().await;
    options.timeouts = Timeouts::default().ping_interval(SHORT).pong(SHORT);
    let accepted = async {
        let mut socket = accept(&listener).await;
        relay::log_in(&mut socket).await;
        // Held, but never read again: the library would answer the ping.
        socket
    };
    let (client, _socket) = tokio::join!(Client::connect(&options), accepted);
    let ended = timeout(PATIENCE, async { client.unwrap().recv().await }).await.unwrap();
    let error = ended.unwrap_err();
    assert!(matches!(error, SessionError::Silent(_)), "{error}");
}

#[tokio::test]
async fn answered_pings_keep_a_session_and_full_queues_do_not_end_it() {
    let relay = Relay::start(u32::MAX).await;
    let mut options = options(&relay.url, 1);
    options.timeouts = Timeouts::default().ping_interval(SHORT).pong(3 * SHORT);
    let client = Client::connect(&options).await.unwrap();
    // More than the queue of deliveries holds, so that nothing is read for a while.
    for _ in 0..2 * beacon_client::QUEUE {
        client.send_to(node(1), b"x").await.unwrap();
    }
    let (sender, mut receiver) = client.split();
    // The time itself is the condition: longer than a ping may stay unanswered.
    tokio::time::sleep(6 * SHORT).await;
    for _ in 0..2 * beacon_client::QUEUE {
        receiver.recv().await.unwrap().unwrap();
    }
    let draining = tokio::spawn(async move { receiver.recv().await });
    for _ in 0..3 {
        sender.ping().await.unwrap();
    }
    sender.bye().await;
    assert_eq!(draining.await.unwrap().unwrap(), None);
}

#[tokio::test]
async fn session_is_dialled_again_and_keeps_its_queues() {
    let (listener, options) = listen().await;
    let (sender, mut receiver, mut state) = Reconnecting::start(options).unwrap().split();

    let mut socket = accept(&listener).await;
    relay::log_in(&mut socket).await;
    state.wait_for(|state| matches!(state, State::Connected)).await.unwrap();
    relay::close(socket, 1001, "restart").await;

    let waiting = state.wait_for(|state| matches!(state, State::Waiting { .. })).await.unwrap();
    let State::Waiting { delay, cause } = waiting.clone() else { panic!() };
    drop(waiting);
    assert!((250..=500).contains(&delay.as_millis()), "{delay:?}");
    assert!(
        matches!(&*cause, Interruption::Session(SessionError::Closed { code: Some(1001), .. })),
        "{cause}"
    );
    sender.send_to(node(2), b"queued meanwhile").await.unwrap();

    let mut socket = accept(&listener).await;
    relay::log_in(&mut socket).await;
    let packet = socket.next().await.unwrap().unwrap().into_data();
    assert!(packet.ends_with(b"queued meanwhile"));
    let mut deliver = beacon::deliver_header(node(2)).to_vec();
    deliver.extend_from_slice(b"on the second session");
    socket.send(Message::binary(deliver)).await.unwrap();
    let delivery = receiver.recv().await.unwrap().unwrap();
    assert_eq!(&*delivery.payload, b"on the second session");

    sender.bye().await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text(r#"{"type":"bye"}"#));
    relay::close(socket, 1000, "bye").await;
    assert_eq!(receiver.recv().await.unwrap(), None);
}

/// A relay that does not know the node's key.
async fn refuse(listener: &TcpListener) {
    let mut socket = accept(listener).await;
    relay::challenge(&mut socket, None).await.unwrap();
    relay::close(socket, 1008, "auth failed").await;
}

fn is_refusal(cause: &Interruption) -> bool {
    matches!(cause, Interruption::Connect(ConnectError::Login(LoginError::Refused { .. })))
}

#[tokio::test]
async fn client_ends_where_its_first_logins_are_refused() {
    let (listener, options) = listen().await;
    let mut client = options.refusals(2_u32).keep_connected().unwrap();

    let relay = async {
        refuse(&listener).await;
        refuse(&listener).await;
    };
    let (connected, ()) = tokio::join!(timeout(PATIENCE, client.connected()), relay);

    let error = connected.unwrap().unwrap_err();
    assert!(is_refusal(&error), "{error}");
    assert_eq!(client.send_to(node(2), b"x").await, Err(SendError::Ended));
    assert_eq!(client.recv().await.unwrap(), None, "the end is told once");
}

#[tokio::test]
async fn relay_that_is_full_or_away_ends_no_client() {
    let (listener, options) = listen().await;
    let mut client = options.refusals(1_u32).keep_connected().unwrap();

    let relay = async {
        drop(listener.accept().await.unwrap());
        let mut socket = accept(&listener).await;
        relay::challenge(&mut socket, None).await.unwrap();
        relay::close(socket, 1013, "try again").await;
        let mut socket = accept(&listener).await;
        relay::log_in(&mut socket).await;
        socket
    };

    let (connected, _socket) = tokio::join!(timeout(PATIENCE, client.connected()), relay);
    connected.unwrap().unwrap();
    assert!(matches!(client.state(), State::Connected));
}

#[tokio::test]
async fn login_that_is_refused_later_is_tried_again_and_dropping_ends_it() {
    let (listener, options) = listen().await;
    let mut client = Reconnecting::start(options.refusals(1_u32)).unwrap();
    let relay = async {
        let mut socket = accept(&listener).await;
        relay::log_in(&mut socket).await;
        socket
    };
    let (connected, socket) = tokio::join!(timeout(PATIENCE, client.connected()), relay);
    connected.unwrap().unwrap();
    relay::close(socket, 1008, "key withdrawn").await;
    for _ in 0..2 {
        refuse(&listener).await;
    }
    let (_sender, receiver, mut state) = client.split();
    let waiting =
        |state: &State| matches!(state, State::Waiting { cause, .. } if is_refusal(cause));
    timeout(PATIENCE, state.wait_for(waiting)).await.unwrap().unwrap();
    drop(receiver);
    let ended = async { while state.changed().await.is_ok() {} };
    timeout(PATIENCE, ended).await.unwrap();
}

#[tokio::test]
async fn clones_of_a_sender_send_at_the_same_time() {
    let (listener, options) = listen().await;
    let relay = async {
        let mut socket = accept(&listener).await;
        relay::log_in(&mut socket).await;
        let mut heard = std::collections::BTreeSet::new();
        while heard.len() < 20 {
            heard.insert(socket.next().await.unwrap().unwrap().into_data().to_vec());
        }
    };
    let sending = async {
        let client = options.connect().await.unwrap();
        let senders = (0..20_u8).map(|number| {
            let sender = client.sender().clone();
            tokio::spawn(async move { sender.send_to(node(2), &[number]).await })
        });
        for sender in senders.collect::<Vec<_>>() {
            sender.await.unwrap().unwrap();
        }
        client
    };
    let (_client, heard) = tokio::join!(sending, timeout(PATIENCE, relay));
    heard.unwrap();
}

#[tokio::test]
async fn stream_that_leads_to_the_relay_passes_no_proxy() {
    let (listener, mut options) = listen().await;
    let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    options.proxy = "http://nobody.test".parse().unwrap();
    let relay = async { relay::log_in(&mut accept(&listener).await).await };
    let (client, logged_in) = tokio::join!(Client::connect_over(stream, &options), relay);
    client.unwrap();
    assert_eq!(logged_in, node(1));
}

#[tokio::test]
async fn address_that_answers_and_leads_to_no_relay_does_not_keep_a_node_from_the_next() {
    let broken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = broken.local_addr().unwrap().port();
    let good = TcpListener::bind(("127.0.0.2", port)).await.unwrap();
    let mut options = options(&format!("ws://relay.test:{port}"), 1);
    options.proxy = Proxy::None;
    let addresses = [1, 2].map(|last| SocketAddr::from(([127, 0, 0, last], 0)));
    options.resolver = Resolver::new(1, move |_| Ok(addresses.to_vec()));

    let (_sender, _receiver, mut state) = Reconnecting::start(options).unwrap().split();
    // The first address takes the connection and closes it, whenever it is asked.
    let closes = async {
        loop {
            drop(broken.accept().await.unwrap());
        }
    };
    let relay = async {
        let mut socket = accept(&good).await;
        relay::log_in(&mut socket).await;
        state.wait_for(|state| matches!(state, State::Connected)).await.unwrap();
    };
    tokio::select! {
        () = closes => {}
        connected = timeout(PATIENCE, relay) => connected.unwrap(),
    }
}
