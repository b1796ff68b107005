//! What the tests of this module share: the parts of a relay that has nothing.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::{Order, Orders, Parts};
use crate::config::{Config, Flags, Layers, Surroundings};
use crate::metrics::Traffic;
use crate::peers::Table;
use crate::relay::Switches;

/// The parts of a relay with this state folder, and the orders to its owner.
pub(super) fn parts(state_dir: &Path) -> (Parts, mpsc::Receiver<Order>) {
    let flags = Flags::state_dir(Some(state_dir.display().to_string()));
    let layers = Layers::collect(flags, &Surroundings::of_this_process()).unwrap();
    let config = Config::new(&layers).unwrap();
    let (orders, ordered) = Orders::new();
    let parts = Parts {
        table: Arc::new(Table::new(1, 1)),
        traffic: Arc::new(Traffic::default()),
        doors: Vec::new(),
        cluster: None,
        store: None,
        queues: None,
        switches: Switches::default(),
        local: Arc::default(),
        status: Box::new(|| Value::Null),
        readiness: Box::new(|| Value::Null),
        orders,
        config: watch::channel(Arc::new(config)).1,
        health: Arc::default(),
    };
    (parts, ordered)
}
