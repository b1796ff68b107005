//! docs/ARCHITECTURE.md follows the sources: its rooms, the functions that a packet passes, and
//! the code that it quotes.

use std::fs;

use super::documents::source_of;
use super::root;

const DOCUMENT: &str = "docs/ARCHITECTURE.md";

/// A section of the document, without its heading.
fn section(heading: &str) -> String {
    let text = fs::read_to_string(root(DOCUMENT)).unwrap();
    let (_, behind) = text.split_once(&format!("\n## {heading}\n")).expect(heading);
    behind.split("\n## ").next().unwrap().to_owned()
}

/// The blocks of code of one language.
fn blocks(section: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    let blocks = section.split(&*begin).skip(1);
    blocks.map(|block| block.split("```").next().unwrap().to_owned()).collect()
}

/// What stands in code in a text.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn picture_has_every_room_and_every_crate() {
    let blocks = blocks(&section("The modules"), "text");
    let [picture] = blocks.as_slice() else { panic!("{} pictures", blocks.len()) };
    let lib = fs::read_to_string(root("src/lib.rs")).unwrap();
    let rooms = lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let crates = fs::read_dir(root("crates")).unwrap();
    let crates: Vec<_> =
        crates.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let (drawn, drawn_crates) = picture.split_once("─ crates/ ─").unwrap();

    for room in rooms {
        let word = if root(&format!("src/{room}")).is_dir() {
            format!("{room}/")
        } else {
            room.to_owned()
        };
        assert!(drawn.contains(&word) || drawn_crates.contains(&word), "{word} is not there");
    }
    for name in crates {
        assert!(drawn_crates.contains(&format!("│ {name}: ")), "the crate {name} is not there");
    }
    let widest = picture.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(100), "{widest:?} columns");
}

#[test]
fn functions_that_a_packet_passes_are_in_their_files() {
    let section = section("The life of a packet");
    let mut found = 0;
    for row in section.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.split('|').collect();
        let &[_, number, files, functions, ..] = cells.as_slice() else { panic!("{row}") };
        if number.trim().parse::<u32>().is_err() {
            continue;
        }
        let files = code(files).into_iter().map(|path| {
            let source = source_of(path).unwrap_or_else(|| panic!("no file {path}"));
            fs::read_to_string(source).unwrap()
        });
        let sources: String = files.collect();
        for function in code(functions) {
            let (_, name) = function.rsplit_once("::").unwrap();
            let is_there =
                ["(", "<"].iter().any(|end| sources.contains(&format!("fn {name}{end}")));
            assert!(is_there, "{function} is not in the files of: {row}");
            found += 1;
        }
    }
    assert!(found > 25, "{found} functions: has the search gone blind?");
}

#[test]
fn code_of_a_door_is_that_of_the_example() {
    let example = fs::read_to_string(root("examples/echo.rs")).unwrap();
    let section = section("How to add a door");
    let quoted = blocks(&section, "rust");

    for block in &quoted {
        assert!(example.contains(block), "examples/echo.rs does not have:\n{block}");
    }
    let lines: usize = quoted.iter().map(|block| block.lines().count()).sum();
    assert!(lines > 50, "{lines} lines: has the search gone blind?");
    for command in blocks(&section, "sh") {
        for line in command.lines() {
            assert!(example.contains(&format!("//! {line}\n")), "{line}");
        }
    }
}
