//! Lookups that wait for the registry: one for each node, whoever asks.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::doors::pilot::directory::Lookup;
use crate::ids::NodeId;

/// Most nodes that are asked about at the same time: 1,024 logins, and what is asked by the clock.
pub(super) const MAX_LOOKUPS: usize = 2_048;

/// Gets the answer once it is there; closed without one where there is none to be had.
pub(super) type Answer = watch::Receiver<Option<Lookup>>;

#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<NodeId, Answer, RandomState>>);

/// What became of a question.
#[derive(Debug)]
pub(super) enum Joined {
    /// Nobody asked about this node yet: the question is to be carried to the registry.
    First(Ask, Answer),
    /// Somebody did; the answer goes to all.
    Other(Answer),
    /// Too many nodes are being asked about.
    Full,
}

impl InFlight {
    pub(super) fn join(self: &Arc<Self>, node: NodeId) -> Joined {
        let mut lookups = self.0.lock();
        if let Some(answer) = lookups.get(&node) {
            return Joined::Other(answer.clone());
        }
        if lookups.len() >= MAX_LOOKUPS {
            return Joined::Full;
        }
        let (sender, answer) = watch::channel(None);
        lookups.insert(node, answer.clone());
        Joined::First(Ask { node, sender, lookups: self.clone() }, answer)
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// The one question about a node. Dropping it tells those who wait that no answer comes.
#[derive(Debug)]
pub(super) struct Ask {
    node: NodeId,
    sender: watch::Sender<Option<Lookup>>,
    lookups: Arc<InFlight>,
}

impl Ask {
    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    /// Whether anybody waits for the answer.
    pub(super) fn is_wanted(&self) -> bool {
        // One receiver is the table's.
        self.sender.receiver_count() > 1
    }

    pub(super) fn answer(self, lookup: Lookup) {
        self.sender.send_replace(Some(lookup));
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.lookups.0.lock().remove(&self.node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> NodeId {
        NodeId::new(u32::try_from(number).unwrap()).unwrap()
    }

    fn first(lookups: &Arc<InFlight>, number: usize) -> (Ask, Answer) {
        let Joined::First(ask, answer) = lookups.join(node(number)) else {
            panic!("asked already")
        };
        (ask, answer)
    }

    #[tokio::test]
    async fn one_question_answers_all_who_ask_about_the_node() {
        let lookups = Arc::new(InFlight::default());
        let (ask, mut a) = first(&lookups, 7);
        let Joined::Other(mut b) = lookups.join(node(7)) else { panic!() };
        ask.answer(Lookup::Unknown);
        for answer in [&mut a, &mut b] {
            assert_eq!(*answer.wait_for(Option::is_some).await.unwrap(), Some(Lookup::Unknown));
        }
        assert_eq!(lookups.len(), 0);
    }

    #[tokio::test]
    async fn dropped_question_tells_those_who_wait() {
        let lookups = Arc::new(InFlight::default());
        let (ask, mut answer) = first(&lookups, 7);
        drop(ask);
        assert!(answer.wait_for(Option::is_some).await.is_err());
        first(&lookups, 7);
    }

    #[test]
    fn nodes_in_flight_are_bounded() {
        let lookups = Arc::new(InFlight::default());
        let asks: Vec<_> = (1..=MAX_LOOKUPS).map(|number| first(&lookups, number)).collect();
        assert!(matches!(lookups.join(node(MAX_LOOKUPS + 1)), Joined::Full));
        assert!(matches!(lookups.join(node(1)), Joined::Other(_)));
        drop(asks);
        first(&lookups, MAX_LOOKUPS + 1);
    }
}
