//! The floors of the source tree: a module uses only those below its own.

use std::fs;
use std::path::{Path, PathBuf};

/// Each module with its floor, as `src/lib.rs` and docs/ARCHITECTURE.md list them.
const FLOORS: [(&str, u8); 15] = [
    ("main", 7),
    ("cli", 7),
    ("server", 6),
    ("admin", 5),
    ("wss", 4),
    ("udp", 4),
    ("relay", 3),
    ("peers", 2),
    ("directory", 2),
    ("client", 2),
    ("net", 1),
    ("config", 1),
    ("metrics", 1),
    ("proto", 0),
    ("wire", 0),
];

/// On the lowest floor as well, but below all others: names of things.
const NAMES: &str = "ids";

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The modules that a text names as `crate::module`.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let after = text.split("crate::").skip(1);
    after.filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
}

#[test]
fn module_uses_only_floors_below_its_own() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut seen = 0;
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let module = inside.split(['/', '.']).next().unwrap();
        if module == "lib" {
            continue;
        }
        let own = floor(module);
        assert!(own.is_some() || module == NAMES, "{inside} is on no floor");
        for used in named(&fs::read_to_string(&path).unwrap()) {
            // What is no module is a macro at the root of the crate.
            let Some(floor) = floor(used).filter(|_| used != module) else { continue };
            let within_lowest = (module, used) == ("proto", "wire");
            assert!(Some(floor) < own || within_lowest, "{inside} uses {used}");
            seen += 1;
        }
    }
    assert!(seen > 100, "{seen} uses found");
}
