//! The certificates of listeners that speak TLS themselves.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::StartError;
use crate::config::{self, TlsPair, UnusablePair};
use crate::net::tls::{Acceptor, Certificates};

/// What each listener speaks TLS with, if it does.
///
/// # Errors
/// A file that is of no use any more, although the configuration was.
pub(super) async fn open(
    listeners: &[config::Listener],
) -> Result<Vec<Option<Acceptor>>, StartError> {
    let mut acceptors = Vec::new();
    for listener in listeners {
        let pairs = listener.tls.clone();
        let acceptor = if pairs.is_empty() {
            None
        } else {
            let loaded = spawn_blocking(move || load(&pairs)).await;
            Some(Acceptor::new(loaded.expect("loading does not panic")?)?)
        };
        acceptors.push(acceptor);
    }
    Ok(acceptors)
}

fn load(pairs: &[TlsPair]) -> Result<Arc<Certificates>, UnusablePair> {
    let loaded = pairs.iter().map(|pair| pair.load().map(Arc::new));
    Ok(Certificates::new(loaded.collect::<Result<_, _>>()?))
}
