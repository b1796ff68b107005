//! The topics that operators are shown: the first of very many, without a copy of all.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use crate::proto::middleman::TopicInfo;
use crate::session::{Topic, TopicOrder, one_line};

/// What topics are compared by.
type Rank<'a> = (Reverse<usize>, Reverse<usize>, &'a str);

struct Ranked<'a>(Rank<'a>, TopicInfo<'a>);

impl Ord for Ranked<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Ranked<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Ranked<'_> {}

/// The first topics in this order, `most` at most.
pub(super) fn first<'a>(
    topics: impl Iterator<Item = TopicInfo<'a>>,
    order: TopicOrder,
    most: usize,
) -> Vec<Topic> {
    let mut first = BinaryHeap::new();
    for topic in topics {
        first.push(Ranked(rank(&topic, order), topic));
        if first.len() > most {
            first.pop();
        }
    }
    first.into_sorted_vec().into_iter().map(|Ranked(_, topic)| shown(topic)).collect()
}

const fn rank<'a>(topic: &TopicInfo<'a>, order: TopicOrder) -> Rank<'a> {
    let (outstanding, subscribers) = match order {
        TopicOrder::Name => (0, 0),
        TopicOrder::Busiest => (topic.outstanding, topic.subscribers),
    };
    (Reverse(outstanding), Reverse(subscribers), topic.name)
}

fn shown(topic: TopicInfo<'_>) -> Topic {
    Topic {
        name: one_line(topic.name),
        subscribers: topic.subscribers,
        clients_publish: topic.clients_publish,
        clients_subscribe: topic.clients_subscribe,
        responders: topic.responders,
        workers: topic.workers,
        outstanding: topic.outstanding,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(name: &str, outstanding: usize, subscribers: usize) -> TopicInfo<'_> {
        TopicInfo {
            name,
            subscribers,
            clients_publish: true,
            clients_subscribe: false,
            responders: 1,
            workers: 1,
            outstanding,
            relays: 0,
        }
    }

    #[test]
    fn first_topics_are_those_of_the_order() {
        let topics = [topic("c", 0, 9), topic("a", 0, 1), topic("d", 2, 0), topic("b", 0, 9)];
        let names = |order, most| -> Vec<String> {
            let first = first(topics.into_iter(), order, most);
            first.into_iter().map(|topic| topic.name).collect()
        };

        assert_eq!(names(TopicOrder::Name, 3), ["a", "b", "c"]);
        assert_eq!(names(TopicOrder::Busiest, 3), ["d", "b", "c"]);
        assert_eq!(names(TopicOrder::Busiest, 9), ["d", "b", "c", "a"]);
        assert_eq!(names(TopicOrder::Name, 0), [""; 0]);
    }
}
