//! How much a program builds that wants to be a node.

use std::collections::BTreeSet;
use std::process::Command;

/// Packages of the library's normal tree at most, with its own.
const MOST: usize = 80;

#[test]
fn a_node_needs_few_packages() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges=normal", "--prefix=none", "--format={p}"])
        .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).unwrap();
    // What stands there again has a mark.
    let packages: BTreeSet<&str> =
        lines.lines().map(|line| line.strip_suffix(" (*)").unwrap_or(line)).collect();
    let count = packages.len();
    assert!((50..=MOST).contains(&count), "{count} packages:\n{packages:#?}");
}
