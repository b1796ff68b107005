//! The configuration: what is refused is told in one line, and what is accepted is printed as a
//! file that says the same, and changes nothing when it is loaded twice.
//!
//! The input is the file. Each zero byte begins one more part, whose first byte says what it is:
//! `-` a flag (`--flag=VALUE`), `+` the file as it is at a reload, `@` what every file holds that a
//! setting names; and else a variable (`NAME=VALUE`). Nothing but these is read: no path of the
//! input is opened, and names are never resolved.
//!
//! This file needs the relay's `config` at the root of its crate, so it is not among `TARGETS`:
//! the fuzz target includes `src/config` and nothing else of the relay, whose build takes minutes;
//! the tests of `src/config` include this file and replay the seeds.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;

use clap::{Args as _, FromArgMatches as _};
use tempfile::NamedTempFile;

use crate::config::{
    Config, Difference, DoorPaths, Error, Flags, Layers, Loaded, Origin, Place, Source,
    Surroundings,
};
use crate::wire::mark::MARK;

/// The settings whose files are read with the configuration.
const READ_FILES: [&str; 6] = [
    "admin_token_file",
    "netbird_auth_secret_file",
    "registry_ca",
    "registry_admin_token_file",
    "cluster_secret_file",
    "cluster_nats_credentials",
];

/// What such a file holds where the input says nothing: a secret that is long enough.
const SECRET: &[u8] = b"0123456789abcdef";

/// Shortest secret to look for in what is shown: a shorter one could be a part of anything.
const LEAST_SECRET: usize = 16;

/// Reads the input as a configuration.
///
/// # Panics
/// Where a refusal is not one line about a setting, or a configuration does not hold.
pub(crate) fn run(input: &[u8]) {
    let Some(operator) = Operator::of(input) else { return };
    let Some(loaded) = operator.load(operator.file) else { return };
    check_config(&loaded.config, input);
    check_printed(&operator, &loaded);
    check_secrets(&operator, &loaded, input);
    check_reload(&loaded, &loaded);
    if let Some(before) = operator.load(operator.file_of_reload) {
        check_reload(&before, &loaded);
        check_reload(&loaded, &before);
    }
}

/// Whoever starts the relay, with all that they say.
struct Operator<'a> {
    file: &'a [u8],
    file_of_reload: &'a [u8],
    flags: Flags,
    variables: HashMap<OsString, OsString>,
    named: NamedTempFile,
    secret: &'a [u8],
}

impl<'a> Operator<'a> {
    /// `None` where the command line refuses the flags.
    fn of(input: &'a [u8]) -> Option<Self> {
        let mut parts = input.split(|byte| *byte == 0);
        let file = parts.next().unwrap_or_default();
        let mut file_of_reload = &b""[..];
        let mut secret = SECRET;
        let mut arguments = vec!["serve"];
        let mut variables = HashMap::from([("HOME".into(), "/home/a".into())]);
        for part in parts {
            match part {
                [b'+', rest @ ..] => file_of_reload = rest,
                [b'@', rest @ ..] => secret = rest,
                [b'-', ..] => arguments.push(std::str::from_utf8(part).ok()?),
                _ => variables.extend(variable(part)),
            }
        }
        let named = file_of(secret);
        Some(Self { file, file_of_reload, flags: flags(&arguments)?, variables, named, secret })
    }

    /// Reads a configuration with this file; `None` where it is refused.
    fn load(&self, text: &[u8]) -> Option<Loaded> {
        let file = file_of(text);
        let read = || {
            let surroundings = self.surroundings(file.path());
            let mut layers = Layers::collect(self.flags.clone(), &surroundings)?;
            let printed = layers.to_string();
            let mut named = READ_FILES.into_iter().filter(|key| has(&printed, key)).peekable();
            if named.peek().is_some() {
                let mut flags = self.flags.clone();
                named.for_each(|key| flags.add(key, self.named.path().display().to_string()));
                layers = Layers::collect(flags, &surroundings)?;
            }
            let config = Config::new(&layers)?;
            Ok(Loaded { layers, config })
        };
        let refused = |error: Error| error.each().iter().for_each(|one| check_refusal(one, text));
        read().map_err(refused).ok()
    }

    fn surroundings(&self, file: &Path) -> Surroundings {
        let mut variables = self.variables.clone();
        variables.insert("BEACON_RELAY_CONFIG".into(), file.into());
        Surroundings { variables, is_root: false, descriptors: 1_024 }
    }
}

fn file_of(contents: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("there is room for a file");
    file.write_all(contents).expect("there is room for a file");
    file
}

/// Reads `NAME=VALUE`.
fn variable(part: &[u8]) -> Option<(OsString, OsString)> {
    let (name, value) = std::str::from_utf8(part).ok()?.split_once('=')?;
    Some((name.into(), value.into()))
}

/// Reads the flags; `--config` would name a file of the input's choice.
fn flags(arguments: &[&str]) -> Option<Flags> {
    if arguments.len() == 1 {
        return Some(Flags::default());
    }
    let command = Flags::augment_args(clap::Command::new("serve"));
    let matches = command.try_get_matches_from(arguments).ok()?;
    let flags = Flags::from_arg_matches(&matches).ok()?;
    flags.config().is_none().then_some(flags)
}

/// Whether a printed configuration has a value for the setting `key`. A text of several lines may
/// look like one that has it, never like one that has not.
fn has(printed: &str, key: &str) -> bool {
    printed.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")))
}

/// A refusal is one line that begins with the place to look at.
fn check_refusal(error: &Error, file: &[u8]) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control), "several lines, or worse: {text:?}");
    let lines = 1 + file.iter().filter(|byte| **byte == b'\n').count();
    match error {
        Error::Setting { place, reason, .. } | Error::File { place, reason, .. } => {
            let Place { key, origin } = place;
            assert!(text.starts_with(&place.to_string()), "{text:?} is not about {key:?}");
            assert!(!reason.is_empty(), "{text:?} has no reason");
            if let Origin::File { line, .. } = origin {
                assert!((1..=lines).contains(line), "{text:?} is about no line");
            }
        }
        Error::Syntax { line, reason, .. } => {
            assert!((1..=lines).contains(line), "{text:?} is about no line");
            assert!(!reason.is_empty(), "{text:?} has no reason");
        }
        Error::Several(_) => panic!("{text:?} is not one mistake"),
    }
}

/// What uses the configuration finds it usable: its listeners know whose a path is, and the log
/// takes its filter.
fn check_config(config: &Config, input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for listener in config.all_listeners(true) {
        assert!(!listener.label().is_empty());
        for path in text.lines().chain(["", "/", "/v1/compat"]) {
            let found = listener.routes.door(path);
            let is_fixed = |paths: &DoorPaths| match paths {
                DoorPaths::Fixed(paths) => paths.contains(&path),
                DoorPaths::Any => false,
            };
            assert!(found.is_none_or(|door| listener.doors.contains(&door)), "{path:?}");
            let has_fixed = listener.doors.iter().any(|door| is_fixed(&door.paths));
            assert_eq!(has_fixed, found.is_some_and(|door| is_fixed(&door.paths)), "{path:?}");
        }
    }
    let _takes_it = config.log_level.to_filter();
    for warning in &config.warnings {
        let text = warning.to_string();
        assert!(!text.contains(char::is_control), "several lines, or worse: {text:?}");
    }
}

/// What is printed is a file that says the same, and is printed again as it was.
fn check_printed(operator: &Operator<'_>, loaded: &Loaded) {
    let printed = loaded.layers.to_string();
    let file = file_of(printed.as_bytes());
    let surroundings = Surroundings {
        variables: HashMap::from([("BEACON_RELAY_CONFIG".into(), file.path().into())]),
        ..operator.surroundings(file.path())
    };
    let again = match Source::new(Flags::default(), surroundings).read() {
        Ok(again) => again,
        // Of these, it prints that there are a user and a password, and not which.
        Err(_) if printed.contains("://***@") => return,
        Err(error) => panic!("{error}, and that was printed:\n{printed}"),
    };
    assert_eq!(comparable(&again.config), comparable(&loaded.config), "{printed}");
    assert_eq!(loaded.updated(&again).1, Difference::default(), "{printed}");
    assert_eq!(values(&again.layers.to_string()), values(&printed));
}

/// A configuration without what depends on who said it.
fn comparable(config: &Config) -> Config {
    Config { warnings: Vec::new(), udp_bind_default: false, ..config.clone() }
}

fn values(printed: &str) -> toml::Table {
    printed.parse().expect("what is printed is TOML")
}

/// What files hold is in nothing that is shown, unless the rest of the input says it as well.
fn check_secrets(operator: &Operator<'_>, loaded: &Loaded, input: &[u8]) {
    let Loaded { layers, config } = loaded;
    let Ok(secret) = std::str::from_utf8(operator.secret) else { return };
    let secret = secret.strip_prefix(MARK).unwrap_or(secret).trim();
    if secret.len() < LEAST_SECRET {
        return;
    }
    let places = input.windows(secret.len()).filter(|part| *part == secret.as_bytes()).count();
    if places > usize::from(operator.secret != SECRET) {
        return;
    }
    assert!(config.admin_token.as_ref().is_none_or(|token| token.expose() == secret));
    assert!(!format!("{config:?} {layers} {layers:?}").contains(secret), "{layers}");
}

/// What was loaded once has taken effect, or goes on waiting for a restart.
fn check_reload(before: &Loaded, new: &Loaded) {
    let (in_force, difference) = before.updated(new);
    let (still, again) = in_force.updated(new);
    assert_eq!(again.applied, [], "{:?} were applied before", difference.applied);
    assert_eq!(again.needs_restart, difference.needs_restart);
    assert_eq!(still.config, in_force.config);
}
