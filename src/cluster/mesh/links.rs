//! Which links are up, and which of two links between the same two relays stays.
//!
//! One side decides, so that both always agree: the relay with the smaller key. It keeps the
//! link that is up, unless the other relay has started anew; while it dials a relay itself,
//! it takes no link from there. It shows its decision by opening its lanes, and the other
//! side joins only then, on whatever link that is.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quinn::Connection;
use tokio_util::sync::CancellationToken;

use super::canonical;
use super::close::Close;
use super::hello::Role;
use super::tcp;
use crate::cluster::{Boot, Cluster, Member};
use crate::ids::RelayId;
use crate::metrics::Word as _;

/// A relay that said who it is, on a link that has no member yet.
#[derive(Debug)]
pub(super) struct Peer {
    /// Who it is.
    pub(super) relay: RelayId,
    /// Which run of it.
    pub(super) boot: Boot,
    /// Where it listens, by its own word.
    pub(super) address: String,
}

/// The links that are up.
#[derive(Debug)]
pub(super) struct Links {
    cluster: Arc<Cluster>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    up: HashMap<RelayId, Established>,
    /// Whom we dial at this moment and know by the key; bounded by the addresses dialled.
    dialled: Vec<RelayId>,
}

#[derive(Debug)]
struct Established {
    boot: Boot,
    connection: Connection,
    member: Arc<Member>,
    tcp: Arc<tcp::Lanes>,
    over: CancellationToken,
}

impl Links {
    pub(super) fn new(cluster: Arc<Cluster>) -> Self {
        Self { cluster, table: Mutex::default() }
    }

    /// Makes the relay behind a link a member; `None` where the link gives way to another.
    ///
    /// `decided` says that the other side has decided for this link.
    pub(super) fn admit(
        &self,
        peer: &Peer,
        connection: &Connection,
        tcp: &Arc<tcp::Lanes>,
        decided: bool,
    ) -> Option<Arc<Member>> {
        let mut table = self.table.lock();
        if !decided {
            let is_up = table.up.get(&peer.relay).is_some_and(|link| link.boot == peer.boot);
            if is_up || tcp.role() == Role::Accept && table.dialled.contains(&peer.relay) {
                return None;
            }
        }
        if let Some(old) = table.up.remove(&peer.relay) {
            old.connection.close(Close::Replaced.code(), &[]);
            old.over.cancel();
            self.cluster.left(&old.member, Close::Replaced.word());
        }
        let address = canonical(connection.remote_address());
        let member = self.cluster.joined(peer.relay, address.to_string());
        table.up.insert(
            peer.relay,
            Established {
                boot: peer.boot,
                connection: connection.clone(),
                member: Arc::clone(&member),
                tcp: Arc::clone(tcp),
                over: CancellationToken::new(),
            },
        );
        Some(member)
    }

    /// The link of a member has ended; nothing if another has taken its place before.
    pub(super) fn end(&self, member: &Arc<Member>, reason: &'static str) {
        let mut table = self.table.lock();
        let up = table.up.get(&member.relay);
        if up.is_some_and(|link| Arc::ptr_eq(&link.member, member)) {
            if let Some(link) = table.up.remove(&member.relay) {
                link.over.cancel();
            }
            self.cluster.left(member, reason);
        }
    }

    /// Ends with the link to a relay; `None` where there is none.
    pub(super) fn over(&self, relay: RelayId) -> Option<CancellationToken> {
        self.table.lock().up.get(&relay).map(|link| link.over.clone())
    }

    /// The lanes over TCP of the link that a relay has dialled; `None` where there is none.
    pub(super) fn lanes_of(&self, relay: RelayId) -> Option<Arc<tcp::Lanes>> {
        let table = self.table.lock();
        let link = table.up.get(&relay)?;
        (link.tcp.role() == Role::Accept).then(|| Arc::clone(&link.tcp))
    }

    /// Notes, while the guard lives, that we dial this relay.
    pub(super) fn dialling(&self, relay: RelayId) -> Dialling<'_> {
        self.table.lock().dialled.push(relay);
        Dialling { links: self, relay }
    }
}

/// A dial of ours that has reached this relay.
#[derive(Debug)]
pub(super) struct Dialling<'a> {
    links: &'a Links,
    relay: RelayId,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let dialled = &mut self.links.table.lock().dialled;
        if let Some(at) = dialled.iter().position(|relay| *relay == self.relay) {
            dialled.swap_remove(at);
        }
    }
}
