//! Who may come in, and which channels a peer may subscribe and publish to.

use std::collections::HashMap;

use crate::config::{Config, KeyopPeer};
use crate::wire::keyop::channel::{is_dead_letter, is_name};

/// What peers are judged by. Names are exact; there are no patterns.
#[derive(Debug, Default)]
pub(super) struct Policy {
    /// The peers that may come in; everybody with a certificate where there is none.
    peers: HashMap<String, KeyopPeer>,
}

impl Policy {
    /// By these settings.
    pub(super) fn new(config: &Config) -> Self {
        let peers = config.keyop.iter().flat_map(|keyop| &keyop.peers);
        Self { peers: peers.map(|peer| (peer.name.clone(), peer.clone())).collect() }
    }

    /// Whether a peer may come in.
    pub(super) fn admits(&self, peer: &str) -> bool {
        self.peers.is_empty() || self.peers.contains_key(peer)
    }

    /// Whether a peer may have the records of a channel. Dead letters are for those whose list names
    /// the channel.
    pub(super) fn may_subscribe(&self, peer: &str, channel: &str) -> bool {
        if !is_name(channel) {
            return false;
        }
        let channels = self.peers.get(peer).map(|peer| &peer.subscribe);
        match channels.filter(|channels| !channels.is_empty()) {
            Some(channels) => channels.contains(channel),
            None => self.admits(peer) && !is_dead_letter(channel),
        }
    }

    /// Whether a peer may publish to a channel, whose name is one.
    pub(super) fn may_publish(&self, peer: &str, channel: &str) -> bool {
        let channels = self.peers.get(peer).map(|peer| &peer.publish);
        match channels.filter(|channels| !channels.is_empty()) {
            Some(channels) => channels.contains(channel),
            None => self.admits(peer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(peers: &[(&str, &[&str], &[&str])]) -> Policy {
        let channels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let peers = peers.iter().map(|(name, subscribe, publish)| {
            let name = (*name).to_owned();
            let (subscribe, publish) = (channels(subscribe), channels(publish));
            (name.clone(), KeyopPeer { name, subscribe, publish })
        });
        Policy { peers: peers.collect() }
    }

    #[test]
    fn everybody_may_do_all_where_no_peer_is_listed() {
        let open = policy(&[]);
        assert!(open.admits("alpha"));
        assert!(open.may_subscribe("alpha", "orders"));
        assert!(open.may_publish("alpha", "orders"));
        assert!(!open.may_subscribe("alpha", "../x"), "no folder has this name");
        assert!(!open.may_subscribe("alpha", "orders.dead-letter"), "nobody has named it");
    }

    #[test]
    fn listed_peers_may_do_what_their_lists_name_or_all_where_those_are_empty() {
        let closed = policy(&[
            ("alpha", &["orders", "orders.dead-letter"], &["alerts"]),
            ("beta", &[], &[]),
        ]);
        assert!(!closed.admits("gamma"));
        assert!(!closed.may_subscribe("gamma", "orders"));
        assert!(!closed.may_publish("gamma", "orders"));
        assert!(closed.may_subscribe("alpha", "orders.dead-letter"));
        assert!(!closed.may_subscribe("alpha", "alerts"));
        assert!(closed.may_publish("alpha", "alerts"));
        assert!(!closed.may_publish("alpha", "orders"));
        assert!(closed.may_subscribe("beta", "orders") && closed.may_publish("beta", "alerts"));
    }
}
