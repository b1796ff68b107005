//! Replays the seeds of the fuzz target `configuration`, without libFuzzer.

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/src/configuration.rs"]
mod configuration;

#[test]
fn every_seed_of_the_configuration_passes() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/configuration");
    let mut paths: Vec<_> = seeds.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", seeds.display());
    for path in paths {
        // The harness shows this only where the test fails: the last one is the culprit.
        println!("{}", path.display());
        configuration::run(&fs::read(&path).unwrap());
    }
}
