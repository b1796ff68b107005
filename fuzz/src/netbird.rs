//! NetBird's protocol: each message that is read is written again to the bytes that it came from,
//! and in whole conversations each client is told of others' coming and going as often as it asked.
//!
//! The input is one message, and then a conversation of eight clients: records whose first byte
//! says who speaks (three bits; the highest ends the connection) and whose second says what. Below
//! 128 it is the length of the message that follows; else a message of the type in its low four
//! bits, about the peers that the next two bytes name.
//!
//! Whoever includes this file has `Watchers`, which is a part of the relay's door.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::wire::netbird::{
    CLOSING, DecodeError, FromRelay, HEALTHY, MAX_AUTH, MAX_IDS, MAX_MESSAGE, Message, PeerId,
    PeerIds, TRANSPORT_HEADER, auth, auth_response, peers_online, peers_went_offline, subscribe,
    transport_header, unsubscribe,
};

use super::Watchers;

const AUTH: u8 = 6;

/// Takes one input.
///
/// # Panics
/// Where a message does not come back, or a client is told too much or too little.
pub(crate) fn run(input: &[u8]) {
    of_a_client(input);
    of_a_relay(input);
    let mut conversation = Conversation::default();
    let mut rest = input;
    while let Some((who, spoken)) = step(&mut rest) {
        conversation.take(who, spoken.as_deref());
    }
    conversation.end();
}

/// A message of a client comes back, as far as it was looked at.
fn of_a_client(input: &[u8]) {
    let read = match Message::decode(input) {
        Ok(read) => read,
        Err(error) => return refused(error, input),
    };
    assert!(input.len() <= MAX_MESSAGE);
    match read {
        Message::Transport { dest, payload } => {
            assert_eq!([&transport_header(dest)[..], payload].concat(), input);
            assert_eq!(payload.len() + TRANSPORT_HEADER, input.len());
        }
        Message::Close => assert!(input.starts_with(&CLOSING)),
        Message::HealthCheck => assert!(input.starts_with(&HEALTHY)),
        Message::Auth(login) => {
            assert!(input.len() <= MAX_AUTH, "a login of {} bytes", input.len());
            let token = [&[1][..], login.token.code, login.token.signed].concat();
            assert_eq!(auth(login.peer, &token), input);
            let digits = login.token.signed;
            assert!(digits.len() >= 10 && digits.iter().all(u8::is_ascii_digit));
            let value = digits.iter().fold(0_u128, |sum, digit| {
                sum.saturating_mul(10).saturating_add(u128::from(digit - b'0'))
            });
            assert_eq!(value, u128::from(login.token.expiry));
        }
        Message::Subscribe(ids) => listed(ids, input, |all| subscribe(all).collect()),
        Message::Unsubscribe(ids) => listed(ids, input, |all| unsubscribe(all).collect()),
    }
}

fn refused(error: DecodeError, input: &[u8]) {
    let is_known = input.first() == Some(&1)
        && input
            .get(1)
            .is_some_and(|kind| [3, 6, 8, 9].contains(kind) || input.len() > MAX_MESSAGE);
    assert!(is_known || !error.is_survived(), "survived: {error}");
    assert!(error.to_string().len() < 100);
}

/// A message of a relay comes back.
fn of_a_relay(input: &[u8]) {
    let Ok(read) = FromRelay::decode(input) else { return };
    match read {
        FromRelay::Transport { source, payload } => {
            assert_eq!([&transport_header(source)[..], payload].concat(), input);
        }
        FromRelay::Close => assert!(input.starts_with(&CLOSING)),
        FromRelay::HealthCheck => assert!(input.starts_with(&HEALTHY)),
        FromRelay::AuthResponse(instance) => assert_eq!(auth_response(instance), input),
        FromRelay::PeersOnline(ids) => listed(ids, input, |all| peers_online(all).collect()),
        FromRelay::PeersWentOffline(ids) => {
            listed(ids, input, |all| peers_went_offline(all).collect())
        }
    }
}

fn listed(ids: PeerIds<'_>, input: &[u8], write: impl Fn(&[PeerId]) -> Vec<Vec<u8>>) {
    assert!(ids.len() <= MAX_IDS);
    let all: Vec<_> = ids.iter().collect();
    // A list of nobody is never written.
    if !ids.is_empty() {
        assert_eq!(write(&all), [input]);
    }
    for peer in all {
        assert_eq!(peer.to_string().parse(), Ok(peer));
    }
}

/// Who does what next: says something, or ends the connection.
fn step(rest: &mut &[u8]) -> Option<(u8, Option<Vec<u8>>)> {
    let (&[first, what], after) = rest.split_first_chunk()?;
    *rest = after;
    let who = first & 7;
    if first & 0x80 != 0 {
        return Some((who, None));
    }
    if what < 128 {
        let (message, after) = rest.split_at(usize::from(what).min(rest.len()));
        *rest = after;
        return Some((who, Some(message.to_vec())));
    }
    let (&[one, more], after) = rest.split_first_chunk()?;
    *rest = after;
    let kind = what & 0x0f;
    if kind == AUTH {
        return Some((who, Some(auth(peer(one), &[&[1; 33][..], b"1795884421"].concat()))));
    }
    let ids =
        (0..=more >> 6).flat_map(|offset| peer(one.wrapping_add(offset.wrapping_mul(more))).0);
    Some((who, Some([1, kind].into_iter().chain(ids).collect())))
}

/// One of sixteen peers.
fn peer(number: u8) -> PeerId {
    PeerId([number & 15; PeerId::LENGTH])
}

/// A door without tokens, and what each client must have been told.
#[derive(Default)]
struct Conversation {
    watchers: Watchers<u64>,
    sessions: u64,
    /// Of each client its session, and whose it is.
    clients: BTreeMap<u8, (u64, PeerId)>,
    /// The session that has each peer.
    online: HashMap<PeerId, u64>,
    /// Who is subscribed to whom, and has heard that it came.
    heard: BTreeMap<(u64, PeerId), bool>,
}

impl Conversation {
    fn take(&mut self, who: u8, spoken: Option<&[u8]>) {
        let Some(message) = spoken else { return self.leave(who) };
        let session = self.clients.get(&who).copied();
        match (session, Message::decode(message)) {
            (None, Ok(Message::Auth(login))) => self.log_in(who, login.peer),
            // No login: the connection ends.
            (None, _) => {}
            (Some(_), Ok(Message::Close)) => self.leave(who),
            (Some((session, _)), Ok(Message::Subscribe(peers))) => {
                for peer in peers.iter() {
                    let is_online = self.online.contains_key(&peer);
                    assert!(self.watchers.subscribe(session, peer, is_online));
                    self.heard.insert((session, peer), is_online);
                }
            }
            (Some((session, _)), Ok(Message::Unsubscribe(peers))) => {
                for peer in peers.iter() {
                    self.watchers.unsubscribe(session, peer);
                    self.heard.remove(&(session, peer));
                }
            }
            (Some(_), Err(error)) if !error.is_survived() => self.leave(who),
            (Some(_), Ok(Message::Transport { .. } | Message::HealthCheck | Message::Auth(_)))
            | (Some(_), Err(_)) => {}
        }
        assert_eq!(self.watchers.len(), self.heard.len());
    }

    fn log_in(&mut self, who: u8, peer: PeerId) {
        self.sessions += 1;
        self.clients.insert(who, (self.sessions, peer));
        if let Some(older) = self.online.insert(peer, self.sessions) {
            // A takeover: nobody is told, and the older one's own subscriptions end.
            self.forget(older);
            return;
        }
        let told = self.watchers.online(peer);
        let waiting =
            self.heard.iter().filter(|((_, watched), heard)| *watched == peer && !**heard);
        let waiting: Vec<_> = waiting.map(|((watcher, _), _)| *watcher).collect();
        assert_same(&told, &waiting);
        for watcher in waiting {
            self.heard.insert((watcher, peer), true);
        }
        assert!(self.watchers.online(peer).is_empty(), "twice for one subscription");
    }

    fn leave(&mut self, who: u8) {
        let Some((session, peer)) = self.clients.remove(&who) else { return };
        self.forget(session);
        if self.online.get(&peer) != Some(&session) {
            return;
        }
        self.online.remove(&peer);
        let told = self.watchers.offline(peer);
        let knowing = self.heard.iter().filter(|((_, watched), heard)| *watched == peer && **heard);
        let knowing: Vec<_> = knowing.map(|((watcher, _), _)| *watcher).collect();
        assert_same(&told, &knowing);
    }

    fn forget(&mut self, session: u64) {
        self.clients.retain(|_, (of_client, _)| *of_client != session);
        self.watchers.gone(session);
        self.heard.retain(|(watcher, _), _| *watcher != session);
    }

    /// All leave, and nothing is left of them.
    fn end(mut self) {
        (0..8).for_each(|who| self.leave(who));
        assert_eq!(self.watchers.len(), 0);
        assert!(self.heard.is_empty() && self.online.is_empty() && self.clients.is_empty());
    }
}

/// Each is told once, in whichever order.
fn assert_same(told: &[u64], expected: &[u64]) {
    let once: BTreeSet<_> = told.iter().collect();
    assert_eq!(once.len(), told.len(), "one is told twice: {told:?}");
    assert_eq!(once, expected.iter().collect());
}
