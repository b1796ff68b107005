//! Instructions of a login with TLS, a whole handshake included, counted by Callgrind: the relay's,
//! and those of the floor with one verification. `make counts` compares them with
//! benches/counts.toml, and with each other.
//!
//! The servers run on the counted thread, their clients on another. Keys of the handshake are
//! random, and so are a few of the instructions.
#![allow(missing_docs, clippy::unwrap_used)]
#![allow(unused_qualifications)] // what the macros make of functions

use std::net::SocketAddr;
use std::thread;

use beacon_bench::counted::{Clients, Floor, node};
use beacon_bench::tls::Certificate;
use beacon_relay::config::{Config, Flags, Layers, Surroundings};
use beacon_relay::doors::pilot::directory;
use beacon_relay::server::Server;
use gungraun::prelude::*;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

/// How many log in while it is counted.
const LOGINS: u32 = 10;

/// How many logged in before, so that what is made once is there.
const WARM_UP: u32 = 3;

/// A server whose logins are served on this thread.
enum Served {
    Relay { runtime: Runtime, _server: Box<Server>, address: SocketAddr },
    Floor(Floor),
}

struct Setup {
    served: Served,
    clients: Clients,
    _folder: TempDir,
}

impl Setup {
    fn new(serve: fn(&TempDir, &Certificate) -> Served) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let certificate = Certificate::make(folder.path()).unwrap();
        let setup = Self {
            served: serve(&folder, &certificate),
            clients: Clients::of(&certificate).unwrap(),
            _folder: folder,
        };
        setup.log_in(WARM_UP);
        setup
    }

    fn log_in(&self, count: u32) {
        let clients = self.clients.clone();
        match &self.served {
            Served::Relay { runtime, address, .. } => {
                let (done, all) = oneshot::channel();
                let server = *address;
                let load = thread::spawn(move || {
                    clients.log_in(server, count).unwrap();
                    done.send(()).unwrap();
                });
                runtime.block_on(all).unwrap();
                load.join().unwrap();
            }
            Served::Floor(floor) => {
                let server = floor.address().unwrap();
                let load = thread::spawn(move || clients.log_in(server, count).unwrap());
                floor.serve(count).unwrap();
                load.join().unwrap();
            }
        }
    }
}

fn relay() -> Setup {
    Setup::new(|folder, certificate| {
        for number in 1..=LOGINS.max(WARM_UP) {
            let (id, key) = node(number);
            directory::enroll(folder.path(), id, key).unwrap();
        }
        let mut flags = Flags::default();
        let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
        for (key, text) in [
            ("state_dir", path(folder.path())),
            ("wss_bind", "127.0.0.1:0".to_owned()),
            ("wss_tls_cert", path(&certificate.certificate)),
            ("wss_tls_key", path(&certificate.key)),
            ("udp_bind", "127.0.0.1:0".to_owned()),
            ("admin_bind", "127.0.0.1:0".to_owned()),
            ("upgrade_rate", "0".to_owned()),
            ("canary_interval", "1h".to_owned()),
        ] {
            flags.add(key, text);
        }
        let layers = Layers::collect(flags, &Surroundings::of_this_process()).unwrap();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let server = runtime.block_on(Server::start(Config::new(&layers).unwrap())).unwrap();
        let address = server.wss_addr().unwrap();
        Served::Relay { runtime, _server: Box::new(server), address }
    })
}

fn floor() -> Setup {
    Setup::new(|folder, _| Served::Floor(Floor::open(folder.path()).unwrap()))
}

#[library_benchmark]
#[bench::relay(relay())]
#[bench::floor_and_verification(floor())]
fn tls_login(setup: Setup) -> Setup {
    setup.log_in(LOGINS);
    setup
}

library_benchmark_group!(name = counts, benchmarks = [tls_login]);

/// As benches/counts.rs of the relay.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX_Fast_Unaligned_Load,-AVX512F,-AVX512VL,\
    -BMI2,-ERMS,-FSRM,-RTM,-SSSE3,-SSE4_1,-SSE4_2";

main!(
    config = LibraryBenchmarkConfig::default().env("GLIBC_TUNABLES", TUNABLES),
    library_benchmark_groups = counts
);
