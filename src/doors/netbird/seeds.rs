//! Replays the seeds of the fuzz target `netbird`, without libFuzzer.

use std::fs;
use std::path::Path;

use super::watchers::Watchers;

#[path = "../../../fuzz/src/netbird.rs"]
mod netbird;

#[test]
fn every_seed_of_the_protocol_passes() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/netbird");
    let mut paths: Vec<_> = seeds.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", seeds.display());
    for path in paths {
        // The harness shows this only where the test fails: the last one is the culprit.
        println!("{}", path.display());
        netbird::run(&fs::read(&path).unwrap());
    }
}
