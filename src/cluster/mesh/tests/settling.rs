//! Which of two links between the same two relays stays.

use super::*;

#[tokio::test]
async fn second_link_of_the_same_run_gives_way() {
    // The relay has the smaller key, so it decides.
    let [smaller, larger] = keys();
    let relay = Relay::start(&smaller, &[], by_secret());
    let puppet = Puppet::new(&larger);
    let (first, _lanes) = puppet.link(&relay).await;
    relay.has(&[&larger]).await;
    let second = puppet.greet(&relay).await;
    closed_with(&second, Close::Duplicate).await;
    assert_eq!((first.close_reason(), relay.history()), (None, (1, 0)));
}

#[tokio::test]
async fn link_of_a_new_run_replaces_the_old_one() {
    for [ours, theirs] in [[0, 1], [1, 0]] {
        let keys: [_; 2] = keys();
        let relay = Relay::start(&keys[ours], &[], by_secret());
        let mut puppet = Puppet::new(&keys[theirs]);
        let (first, _lanes) = puppet.link(&relay).await;
        relay.has(&[&keys[theirs]]).await;
        let before = relay.member();
        puppet.hello.boot = [1; 16];
        let (second, _lanes) = puppet.link(&relay).await;
        closed_with(&first, Close::Replaced).await;
        until("the new link has joined", || relay.history() == (2, 1)).await;
        relay.has(&[&keys[theirs]]).await;
        assert!(!Arc::ptr_eq(&before, &relay.member()) && before.ending.is_cancelled());
        assert_eq!(second.close_reason(), None);
    }
}

#[tokio::test]
async fn larger_key_joins_only_when_the_smaller_has_decided() {
    let [smaller, larger] = keys();
    let relay = Relay::start(&larger, &[], by_secret());
    let puppet = Puppet::new(&smaller);
    let undecided = puppet.greet(&relay).await;
    let decided = puppet.greet(&relay).await;
    let _lanes = open_lanes(&decided).await;
    relay.has(&[&smaller]).await;
    assert_eq!((undecided.close_reason(), relay.history()), (None, (1, 0)));
    // The one with the smaller key may think again.
    let _lanes = open_lanes(&undecided).await;
    closed_with(&decided, Close::Replaced).await;
    until("the other link has joined", || relay.history() == (2, 1)).await;
}

#[tokio::test]
async fn smaller_key_takes_no_link_while_it_dials() {
    let [smaller, larger] = keys();
    let puppet = Puppet::new(&larger);
    let relay = Relay::start(&smaller, &[puppet.address()], by_secret());
    let dialled = puppet.accept().await;
    // The relay has our key, and waits for our hello.
    let (_send, mut hello) = dialled.accept_bi().await.unwrap();
    hello.read_to_end(MAX_HELLO).await.unwrap();
    let second = puppet.greet(&relay).await;
    closed_with(&second, Close::Duplicate).await;
    assert_eq!(relay.history(), (0, 0));
    // That link comes to nothing: then ours is as good as any.
    dialled.close(Close::Failed.code(), &[]);
    let linked = loop {
        let connection = puppet.greet(&relay).await;
        let is_over = || connection.close_reason().is_some();
        until("it is decided", || is_over() || !relay.others().is_empty()).await;
        if !is_over() {
            break connection;
        }
    };
    assert_eq!((linked.close_reason(), relay.history()), (None, (1, 0)));
}
