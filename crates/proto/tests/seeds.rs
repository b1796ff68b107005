//! Replays the seeds of the fuzz targets, without libFuzzer.

// A cluster's time has to begin somewhere.
#![allow(clippy::disallowed_methods)]

use std::path::Path;

#[path = "../../../fuzz/src/lib.rs"]
pub mod fuzz;

#[test]
fn every_seed_of_every_fuzz_target_passes() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds");
    for (name, target) in fuzz::TARGETS {
        let folder = seeds.join(name);
        let mut paths: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(!paths.is_empty(), "{} is empty", folder.display());
        for path in paths {
            // The harness shows this only where the test fails: the last one is the culprit.
            println!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
        }
    }
}
