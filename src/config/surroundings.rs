//! What a default depends on: the environment, the user and the descriptor limit.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use rustix::process::{Resource, geteuid, getrlimit};

use super::error::{PREFIX, variable};
use super::file::nearest;
use super::secret::shown;
use super::{Error, Origin, Place, all_settings, remedy};

/// Most peers by default, whatever the machine allows.
pub(super) const DEFAULT_MAX_PEERS: usize = 50_000;

/// Descriptors that are neither for connections nor for peers.
///
/// 96 = 64 (UDP sockets, one a core) + 32 (registry, files, runtime).
const RESERVED_DESCRIPTORS: u64 = 96;

/// Most connections that have not logged in, where the descriptor limit is so much: a
/// thirty-second of it, at most 1,024; at least 128, or an eighth of a limit that is small.
#[must_use]
pub fn max_waiting(descriptors: u64) -> usize {
    let least = (descriptors / 8).clamp(16, 128);
    usize::try_from((descriptors / 32).clamp(least, 1_024)).expect("1,024 at most")
}

/// Most connections of operators, where the descriptor limit is so much: a thirty-second of it,
/// at least 32 and at most 512. However many come, they take no descriptor from a peer.
#[must_use]
pub fn max_operators(descriptors: u64) -> usize {
    usize::try_from((descriptors / 32).clamp(32, 512)).expect("512 at most")
}

/// The process and its machine, as far as settings depend on them. Debugged, it does not
/// say what the variables hold, which can be secret.
#[derive(Clone)]
pub struct Surroundings {
    /// The environment variables.
    pub variables: HashMap<OsString, OsString>,
    /// Whether the user is root.
    pub is_root: bool,
    /// How many descriptors the process may have open.
    pub descriptors: u64,
}

impl Surroundings {
    /// Those of this process, as they are.
    #[must_use]
    pub fn of_this_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            is_root: geteuid().is_root(),
            descriptors: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
        }
    }

    /// The variable of the setting `key`, if it is set, and not to nothing: that is how
    /// compose files and units leave one out.
    pub(super) fn variable(&self, key: &str) -> Result<Option<String>, Error> {
        let Some(value) = self.variables.get(OsStr::new(&variable(key))) else {
            return Ok(None);
        };
        match value.to_str() {
            Some(text) => Ok(Some(text.to_owned()).filter(|text| !text.is_empty())),
            None => Err(Error::Setting {
                place: Place { key: key.to_owned(), origin: Origin::Environment },
                value: shown(key, &value.to_string_lossy()).into_owned(),
                reason: "not UTF-8; write it in UTF-8".to_owned(),
            }),
        }
    }

    /// Variables with the relay's prefix that no setting has, in the order of their names.
    pub(super) fn strangers(&self) -> Vec<Error> {
        let names = self.variables.iter().filter(|(_, value)| !value.is_empty());
        let mut keys: Vec<_> = names
            .filter_map(|(name, value)| Some((name.to_str()?.strip_prefix(PREFIX)?, value)))
            .filter(|(name, _)| !is_of_a_platform(name))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_string_lossy()))
            .filter(|(key, _)| key != "config" && all_settings().all(|known| known.key != key))
            .collect();
        keys.sort_unstable();
        let error = |(key, value): (String, Cow<'_, str>)| {
            let reason = match nearest(&key, all_settings()) {
                Some(nearest) => {
                    format!("no setting has this variable; did you mean {}?", variable(nearest))
                }
                None => {
                    "no setting has this variable; `serve --help` lists the settings".to_owned()
                }
            };
            let value = shown(&key, &value).into_owned();
            Error::Setting { place: Place { key, origin: Origin::Environment }, value, reason }
        };
        keys.into_iter().map(error).collect()
    }

    /// The folder that systemd gives, or where the platform keeps state.
    pub(super) fn default_state_dir(&self) -> Option<String> {
        let folder = |name: &str| {
            let text = self.variables.get(OsStr::new(name))?.to_str()?;
            text.starts_with('/').then_some(text)
        };
        if let Some(folders) = folder("STATE_DIRECTORY") {
            return folders.split(':').next().map(str::to_owned);
        }
        if self.is_root {
            return Some("/var/lib/beacon-relay".to_owned());
        }
        folder("XDG_STATE_HOME")
            .map(|home| format!("{home}/beacon-relay"))
            .or_else(|| Some(format!("{}/.local/state/beacon-relay", folder("HOME")?)))
    }

    /// Most peers that the descriptor limit allows; 0 where it is too small for any.
    pub(super) fn most_peers(&self) -> usize {
        let descriptors = self.descriptors.saturating_sub(RESERVED_DESCRIPTORS);
        let all = usize::try_from(descriptors).unwrap_or(usize::MAX);
        all.saturating_sub(max_waiting(self.descriptors) + max_operators(self.descriptors))
    }
}

/// Whether container platforms set a variable of this name, behind the prefix, for a service called
/// `beacon-relay`, or `beacon-relay-…`.
fn is_of_a_platform(name: &str) -> bool {
    let has_word = |word: &str| format!("_{name}").contains(word);
    let ends = |end: &str| format!("_{name}").ends_with(end);
    // Such as PORT_9001_UDP_ADDR.
    let has_port = format!("_{name}").split("_PORT_").skip(1).any(|rest| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && rest.get(digits..).is_some_and(|rest| rest.starts_with('_'))
    });
    ends("_SERVICE_HOST") || has_word("_SERVICE_PORT") || ends("_PORT") || has_port
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { variables: _, is_root, descriptors } = self;
        f.debug_struct("Surroundings")
            .field("is_root", is_root)
            .field("descriptors", descriptors)
            .finish_non_exhaustive()
    }
}

/// Creates the state folder, readable by its owner alone, unless it is there.
///
/// # Errors
/// The system refuses, or something else has the name.
pub fn create_state_dir(folder: &Path) -> Result<(), Error> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| Error::File {
        place: Place::flag("state_dir"),
        path: folder.to_owned(),
        reason: format!("the folder cannot be created: {error}; {}", remedy(&error)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surroundings(variables: &[(&str, &str)]) -> Surroundings {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Surroundings { variables, is_root: false, descriptors: 1_024 }
    }

    #[test]
    fn variable_of_no_setting_is_a_mistake_unless_a_platform_sets_it() {
        let texts = |variables: &[(&str, &str)]| {
            let strangers = surroundings(variables).strangers();
            strangers.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let reason = "no setting has this variable; did you mean BEACON_RELAY_IDLE_TIMEOUT?";
        assert_eq!(
            texts(&[("BEACON_RELAY_IDLE_TIMOUT", "9s"), ("BEACON_RELAY_UDP_BIND", ":1")]),
            [format!("BEACON_RELAY_IDLE_TIMOUT = \"9s\": {reason}")]
        );
        let (platform, other) = ("tcp://10.0.0.1:9001", "x");
        for name in [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_HTTPS",
            "PORT",
            "PORT_9001_UDP",
            "PORT_9001_UDP_ADDR",
            "RELAYS_SERVICE_HOST",
            "RELAYS_PORT_443_TCP_PORT",
        ] {
            let name = format!("BEACON_RELAY_{name}");
            assert!(texts(&[(&name, platform)]).is_empty(), "{name}");
        }
        assert_eq!(
            texts(&[("BEACON_RELAY_PORTS", other), ("BEACON_RELAY_X_PORT_A", other)]).len(),
            2
        );
        assert!(texts(&[("BEACON_RELAY_PORTS", ""), ("BEACON_RELAY_CONFIG", "a")]).is_empty());
    }

    #[test]
    fn empty_variable_is_not_set() {
        let surroundings =
            surroundings(&[("BEACON_RELAY_KEYS", ""), ("BEACON_RELAY_PEERS", "a:1")]);
        assert_eq!(surroundings.variable("keys").unwrap(), None);
        assert_eq!(surroundings.variable("peers").unwrap().as_deref(), Some("a:1"));
    }

    #[test]
    fn state_folder_is_where_the_platform_keeps_state() {
        let home = ("HOME", "/home/a");
        let xdg = ("XDG_STATE_HOME", "/state");
        let systemd = ("STATE_DIRECTORY", "/var/lib/one:/var/lib/two");
        for (variables, folder) in [
            (&[home, xdg, systemd] as &[_], Some("/var/lib/one")),
            (&[home, xdg], Some("/state/beacon-relay")),
            (&[home, ("XDG_STATE_HOME", "relative")], Some("/home/a/.local/state/beacon-relay")),
            (&[home, ("XDG_STATE_HOME", "")], Some("/home/a/.local/state/beacon-relay")),
            (&[], None),
        ] {
            assert_eq!(surroundings(variables).default_state_dir().as_deref(), folder);
        }
    }

    #[test]
    fn state_folder_of_root_is_in_var_unless_systemd_gives_one() {
        let root = |variables| Surroundings { is_root: true, ..surroundings(variables) };
        let plain = root(&[("HOME", "/root")]).default_state_dir();
        assert_eq!(plain.as_deref(), Some("/var/lib/beacon-relay"));
        let systemd = root(&[("STATE_DIRECTORY", "/var/lib/one")]).default_state_dir();
        assert_eq!(systemd.as_deref(), Some("/var/lib/one"));
    }

    #[test]
    fn peers_get_the_descriptors_that_are_not_reserved() {
        for (descriptors, peers) in
            [(1_024, 768), (256, 96), (100, 0), (u64::MAX, usize::MAX - 1_632)]
        {
            let surroundings = Surroundings { descriptors, ..surroundings(&[]) };
            assert_eq!(surroundings.most_peers(), peers);
        }
    }

    #[test]
    fn created_state_folder_is_its_owners_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/b");
        create_state_dir(&folder).unwrap();
        create_state_dir(&folder).unwrap();
        let mode = folder.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn state_folder_cannot_be_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = create_state_dir(file.path()).unwrap_err();
        assert!(error.is_about_a_file());
        assert!(error.to_string().starts_with("--state-dir = "), "{error}");
    }
}
