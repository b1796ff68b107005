//! Recordings over gRPC, of peers from v1.5.0 on.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::super::grpc::{Call, Rpc, fields, last_id};
use super::super::ids;
use super::{Better, Event, LONG, Stage, assert_same, events, is_id_of};

/// A replay over gRPC.
struct OverGrpc {
    stage: Stage,
    connections: HashMap<u64, Rpc>,
    calls: HashMap<(u64, u64), Recall>,
    /// Who has acknowledged which record: it does not come again.
    acknowledged: HashSet<(String, String)>,
}

struct Recall {
    call: Call,
    who: String,
    is_subscribe: bool,
    has_subscribed: bool,
    /// It has asked for something that it may have.
    is_subscribed: bool,
    in_flight: Option<Vec<String>>,
    /// Records that came with others, and that the recording has later.
    ahead: VecDeque<Vec<u8>>,
    /// Records that were published before it came, of an ephemeral peer.
    missed: HashSet<String>,
    /// A batch of it was recorded in part.
    has_unknown: bool,
}

impl Recall {
    /// The next record; what was delivered before it is acknowledged where it has to be.
    async fn next(&mut self, acknowledged: &mut HashSet<(String, String)>) -> Vec<u8> {
        if self.ahead.is_empty() {
            if let Some(in_flight) = self.in_flight.take() {
                // Other batches than in the recording.
                let last = in_flight.last().unwrap().clone();
                acknowledged.extend(in_flight.into_iter().map(|id| (self.who.clone(), id)));
                self.call.acknowledge(&last).await;
            }
            let records = self.call.records().await;
            self.in_flight = Some(ids(&records));
            self.ahead.extend(records);
        }
        self.ahead.pop_front().expect("a batch has a record")
    }
}

impl OverGrpc {
    /// Replays the cases before one that begins so.
    async fn run(&mut self, file: &str, end: &str) {
        let mut events = events(file);
        if let Some(at) = events.iter().position(|event| event.case.starts_with(end)) {
            events.truncate(at);
        }
        let mut case = "";
        for (at, event) in events.iter().enumerate() {
            if event.case != case {
                case = &event.case;
                eprintln!("{case}");
            }
            if LONG.iter().any(|case| event.case.starts_with(case)) {
                continue;
            }
            if event.is_cut() {
                // What it had comes, and is not known.
                if let Some(recall) = self.calls.get_mut(&self.key(event)) {
                    recall.has_unknown |= !event.is_ours;
                }
                continue;
            }
            let later = events.get(at + 1..).unwrap_or_default();
            match (&*event.op, event.is_ours) {
                ("h2-preface", true) => self.connect(event).await,
                ("h2-HEADERS", true) => self.call(event).await,
                ("h2-DATA", true) => self.say(event, later).await,
                ("h2-RST_STREAM", true) => {
                    if let Some(mut recall) = self.calls.remove(&self.key(event)) {
                        // What was said last leaves before the call ends.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        recall.call.cancel();
                    }
                }
                ("h2-HEADERS", false) => self.hear_end(event).await,
                ("h2-DATA", false) => self.hear(event).await,
                ("tcp-fin", false) if event.case == "hub Close" => self.stop().await,
                ("tcp-fin", true) => {
                    self.connections.remove(&event.conn);
                    self.calls.retain(|(conn, _), _| *conn != event.conn);
                }
                _ => {}
            }
        }
    }

    fn key(&self, event: &Event) -> (u64, u64) {
        (event.conn, event.value["stream"].as_u64().unwrap())
    }

    async fn connect(&mut self, event: &Event) {
        let site = &self.stage.site;
        let identity = &self.stage.identities[&event.who];
        let rpc = Rpc::connect(site.address, &site.authority, identity).await.unwrap();
        self.connections.insert(event.conn, rpc);
    }

    async fn call(&mut self, event: &Event) {
        let path = event.header(":path").unwrap();
        let Some(rpc) = self.connections.get_mut(&event.conn) else { return };
        // The relay has one session of a peer: one that was taken over is called by its successor.
        let Some(call) = rpc.try_call(path).await else { return };
        let is_subscribe = path.ends_with("/Subscribe");
        let recall = Recall {
            call,
            who: event.who.clone(),
            is_subscribe,
            has_subscribed: false,
            is_subscribed: false,
            in_flight: None,
            ahead: VecDeque::new(),
            missed: HashSet::new(),
            has_unknown: false,
        };
        self.calls.insert(self.key(event), recall);
    }

    async fn say(&mut self, event: &Event, later: &[Event]) {
        let key = self.key(event);
        for message in event.messages() {
            let Some(recall) = self.calls.get_mut(&key) else { return };
            if recall.is_subscribe && recall.has_subscribed {
                self.acknowledge(key, &message, event, later).await;
                continue;
            }
            if recall.is_subscribe {
                recall.has_subscribed = true;
                // The field of ephemeral peers.
                if message.ends_with(&[0x18, 1]) {
                    recall.missed.clone_from(&self.stage.published);
                }
                recall.call.say(&message).await;
                // The newer of two takes over.
                let older = self.calls.iter().filter(|(other, recall)| {
                    **other != key
                        && other.0 == key.0
                        && recall.is_subscribe
                        && recall.in_flight.is_none()
                });
                let older: Vec<_> = older.map(|(key, _)| *key).collect();
                if event.case.starts_with("two Subscribe") {
                    for older in older {
                        let mut recall = self.calls.remove(&older).unwrap();
                        assert_eq!(recall.call.status().await.0, 1, "{}", event.case);
                        self.stage.better.insert(Better::DeliversOnce);
                    }
                }
                let names = |channel: &[u8]| message.windows(6).any(|bytes| bytes == channel);
                let may = match &*self.calls[&key].who {
                    "nobody" => false,
                    "beta" => names(b"orders"),
                    _ => names(b"orders") || names(b"alerts"),
                };
                self.calls.get_mut(&key).unwrap().is_subscribed = may;
                if may {
                    self.stage.site.wait_until_subscribed(self.subscribers());
                }
            } else {
                self.stage.published.extend(published(&message));
                recall.call.say(&message).await;
            }
        }
        if event.value["end_stream"] == true
            && let Some(recall) = self.calls.get_mut(&key)
        {
            recall.call.finish();
        }
    }

    /// What the recording has is one of something that was not delivered: the relay waits for that
    /// of the batch.
    async fn acknowledge(
        &mut self,
        key: (u64, u64),
        message: &[u8],
        event: &Event,
        later: &[Event],
    ) {
        let recall = self.calls.get_mut(&key).unwrap();
        let said = fields(message).pop().map(|(_, ack)| last_id(&ack));
        let has_come = |recall: &Recall| {
            let mut come = recall.in_flight.iter().flatten();
            come.any(|id| Some(id) == said.as_ref())
        };
        while recall.has_unknown && !has_come(recall) {
            // It is of a batch that was recorded in part.
            recall.ahead.clear();
            recall.next(&mut self.acknowledged).await;
        }
        recall.call.say(message).await;
        let Some(in_flight) = recall.in_flight.take() else { return };
        let who = recall.who.clone();
        self.acknowledged.extend(in_flight.iter().map(|id| (who.clone(), id.clone())));
        if said.is_some_and(|said| in_flight.contains(&said)) {
            return;
        }
        self.stage.better.insert(Better::IgnoresStrayAcks);
        let next = later.iter().take_while(|later| later.case == event.case);
        let records: Vec<_> = next
            .filter(|later| !later.is_ours && later.op == "h2-DATA" && self.is_subscribe(later))
            .flat_map(|later| later.messages())
            .flat_map(|message| records_in(&message))
            .collect();
        self.stage.publish_missing(&records);
        let recall = self.calls.get_mut(&key).unwrap();
        // A batch may come twice to a call that is new, and nothing else before its acknowledgement.
        for heard in recall.call.records_for_a_while().await {
            let id = is_id_of(&heard).unwrap();
            assert!(in_flight.contains(&id), "{}: {id}, while {in_flight:?} waits", event.case);
        }
        recall.call.acknowledge(in_flight.last().unwrap()).await;
    }

    /// Peers that are subscribed to something.
    fn subscribers(&self) -> usize {
        let calls = self.calls.values().filter(|recall| recall.is_subscribed);
        calls.map(|recall| &*recall.who).collect::<HashSet<_>>().len()
    }

    fn is_subscribe(&self, event: &Event) -> bool {
        let stream = event.value["stream"].as_u64().unwrap();
        self.calls.get(&(event.conn, stream)).is_some_and(|recall| recall.is_subscribe)
    }

    async fn hear(&mut self, event: &Event) {
        let key = self.key(event);
        for message in event.messages() {
            let is_subscribe = self.is_subscribe(event);
            if is_subscribe {
                self.stage.publish_missing(&records_in(&message));
            }
            let Some(recall) = self.calls.get_mut(&key) else { return };
            self.stage.checked += 1;
            if !is_subscribe {
                let heard = recall.call.next().await;
                assert_eq!(heard.as_deref(), Some(&*message), "{}", event.case);
                continue;
            }
            for expected in records_in(&message) {
                let id = is_id_of(&expected).unwrap();
                if self.acknowledged.contains(&(recall.who.clone(), id.clone())) {
                    // The original delivers it in both of two calls.
                    self.stage.better.insert(Better::DeliversOnce);
                } else if recall.missed.contains(&id) {
                    self.stage.better.insert(Better::ReplaysNothingToEphemeralPeers);
                } else {
                    let mut heard = recall.next(&mut self.acknowledged).await;
                    while recall.has_unknown && is_id_of(&heard).as_ref() != Some(&id) {
                        heard = recall.next(&mut self.acknowledged).await;
                    }
                    assert_same(&heard, &expected, event);
                }
            }
        }
    }

    async fn hear_end(&mut self, event: &Event) {
        let Some(code) = event.header("grpc-status") else { return };
        let key = self.key(event);
        let Some(mut recall) = self.calls.remove(&key) else { return };
        let expected = (code.parse().unwrap(), event.header("grpc-message").unwrap().to_owned());
        assert_eq!(recall.call.status().await, expected, "{}", event.case);
        self.stage.checked += 1;
    }

    async fn stop(&mut self) {
        if !self.stage.better.insert(Better::SaysThatItStops) {
            return;
        }
        self.stage.site.relay.signal("TERM");
        let mut codes = BTreeSet::new();
        for (_, mut recall) in self.calls.drain().filter(|(_, recall)| recall.who == "gamma") {
            codes.insert(recall.call.status().await.0);
        }
        // Some had ended before: by themselves, or since a newer connection took over.
        assert!(codes.contains(&14) && codes.is_subset(&[0, 1, 14].into()), "{codes:?}");
    }
}

/// The records of a batch over gRPC.
fn records_in(message: &[u8]) -> Vec<Vec<u8>> {
    let batch = fields(message);
    let batch = batch.first().map(|(_, batch)| fields(batch)).unwrap_or_default();
    batch.into_iter().map(|(_, record)| record).collect()
}

/// The ids in what a client published, as far as it is a batch.
fn published(message: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(message);
    let ids = text.split("\"id\":\"").skip(1);
    ids.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_original_answered_raw_clients_over_grpc_is_answered() {
    let (connections, calls) = (HashMap::new(), HashMap::new());
    let acknowledged = HashSet::new();
    let mut replay = OverGrpc { stage: Stage::start(), connections, calls, acknowledged };
    replay.run("grpc/raw.jsonl", "(all)").await;
    assert!(replay.stage.checked > 25, "{}", replay.stage.checked);
    let better = [Better::IgnoresStrayAcks, Better::SaysThatItStops, Better::DeliversOnce].into();
    assert_eq!(replay.stage.better, better);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_originals_clients_said_over_grpc_is_said() {
    let (connections, calls) = (HashMap::new(), HashMap::new());
    let acknowledged = HashSet::new();
    let mut replay = OverGrpc { stage: Stage::start(), connections, calls, acknowledged };
    replay.run("grpc/real-clients.jsonl", "hub stops").await;
    assert!(replay.stage.checked > 35, "{}", replay.stage.checked);
    assert_eq!(replay.stage.better, [Better::ReplaysNothingToEphemeralPeers].into());
}
