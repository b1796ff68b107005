//! Discover over UDP: a node asks for its address and thereby keeps its endpoint (SPEC §6);
//! who has no id yet asks for the address alone (SPEC §2.1).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use ed25519_dalek::VerifyingKey;

use super::super::PilotDrop;
use super::buckets::Buckets;
use super::datagrams::{Batch, back_to};
use super::{Handled, NAMES_DESTINATION, Overlay, shown_key};
use crate::ids::{NodeId, PublicKey};
use crate::metrics::{Drop, EndpointEvent, Shard, Whose};
use crate::net::local::Locality;
use crate::net::udp::Datagram;
use crate::peers::Capabilities;
use crate::proto::endpoint::{self, Claim};
use crate::relay::Departures;
use crate::wire::beacon::{self, Discover};

impl Overlay {
    pub(super) fn discover(
        &self,
        buckets: &mut Buckets,
        discover: &Discover<'_>,
        datagram: &Datagram,
        batch: &Batch<'_>,
        out: &mut Departures,
    ) {
        let &Batch { rules, now, shard, .. } = batch;
        let whose = Whose { sender: discover.node.map(Into::into), dest: None };
        let refused = if !self.discovering.is_on() {
            Some(PilotDrop::DISCOVER_OFF)
        } else if !buckets.admits_question(datagram.from.ip(), rules, now) {
            Some(PilotDrop::DISCOVER_LIMITED)
        } else {
            None
        };
        if let Some(reason) = refused {
            // It is not answered, but keeps the endpoint that it comes from: or a flood in the
            // name of an address would have all nodes behind that address forgotten, and so
            // would an operator.
            if let Some(node) = discover.node {
                let _seen = self.table.sender(node.into(), datagram.from, now);
            }
            return shard.dropped_of(whose, reason, 1, now);
        }
        let claimed = match discover.node {
            Some(node) => self.claim_by_discover(node, discover, datagram, batch),
            None => self.check_endpoint(datagram, batch),
        };
        if let Err(reason) = claimed {
            return shard.dropped_of(whose, reason, 1, now);
        }
        let mut reply = Vec::with_capacity(20);
        beacon::encode_discover_reply(datagram.from, &mut reply);
        out.send(back_to(datagram), &reply);
        self.count_handled(Handled::Discover, shard);
    }

    /// Follows the claim of a node that asks; an error where the question is not answered.
    fn claim_by_discover(
        &self,
        node: NodeId,
        discover: &Discover<'_>,
        datagram: &Datagram,
        batch: &Batch<'_>,
    ) -> Result<(), Drop> {
        match self.claim(node, datagram, discover.extended, batch) {
            Ok(known_key) => {
                if let Some(key) = discover.key {
                    self.offer_key(node, PublicKey(*key), known_key, batch.shard);
                }
                Ok(())
            }
            // Its address is what it asks for, and it learns no more than that.
            Err(reason) if reason == PilotDrop::CLAIM_OF_WSS_NODE => Ok(()),
            Err(reason) => Err(reason),
        }
    }

    /// Follows a node's claim to be reached where its packet came from; the key that it has
    /// shown before, where it has.
    pub(super) fn claim(
        &self,
        node: NodeId,
        datagram: &Datagram,
        extended: bool,
        batch: &Batch<'_>,
    ) -> Result<Option<PublicKey>, Drop> {
        let &Batch { now, shard, .. } = batch;
        self.check_endpoint(datagram, batch)?;
        if self.table.kept_out(node.into(), now).is_some() {
            return Err(PilotDrop::KICKED);
        }
        if self.router.has_session_elsewhere(node.into(), now) {
            shard.endpoint(EndpointEvent::Held, 1);
            return Err(PilotDrop::CLAIM_OF_WSS_NODE);
        }
        let in_directory = || self.directory.known(node).is_some();
        let gained = if extended { NAMES_DESTINATION } else { Capabilities::NONE };
        let claimed =
            self.table.claim(node.into(), datagram.from, datagram.to, gained, in_directory, now);
        if claimed.evicted {
            shard.endpoint(EndpointEvent::Evicted, 1);
        }
        match claimed.claim {
            None => return Err(PilotDrop::ENDPOINTS_FULL),
            Some(Claim::HeldBySession) => {
                shard.endpoint(EndpointEvent::Held, 1);
                return Err(PilotDrop::CLAIM_OF_WSS_NODE);
            }
            Some(Claim::Register) => shard.endpoint(EndpointEvent::Registered, 1),
            Some(Claim::Move) => shard.endpoint(EndpointEvent::Moved, 1),
            Some(Claim::Keep) => shard.endpoint(EndpointEvent::MoveLimited, 1),
            Some(Claim::Refresh) => {}
        }
        Ok(claimed.credential.map(shown_key))
    }

    /// Whether packets may be sent to where one came from (SPEC §6.4).
    fn check_endpoint(&self, datagram: &Datagram, batch: &Batch<'_>) -> Result<(), Drop> {
        let &Batch { socket, rules, now, .. } = batch;
        let from = datagram.from;
        let forbidden = !endpoint::is_possible(from, rules.loopback)
            || self.beacons.is_listed(from)
            || rules.own.contains(&from);
        if forbidden {
            return Err(PilotDrop::FORBIDDEN_ENDPOINT);
        }
        match self.is_own_socket(socket.address(), from, datagram.to, now) {
            Locality::Foreign => Ok(()),
            // Such an endpoint would make the relay talk to itself.
            Locality::Local => Err(PilotDrop::FORBIDDEN_ENDPOINT),
            Locality::Unknown => Err(PilotDrop::ENDPOINT_UNCHECKED),
        }
    }

    /// Whether a packet came from the very socket that it came to, as far as that is known.
    pub(super) fn is_own_socket(
        &self,
        bound: SocketAddr,
        from: SocketAddr,
        to: Option<IpAddr>,
        now: Instant,
    ) -> Locality {
        if from.port() != bound.port() {
            Locality::Foreign
        } else if to == Some(from.ip()) || from.ip() == bound.ip() {
            Locality::Local
        } else if bound.ip().is_unspecified() {
            self.local.look(from.ip(), now)
        } else {
            Locality::Foreign
        }
    }

    /// Keeps the first usable key that a node shows, unless the directory has another.
    fn offer_key(&self, node: NodeId, key: PublicKey, shown: Option<PublicKey>, shard: &Shard) {
        match self.directory.known(node).or(shown) {
            Some(known) if known == key => {
                if shown.is_none() {
                    self.table.keep_credential(node.into(), key.into());
                }
            }
            None if VerifyingKey::from_bytes(&key.0).is_ok_and(|key| !key.is_weak()) => {
                self.table.keep_credential(node.into(), key.into());
            }
            Some(_) | None => shard.endpoint(EndpointEvent::KeyIgnored, 1),
        }
    }
}
