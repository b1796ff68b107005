//! The nodes whose keys changed, until somebody asks for them.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Change;
use crate::ids::NodeId;

/// Most nodes that are remembered one by one; beyond that, any node may have changed.
const MAX_NODES: usize = 4_096;

/// A bounded queue that loses precision when it is full, never a change.
#[derive(Debug, Default)]
pub(super) struct Changes {
    queue: Mutex<Queue>,
    waiting: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    nodes: VecDeque<NodeId>,
    any: bool,
}

impl Changes {
    pub(super) fn push(&self, node: NodeId) {
        {
            let mut queue = self.queue.lock();
            if queue.any {
                return;
            }
            if queue.nodes.len() < MAX_NODES {
                queue.nodes.push_back(node);
            } else {
                *queue = Queue { nodes: VecDeque::new(), any: true };
            }
        }
        self.waiting.notify_one();
    }

    /// Waits for the next change; nothing is lost when the wait is given up.
    pub(super) async fn next(&self) -> Change {
        loop {
            if let Some(change) = self.take() {
                return change;
            }
            self.waiting.notified().await;
        }
    }

    fn take(&self) -> Option<Change> {
        let mut queue = self.queue.lock();
        if std::mem::take(&mut queue.any) {
            return Some(Change::Any);
        }
        queue.nodes.pop_front().map(Change::Node)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn node(number: usize) -> NodeId {
        NodeId::new(u32::try_from(number).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn changes_come_in_their_order() {
        let changes = Changes::default();
        changes.push(node(1));
        changes.push(node(2));
        assert_eq!(changes.next().await, Change::Node(node(1)));
        assert_eq!(changes.next().await, Change::Node(node(2)));
        assert_eq!(changes.take(), None);
    }

    #[tokio::test]
    async fn overflow_becomes_one_change_of_any_node() {
        let changes = Changes::default();
        for number in 1..=MAX_NODES + 2 {
            changes.push(node(number));
        }
        assert_eq!(changes.next().await, Change::Any);
        assert_eq!(changes.take(), None);
        changes.push(node(7));
        assert_eq!(changes.next().await, Change::Node(node(7)));
    }

    #[tokio::test]
    async fn waiting_task_is_woken() {
        let changes = Arc::new(Changes::default());
        let waiting = tokio::spawn({
            let changes = changes.clone();
            async move { changes.next().await }
        });
        tokio::task::yield_now().await;
        changes.push(node(7));
        assert_eq!(waiting.await.unwrap(), Change::Node(node(7)));
    }
}
