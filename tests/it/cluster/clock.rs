//! Clocks that differ: each relay knows by how much, and the one that is off says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Cluster, Fabric, arguments, free_udp_address, host, mesh_arguments};
use super::{on_both_fabrics, wait_for_members, wait_until};
use crate::harness::{Node, Relay, http_get};

on_both_fabrics!(relays_know_how_far_their_clocks_are_apart);

fn status(relay: &Relay) -> Value {
    let (_, body) = http_get(relay.admin, "/status");
    serde_json::from_str::<Value>(&body).unwrap()["cluster"].take()
}

fn relays_know_how_far_their_clocks_are_apart(fabric: Fabric) {
    let cluster = Cluster::of_three(fabric, &[&Node::new(1)], &["--cluster-keepalive", "200ms"]);
    for relay in &cluster.relays {
        wait_until("all members have told their clocks", || {
            let members = status(relay)["members"].take();
            let ahead = members.as_array().unwrap().iter().map(|m| m["clock_ahead_ms"].as_i64());
            ahead.into_iter().all(|ms| ms.is_some_and(|ms| ms.abs() < 1_500))
        });
        assert_eq!(status(relay)["clock_is_off"], false);
    }
}

/// A library that has a program see a clock that is so many seconds ahead.
fn wrong_clock(folder: &Path, seconds: i64) -> PathBuf {
    let source = folder.join("clock.c");
    let library = folder.join("clock.so");
    let text = "#include <sys/syscall.h>\n#include <time.h>\n#include <unistd.h>\n\
                int clock_gettime(clockid_t id, struct timespec *time) {\n\
                  int failed = syscall(SYS_clock_gettime, id, time);\n\
                  if (!failed && id == CLOCK_REALTIME) time->tv_sec += SECONDS;\n\
                  return failed;\n\
                }\n";
    std::fs::write(&source, text).unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-D_GNU_SOURCE", &format!("-DSECONDS={seconds}"), "-shared", "-fPIC", "-o"]);
    assert!(compile.arg(&library).arg(&source).status().unwrap().success());
    library
}

#[test]
fn relay_whose_clock_is_off_says_so_and_the_others_name_it() {
    let keepalive = ["--cluster-keepalive", "200ms"];
    let cluster = Cluster::start(Fabric::Mesh, 2, &[&Node::new(1)], |_| keepalive.to_vec());
    let join = cluster.arguments[0].iter().skip_while(|word| *word != "--cluster-join").nth(1);
    let binds: Vec<_> = join.unwrap().split(',').map(str::to_owned).collect();
    let mut words = arguments(cluster.folder(), &host(2), &keepalive);
    words.extend(mesh_arguments(cluster.folder(), &free_udp_address(&host(2)), &binds));
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.env("LD_PRELOAD", wrong_clock(cluster.folder(), 70));
    let off = Relay::start_by(command, &words);
    wait_for_members(&off, 3);

    wait_until("it knows that its clock is off", || status(&off)["clock_is_off"] == true);
    off.wait_for_line("this relay's clock is off those of the other relays");
    let (code, ready) = http_get(off.admin, "/readyz?verbose");
    let ready: Value = serde_json::from_str(&ready).unwrap();
    let part = &ready["parts"]["cluster"];
    assert_eq!((code, &part["condition"]), (200, &Value::from("degraded")));
    let reason = part["reason"].as_str().unwrap();
    assert!(reason.starts_with("this relay's clock is ") && reason.contains("ahead"), "{reason}");
    let skew = off.metric("pilot_beacon_cluster_clock_skew_seconds{of=\"own\"}");
    assert!((68.0..72.0).contains(&skew), "{skew}");

    for relay in &cluster.relays {
        let named = || {
            let members = status(relay)["members"].take();
            members.as_array().unwrap().iter().filter(|m| m["clock_is_off"] == true).count() == 1
        };
        wait_until("the others know whose clock is off", named);
        relay.wait_for_line("the clock of another relay is off");
        assert_eq!(status(relay)["clock_is_off"], false);
    }
}
