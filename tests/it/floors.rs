//! The floors of DESIGN and of src/lib.rs: a module uses only floors below its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// What is exported at the root of the crate, and belongs to `metrics`.
const MACROS: [&str; 2] = ["words", "reasons"];

/// The modules of the crate: its own, and those of other members that it shows as its own.
fn modules(lib: &str) -> BTreeSet<&str> {
    let items = lib.lines().filter_map(|line| line.strip_suffix(';'));
    let names = items.filter_map(|item| {
        item.strip_prefix("pub mod ")
            .or_else(|| item.strip_prefix("pub use ")?.split([':', ' ']).next_back())
    });
    names.collect()
}

/// Each module with its floor, as the list of src/lib.rs has them.
fn floors(root: &Path) -> BTreeMap<String, u8> {
    let text = fs::read_to_string(root.join("lib.rs")).unwrap();
    let doc: String = text.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let mut floors = BTreeMap::new();
    for item in doc.split("- floor ").skip(1) {
        let (floor, names) = item.split_once(':').unwrap();
        for name in names.split("[`").skip(1) {
            let (name, _) = name.split_once("`]").unwrap();
            floors.insert(name.to_owned(), floor.parse().unwrap());
        }
    }
    let modules = modules(&text);
    assert!(modules.iter().eq(floors.keys()), "{modules:?} are not those of the list: {floors:?}");
    floors
}

/// The modules of the crate that a source names: `crate::name`, and each of `crate::{…}`.
fn used(source: &str) -> Vec<String> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let code: String = code.collect::<Vec<_>>().join("\n");
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let mut names = Vec::new();
    for path in code.split("crate::").skip(1) {
        match path.strip_prefix('{') {
            None => names.push(word(path)),
            Some(group) => {
                let mut depth = 0;
                let mut begins = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => begins = true,
                        c if begins && !c.is_whitespace() => {
                            names.push(word(&group[at..]));
                            begins = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

/// The sources below a folder, each with its path.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

#[test]
fn module_uses_only_floors_below_its_own() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let floors = floors(&root);
    let floor = |name: &str| floors.get(name).copied();
    let mut wrong = Vec::new();
    let mut uses = 0;
    for (name, own_floor) in &floors {
        let file = root.join(format!("{name}.rs"));
        let folder = root.join(name);
        let files = if file.exists() {
            vec![(file.display().to_string(), fs::read_to_string(&file).unwrap())]
        } else if folder.exists() {
            sources(&folder)
        } else {
            // A crate of its own: Cargo.toml says what it uses.
            continue;
        };
        for (path, source) in files {
            for used in used(&source) {
                let is_macro = MACROS.contains(&&*used);
                let used = if is_macro { "metrics".to_owned() } else { used };
                uses += 1;
                let may = used == *name || floor(&used).is_some_and(|floor| floor < *own_floor);
                if !may {
                    wrong.push(format!(
                        "{path} (floor {own_floor}) uses {used} ({:?})",
                        floor(&used)
                    ));
                }
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    assert!(uses > 200, "{uses} uses were found: has the search gone blind?");
}

/// The rooms that serve every door, and know none.
const CORE: [&str; 7] = ["relay", "session", "peers", "cluster", "metrics", "admin", "control"];

/// What only a door would say. The doors' names are added.
const WORDS_OF_DOORS: [&str; 8] =
    ["punch", "beacon", "node id", "node_id", "nodeid", "gossip", "0x05", "crate::doors"];

/// The program's name, what begins with it, and the prefix of its oldest metrics.
const OWN_NAMES: [&str; 6] = [
    "pilot_beacon_",
    "beacon-relay",
    "beacon_relay",
    "beacon-cluster/1",
    "beacon_wire",
    "beacon_proto",
];

/// The lines of a text that say a word of a door.
fn lines_of_doors<'a>(text: &'a str, doors: &[String]) -> Vec<&'a str> {
    let says_one = |line: &&str| {
        let line = OWN_NAMES.iter().fold(line.to_lowercase(), |line, name| line.replace(name, ""));
        WORDS_OF_DOORS.iter().any(|word| line.contains(word))
            || doors.iter().any(|door| line.contains(&**door))
    };
    text.lines().filter(says_one).collect()
}

#[test]
fn core_rooms_name_no_door_and_say_none_of_its_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folders = fs::read_dir(root.join("doors")).unwrap().map(|entry| entry.unwrap().path());
    let doors: Vec<_> = folders
        .filter(|path| path.is_dir())
        .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert!(doors.contains(&"pilot".to_owned()), "{doors:?}");

    let mut wrong = Vec::new();
    for room in CORE {
        for (path, source) in sources(&root.join(room)) {
            let lines = lines_of_doors(&source, &doors);
            wrong.extend(lines.iter().map(|line| format!("{path}: {}", line.trim())));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn words_of_doors_are_found_behind_the_programs_own_name() {
    let text = "\"pilot_beacon_packets\" of beacon-relay\nbeacon-relay, a Beacon\nuse crate::ids::NodeId;\n\
                let pilots = 1;\na packet";
    let found = lines_of_doors(text, &["pilot".to_owned()]);
    assert_eq!(found, ["beacon-relay, a Beacon", "use crate::ids::NodeId;", "let pilots = 1;"]);
}

#[test]
fn uses_are_found_in_every_form() {
    let source = "use crate::ids::NodeId;\n// use crate::not;\nuse crate::{\n    wire::{a, b}, net,\n};\n\
                  crate::words! {}\nfn f(x: &crate::proto::X) -> [crate::udp; 2]";
    assert_eq!(used(source), ["ids", "wire", "net", "words", "proto", "udp"]);
}
