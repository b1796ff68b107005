//! A cluster of three servers that have copies of each other's streams, and that are killed while
//! commits go on: the leader of the log's stream, a follower of it, and the leader of the cluster's
//! own state (NATS calls it the meta leader).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use serde_json::Value;

use super::*;

/// Which server is killed.
#[derive(Clone, Copy, Debug)]
enum Victim {
    StreamLeader,
    Follower,
    MetaLeader,
}

/// Commits while a server is away, and as many while all are there.
const COMMITS: u64 = 20;

struct Three {
    servers: Vec<Server>,
    /// Where each tells of itself.
    monitors: Vec<SocketAddr>,
    _streams: TempDir,
}

impl Three {
    fn start(runtime: &Runtime) -> Self {
        let streams = tempfile::tempdir().unwrap();
        let free: Vec<_> = (0..6).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<_> = free.iter().map(|free| free.local_addr().unwrap()).collect();
        drop(free);
        let (ports, monitors) = ports.split_at(3);
        let routes: Vec<_> = ports.iter().map(|port| format!("\"nats://{port}\"")).collect();
        let config = |number: usize| {
            let folder = streams.path().join(number.to_string());
            format!(
                "server_name: s{number}\nmax_payload: 2MB\nhttp: \"{}\"\n\
                 jetstream {{ store_dir: {folder:?} }}\n\
                 cluster {{ name: c, listen: \"{}\", routes: [{}] }}\n",
                monitors[number],
                ports[number],
                routes.join(",")
            )
        };
        let configs: Vec<_> = (0..3).map(config).collect();
        let servers = configs.iter().map(|config| runtime.block_on(Server::start(config)));
        Self { servers: servers.collect(), monitors: monitors.to_vec(), _streams: streams }
    }

    fn urls(&self) -> String {
        self.servers.iter().map(Server::url).collect::<Vec<_>>().join(",")
    }

    /// The server that leads the cluster's own state, once one does.
    fn meta_leader(&self) -> usize {
        let mut leader = None;
        until("a meta leader", || {
            let told = self.monitors.iter().find_map(|monitor| jetstream_of(*monitor));
            let told = told.and_then(|told| number(told["meta_cluster"]["leader"].as_str()?));
            leader = told;
            leader.is_some()
        });
        leader.expect("it was waited for")
    }

    /// The server that leads the stream of a log.
    fn stream_leader(&self, runtime: &Runtime, log: &JetStream) -> usize {
        let mut leader = None;
        until("a leader of the stream", || {
            leader = runtime.block_on(async {
                let context = log.shared.connection.within(PATIENCE).await.ok()?;
                let stream = context.get_stream(&log.shared.streams.log).await.ok()?;
                number(stream.cached_info().cluster.as_ref()?.leader.as_ref()?)
            });
            leader.is_some()
        });
        leader.expect("it was waited for")
    }
}

/// The number of a server by its name.
fn number(name: &str) -> Option<usize> {
    name.strip_prefix('s')?.parse().ok()
}

/// What a server tells of its JetStream; nothing where it is away.
fn jetstream_of(monitor: SocketAddr) -> Option<Value> {
    let mut stream = TcpStream::connect(monitor).ok()?;
    stream.write_all(b"GET /jsz HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

/// Kills these servers, one after another, each while commits go on, and starts them again.
fn survive(victims: &[Victim]) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut three = Three::start(&runtime);
    let settings = Settings {
        nats: nats::Settings { url: three.urls(), credentials: None },
        name: "three".to_owned(),
        replicas: 3,
        max_bytes: None,
        longest: LONGEST,
    };
    let _runtime = runtime.enter();
    let log = Arc::new(JetStream::open(&settings, folder.path(), id(1)).unwrap());
    let mut store = log.tenure(until_leads(&log));
    let mut last = 0;
    let mut commit = |store: &mut Arc<dyn Store>| {
        for _ in 0..COMMITS {
            last += 1;
            until("a commit", || match store.commit(&appending(last, 100)) {
                Ok(()) => true,
                Err(StoreError::Unavailable(_)) => false,
                // The same relay leads the next epoch, which has all that had an answer.
                Err(StoreError::Fenced) => {
                    *store = log.tenure(until_leads(&log));
                    waiting(&**store).last() == Some(&last)
                }
                Err(error) => panic!("{error}"),
            });
        }
        last
    };
    commit(&mut store);
    for victim in victims {
        let leader = three.stream_leader(&runtime, &log);
        let killed = match victim {
            Victim::StreamLeader => leader,
            Victim::Follower => (leader + 1) % 3,
            Victim::MetaLeader => three.meta_leader(),
        };
        three.servers[killed].stop();
        commit(&mut store);
        runtime.block_on(three.servers[killed].start_again());
        commit(&mut store);
    }
    let last = commit(&mut store);
    assert_eq!(waiting(&*store), (1..=last).collect::<Vec<_>>());

    let other = tempfile::tempdir().unwrap();
    let other = Arc::new(JetStream::open(&settings, other.path(), id(2)).unwrap());
    until("another relay to have all", || waiting(&*other.reader()).last() == Some(&last));
    assert_eq!(waiting(&*other.reader()), (1..=last).collect::<Vec<_>>());
}

#[test]
fn three_servers_that_are_killed_one_after_another_lose_nothing() {
    survive(&[Victim::StreamLeader, Victim::Follower]);
}

#[test]
#[ignore = "long: KILLS=30"]
fn soak_three_servers_that_are_killed_again_and_again_lose_nothing() {
    let kills = std::env::var("KILLS").map_or(30, |kills| kills.parse().unwrap());
    let all = [Victim::StreamLeader, Victim::Follower, Victim::MetaLeader];
    let victims: Vec<_> = all.into_iter().cycle().take(kills).collect();
    let began = Instant::now();
    survive(&victims);
    println!(
        "{kills} of three servers were killed in {:.1?}, and nothing is lost",
        began.elapsed()
    );
}
