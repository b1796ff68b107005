//! A relay that is killed again and again under load: what it has receipted arrives, in order, and
//! once to a recipient that remembers ids.

use std::ops::Range;
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;

use super::Site;
use super::jetstream::Engine;
use super::traffic::{self, Ends};
use crate::random::Random;

#[test]
fn what_has_a_receipt_survives_ten_kills_in_order_and_once() {
    survive(10, None);
}

#[test]
fn what_has_a_receipt_survives_kills_of_relay_and_nats_in_order_and_once() {
    survive(10, Some(Engine::start()));
}

#[test]
#[ignore = "long: KILLS=200"]
fn soak_what_has_a_receipt_survives_two_hundred_kills() {
    survive(kills(), None);
}

#[test]
#[ignore = "long: KILLS=200"]
fn soak_what_has_a_receipt_survives_two_hundred_kills_of_relay_and_nats() {
    survive(kills(), Some(Engine::start()));
}

fn kills() -> usize {
    std::env::var("KILLS").map_or(200, |kills| kills.parse().unwrap())
}

/// Kills relays under load, so often, and every other time the NATS that has the messages, where
/// that is not the disk; looks whether all that had a receipt came, in order and once.
fn survive(kills: usize, mut engine: Option<Engine>) {
    let elsewhere = tempfile::tempdir().unwrap();
    let checkpoints = elsewhere.path().join("checkpoints");
    let nats = engine.as_ref().map(Engine::flag);
    let mut flags = vec!["--audit-checkpoint-file", checkpoints.to_str().unwrap()];
    flags.extend(nats.as_deref());
    let mut site = Site::start(&flags);
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    eprintln!("seed {seed}");
    let mut random = Random(seed);
    let receipts = under_traffic(&mut site, 20..420, seed, |site, number| {
        if let Some(engine) = engine.as_mut().filter(|_| number % 2 == 1) {
            engine.server.kill();
            thread::sleep(Duration::from_millis(random.below(300) as u64));
            engine.server.start_again();
        }
        if engine.is_none() || random.below(3) > 0 {
            site.restart("KILL", &flags);
        }
        if number + 1 < kills { Ends::No } else { Ends::Now }
    });
    eprintln!("{receipts} receipts, {kills} kills");

    // The last relay ends in order, with a checkpoint: nothing is missing in the audit log.
    site.relay.signal("TERM");
    site.relay.wait_until_gone();
    let verified = Command::new(env!("CARGO_BIN_EXE_beacon-relay"))
        .args(["audit", "verify", "--state-dir", site.state.path().to_str().unwrap()])
        .args(["--checkpoint", checkpoints.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(verified.status.success(), "{verified:?}");
}

/// Does something to the relay again and again while pairs of peers go on trying: see
/// [`traffic::under`].
pub(super) fn under_traffic(
    site: &mut Site,
    between: Range<usize>,
    seed: u64,
    mut step: impl FnMut(&mut Site, usize) -> Ends,
) -> usize {
    let addresses = RwLock::new(vec![site.address]);
    traffic::under(&addresses, between, seed, |number| {
        let ends = step(site, number);
        *addresses.write() = vec![site.address];
        ends
    })
}
