//! Relative paths: in the configuration file they are relative to its folder, elsewhere to the
//! working directory. They are made absolute as soon as they are read, so that everything shown
//! says which file is meant.

use std::path::{Path, PathBuf};

use super::Origin;
use super::given::Given;
use super::table::Setting;
use super::value::Kind;

/// What the help writes for the value of a setting that is a path.
const PATHS: [&str; 2] = ["FILE", "DIR"];

/// The entries of tables that are paths.
const ENTRIES: [&str; 3] = ["cert", "key", "ca"];

/// Makes the paths of a setting absolute.
pub(super) fn resolve(setting: &Setting, given: Given) -> Given {
    let Given { items, origin } = given;
    let items = if setting.kind == Kind::Tables {
        items.iter().map(|item| table(item, &origin)).collect()
    } else if PATHS.contains(&setting.value_name) {
        items.iter().map(|item| absolute(item.trim(), &origin)).collect()
    } else {
        items
    };
    Given { items, origin }
}

/// A table as text, whose lines are its entries.
fn table(item: &str, origin: &Origin) -> String {
    let lines = item.lines().map(|line| match line.split_once('=') {
        Some((name, path)) if ENTRIES.contains(&name) => {
            format!("{name}={}", absolute(path, origin))
        }
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A path as it is from the root; as it was where that cannot be told, or where it is none.
fn absolute(path: &str, origin: &Origin) -> String {
    if path.is_empty() || path.starts_with('/') {
        return path.to_owned();
    }
    let folder = match origin {
        Origin::File { path: file, .. } => {
            file.parent().unwrap_or_else(|| Path::new("")).to_owned()
        }
        Origin::Default | Origin::Environment | Origin::Flag => PathBuf::new(),
    };
    let found = std::path::absolute(folder.join(path)).ok();
    found
        .and_then(|found| found.into_os_string().into_string().ok())
        .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_file(path: &str) -> Origin {
        Origin::File { path: path.into(), line: 1 }
    }

    #[test]
    fn relative_path_is_relative_to_the_file_that_says_it() {
        assert_eq!(
            absolute("keys.json", &in_file("/etc/relay/relay.toml")),
            "/etc/relay/keys.json"
        );
        assert_eq!(absolute("/keys.json", &in_file("/etc/relay/relay.toml")), "/keys.json");
        assert_eq!(absolute("", &in_file("/etc/relay/relay.toml")), "");
        let here = std::env::current_dir().unwrap();
        let flag = absolute("./keys.json", &Origin::Flag);
        assert_eq!(Path::new(&flag), here.join("keys.json"));
        let file = absolute("keys.json", &in_file("sub/relay.toml"));
        assert_eq!(Path::new(&file), here.join("sub/keys.json"));
    }

    #[test]
    fn files_of_tables_are_relative_to_it_too() {
        let item = "name=a.test\ncert=tls/a.pem\nkey=/srv/a.key";
        let expected = "name=a.test\ncert=/etc/relay/tls/a.pem\nkey=/srv/a.key";
        assert_eq!(table(item, &in_file("/etc/relay/relay.toml")), expected);
    }
}
