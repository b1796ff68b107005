//! Where a login gets a node's key from: the directory, or what an embedder brings.

use std::collections::HashMap;
use std::future::{Future, ready};
use std::hash::BuildHasher;
use std::pin::Pin;

use super::{Directory, Lookup};
use crate::ids::{NodeId, PublicKey};

/// Something that knows nodes' keys.
///
/// Implemented by [`Directory`], by functions from a node to its key, and by maps.
///
/// ```
/// use beacon_relay::doors::pilot::directory::{Keys, Lookup};
/// use beacon_relay::ids::{NodeId, PublicKey};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let key = PublicKey([7; 32]);
/// let keys: Box<dyn Keys> = Box::new(move |node: NodeId| (node.number() == 7).then_some(key));
/// assert_eq!(keys.lookup(NodeId::new(7).unwrap()).await, Lookup::Key(key));
/// assert_eq!(keys.lookup(NodeId::new(8).unwrap()).await, Lookup::Unknown);
/// # });
/// ```
pub trait Keys: Send + Sync + 'static {
    /// Asks for a node's key; should take seconds at most.
    fn lookup(&self, node: NodeId) -> Pin<Box<dyn Future<Output = Lookup> + Send + '_>>;

    /// What is known of a node's key without asking anybody, and where keys are from; nothing where
    /// there is no list to look into, as by default.
    fn listed(&self, _node: NodeId) -> Option<Listed> {
        None
    }

    /// Called when `node` has logged in with `key` and its session can be found in the table; must
    /// not wait. The key may have been withdrawn since the look-up: whoever ends the sessions of
    /// withdrawn keys may have looked before this session was there. Does nothing by default.
    fn session_began(&self, node: NodeId, key: PublicKey) {
        let _keys_never_change = (node, key);
    }
}

/// A node in a list of keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// Where the keys are from, for people.
    pub source: String,
    /// Whether that is the embedded directory, which [`super::enroll`] writes.
    pub is_embedded: bool,
    /// The node's key, where it is known.
    pub key: Option<PublicKey>,
}

impl Keys for Directory {
    fn lookup(&self, node: NodeId) -> Pin<Box<dyn Future<Output = Lookup> + Send + '_>> {
        Box::pin(Self::lookup(self, node))
    }

    fn listed(&self, node: NodeId) -> Option<Listed> {
        let (source, is_embedded) = self.source();
        Some(Listed { source, is_embedded, key: self.known(node) })
    }

    fn session_began(&self, node: NodeId, key: PublicKey) {
        self.look_again_unless_known(node, key);
    }
}

impl<F: Fn(NodeId) -> Option<PublicKey> + Send + Sync + 'static> Keys for F {
    fn lookup(&self, node: NodeId) -> Pin<Box<dyn Future<Output = Lookup> + Send + '_>> {
        Box::pin(ready(self(node).into()))
    }
}

impl<S: BuildHasher + Send + Sync + 'static> Keys for HashMap<NodeId, PublicKey, S> {
    fn lookup(&self, node: NodeId) -> Pin<Box<dyn Future<Output = Lookup> + Send + '_>> {
        Box::pin(ready(self.get(&node).copied().into()))
    }
}

impl From<Option<PublicKey>> for Lookup {
    fn from(key: Option<PublicKey>) -> Self {
        key.map_or(Self::Unknown, Self::Key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn map_is_a_source_of_keys() {
        let (node, key) = (NodeId::new(7).unwrap(), PublicKey([7; 32]));
        let keys: Box<dyn Keys> = Box::new(HashMap::from([(node, key)]));
        assert_eq!(keys.lookup(node).await, Lookup::Key(key));
        assert_eq!(keys.lookup(NodeId::new(8).unwrap()).await, Lookup::Unknown);
    }
}
