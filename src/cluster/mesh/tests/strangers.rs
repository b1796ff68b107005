//! Whoever is not one of us gets no link, is counted, and disturbs nobody.

use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::version::TLS13;

use super::*;
use crate::cluster::mesh::canonical;
use crate::cluster::mesh::lobby::MAX_GREETING;

/// What this connection attempt came to: the TLS of a server that is not content with us
/// ends a connection that looked complete to us.
async fn shut_out(puppet: &Puppet, relay: &Relay) {
    let connecting = puppet.endpoint.connect(relay.address, tls::SERVER_NAME).unwrap();
    let error = match timeout(PATIENCE, connecting).await.unwrap() {
        Ok(connection) => timeout(PATIENCE, connection.closed()).await.unwrap(),
        Err(error) => error,
    };
    let ConnectionError::ConnectionClosed(closed) = error else { panic!("{error}") };
    assert!((0x100..0x200).contains(&u64::from(closed.error_code)), "{closed} is no TLS alert");
}

/// The key that a relay trusts, with the signatures of another.
fn forged(key: &SigningKey, signer: &SigningKey) -> CertifiedKey {
    let [shown, signer] = [key, signer].map(|key| tls::certified(key).unwrap());
    CertifiedKey::new(shown.cert, signer.key)
}

#[tokio::test]
async fn key_that_is_not_listed_is_shut_out() {
    let keys: [_; 3] = keys();
    let stranger = Puppet::new(&keys[2]);
    // In both directions: it dials, and it is dialled.
    let relay = Relay::start(&keys[0], &[], by_list(&keys[..2]));
    shut_out(&stranger, &relay).await;
    relay.refuses(Reject::Stranger).await;
    let dialler = Relay::start(&keys[1], &[stranger.address()], by_list(&keys[..2]));
    stranger.endpoint.accept().await.unwrap().await.unwrap_err();
    dialler.refuses(Reject::Stranger).await;
    assert_eq!((relay.history(), dialler.history()), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn right_key_with_a_wrong_signature_is_shut_out() {
    let keys: [_; 3] = keys();
    for trust in [|keys: &[_]| by_list(keys), |_: &[_]| by_secret()] {
        let forger = Puppet::showing(&keys[1], forged(&keys[1], &keys[2]));
        let relay = Relay::start(&keys[0], &[], trust(&keys[..2]));
        shut_out(&forger, &relay).await;
        relay.refuses(Reject::Stranger).await;
        let dialler = Relay::start(&keys[0], &[forger.address()], trust(&keys[..2]));
        forger.endpoint.accept().await.unwrap().await.unwrap_err();
        dialler.refuses(Reject::Stranger).await;
        assert_eq!((relay.history(), dialler.history()), ((0, 0), (0, 0)));
    }
}

#[tokio::test]
async fn nobody_comes_in_without_a_key() {
    let [ours, theirs] = keys();
    let relay = Relay::start(&ours, &[], by_secret());
    let mut stranger = Puppet::new(&theirs);
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Verifier::new(relay_id(&theirs), Vec::new()))
            .with_no_client_auth();
    config.alpn_protocols = vec![b"beacon-cluster/1".to_vec()];
    let config = QuicClientConfig::try_from(config).unwrap();
    stranger.endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(config)));
    shut_out(&stranger, &relay).await;
    relay.refuses(Reject::Stranger).await;
}

/// Says a hello that the relay refuses for this.
async fn refused_hello(reject: Reject, change: impl FnOnce(&mut Puppet)) {
    let [ours, theirs] = keys();
    let relay = Relay::start(&ours, &[], by_secret());
    let mut puppet = Puppet::new(&theirs);
    change(&mut puppet);
    let connection = puppet.dial(&relay).await;
    puppet.say(&connection, &puppet.hello_for(&connection)).await.unwrap_err();
    closed_with(&connection, Close::Refused).await;
    assert_eq!((relay.rejects(reject), relay.history()), (1, (0, 0)));
}

#[tokio::test]
async fn hello_with_another_secret_or_none_is_refused() {
    refused_hello(Reject::WrongSecret, |puppet| puppet.secret = Some(b"another")).await;
    refused_hello(Reject::WrongSecret, |puppet| puppet.secret = None).await;
}

#[tokio::test]
async fn hello_of_another_cluster_is_refused() {
    refused_hello(Reject::OtherCluster, |puppet| puppet.hello.cluster = "other".into()).await;
}

#[tokio::test]
async fn relays_of_different_clusters_do_not_link() {
    let keys: [_; 2] = keys();
    let one = Relay::start(&keys[0], &[], by_secret());
    let mesh = bind(&keys[1], &[one.address], by_secret());
    let other = Relay::start_as("other", [0; 16], &keys[1], mesh);
    one.refuses(Reject::OtherCluster).await;
    assert_eq!((one.history(), other.history()), ((0, 0), (0, 0)));
}

#[tokio::test]
async fn hello_from_another_link_is_refused() {
    let [ours, theirs] = keys();
    let relay = Relay::start(&ours, &[], by_secret());
    let puppet = Puppet::new(&theirs);
    let first = puppet.dial(&relay).await;
    let hello = puppet.hello_for(&first);
    let answer = puppet.say(&first, &hello).await.unwrap();
    // Our own hello again, and the relay's thrown back at it.
    for (count, bytes) in [(1, hello), (2, answer)] {
        let second = puppet.dial(&relay).await;
        puppet.say(&second, &bytes).await.unwrap_err();
        closed_with(&second, Close::Refused).await;
        assert_eq!(relay.rejects(Reject::WrongSecret), count);
    }
    relay.has(&[&theirs]).await;
    assert_eq!((first.close_reason(), relay.history()), (None, (1, 0)));
}

#[tokio::test]
async fn hello_that_is_none_is_refused() {
    let [ours, theirs] = keys();
    let relay = Relay::start(&ours, &[], by_secret());
    let puppet = Puppet::new(&theirs);
    for (count, bytes) in [(1, vec![]), (2, vec![1; 60]), (3, vec![1; MAX_HELLO + 1])] {
        let connection = puppet.dial(&relay).await;
        puppet.say(&connection, &bytes).await.unwrap_err();
        closed_with(&connection, Close::Refused).await;
        assert_eq!(relay.rejects(Reject::BadHello), count);
    }
}

#[tokio::test]
async fn hello_that_does_not_come_is_not_waited_for() {
    let [ours, theirs] = keys();
    let relay = Relay::start(&ours, &[], by_secret());
    let puppet = Puppet::new(&theirs);
    let connection = puppet.dial(&relay).await;
    let (mut half, _answer) = connection.open_bi().await.unwrap();
    half.write_all(&[1, 6, b'b']).await.unwrap();
    until("it is being greeted", || relay.cluster.counters().greeting.value() == 1).await;
    tokio::time::pause();
    closed_with(&connection, Close::Refused).await;
    assert_eq!((relay.rejects(Reject::Timeout), relay.history()), (1, (0, 0)));
}

#[tokio::test]
async fn stranger_may_send_little_before_its_hello() {
    let [ours, theirs] = keys();
    let relay = Relay::start(&ours, &[], by_secret());
    let connection = Puppet::new(&theirs).dial(&relay).await;
    let (mut send, _answer) = connection.open_bi().await.unwrap();
    let taken = send.write(&vec![0; 1 << 20]).await.unwrap();
    assert_eq!(taken, 16 << 10);
}

#[tokio::test]
async fn crowd_of_strangers_is_held_off() {
    let keys: [_; 3] = keys();
    let relay = Relay::start(&keys[0], &[], by_secret());
    let member = Puppet::new(&keys[1]).link(&relay).await;
    relay.has(&[&keys[1]]).await;
    let crowd = Puppet::new(&keys[2]);
    // All at once, so that none of them is given up before the last has come.
    let connect = || crowd.endpoint.connect(relay.address, tls::SERVER_NAME).unwrap();
    let waiting: Vec<_> = (0..=MAX_GREETING).map(|_| connect()).collect();
    relay.refuses(Reject::TooMany).await;
    let greeting = || relay.cluster.counters().greeting.value();
    until("all but one are greeted", || greeting() == i64::try_from(MAX_GREETING).unwrap()).await;
    assert_eq!((member.0.close_reason(), relay.history()), (None, (1, 0)));
    // The member's own room is not theirs, and the crowd's is free again when it goes.
    drop(waiting);
    relay.settled().await;
    crowd.greet(&relay).await;
    relay.has(&[&keys[1], &keys[2]]).await;
}

#[test]
fn addresses_are_written_as_people_write_them() {
    let mapped: SocketAddr = "[::ffff:192.0.2.1]:9443".parse().unwrap();
    assert_eq!(canonical(mapped).to_string(), "192.0.2.1:9443");
}
