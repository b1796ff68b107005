//! The doors that a listener can have, and the door that a path belongs to.
//!
//! A door is a protocol that peers speak. Here is what the configuration has to know of one: its
//! name, and the paths of its upgrades.

use std::sync::{PoisonError, RwLock};

use super::Invalid;
use super::value::{PathPrefix, PathPrefixes, Text};

/// What the configuration knows of a door.
#[derive(Debug, Eq, PartialEq)]
pub struct DoorKind {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The paths at which it takes upgrades.
    pub paths: DoorPaths,
    /// What its clients ask for over QUIC, where each of their messages is a datagram (RFC 9221);
    /// nothing where they speak WebSocket alone.
    pub quic: Option<&'static str>,
}

/// The paths at which a door takes upgrades.
#[derive(Debug, Eq, PartialEq)]
pub enum DoorPaths {
    /// These, which its clients have built in.
    Fixed(&'static [&'static str]),
    /// Whichever its clients are told: all, or those under a prefix.
    Any,
}

/// The daemons of the Pilot overlay.
pub const PILOT: DoorKind =
    DoorKind { name: "pilot", paths: DoorPaths::Fixed(&["/v1/compat"]), quic: None };

/// Clients of NetBird and openZro.
pub const NETBIRD: DoorKind =
    DoorKind { name: "netbird", paths: DoorPaths::Fixed(&["/relay"]), quic: Some("nb-quic") };

/// Adapters of peerbus, by which programs send each other messages.
pub const PEERBUS: DoorKind = DoorKind { name: "peerbus", paths: DoorPaths::Any, quic: None };

/// Clients and services of middleman, which publish, subscribe, ask and answer.
pub const MIDDLEMAN: DoorKind = DoorKind { name: "middleman", paths: DoorPaths::Any, quic: None };

/// Hubs and ephemeral clients of keyop-messenger, whose channels are federated.
pub const KEYOP: DoorKind = DoorKind { name: "keyop", paths: DoorPaths::Any, quic: None };

/// The doors of the relay itself. A door is added here, with its name and its paths.
static DOORS: &[&DoorKind] = &[&PILOT, &NETBIRD, &PEERBUS, &MIDDLEMAN, &KEYOP];

/// Those that a program around the relay has added.
static REGISTERED: RwLock<Vec<&'static DoorKind>> = RwLock::new(Vec::new());

/// A door has the name of another.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("there is another door `{0}`")]
pub struct DoorTaken(&'static str);

impl DoorKind {
    /// Has configurations know a door of the program around the relay, for the whole process:
    /// before the first is read, in which a listener may name it. The same door again changes
    /// nothing.
    ///
    /// # Errors
    /// Another door has the name.
    pub fn register(&'static self) -> Result<(), DoorTaken> {
        let mut registered = REGISTERED.write().unwrap_or_else(PoisonError::into_inner);
        match DOORS.iter().chain(&*registered).find(|door| door.name == self.name) {
            Some(present) if *present == self => Ok(()),
            Some(_) => Err(DoorTaken(self.name)),
            None => {
                registered.push(self);
                Ok(())
            }
        }
    }
}

/// All doors that a listener can name.
fn all() -> Vec<&'static DoorKind> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    DOORS.iter().chain(&*registered).copied().collect()
}

impl Text for &'static DoorKind {
    fn parse(text: &str) -> Result<Self, Invalid> {
        let doors = all();
        let door = doors.iter().find(|door| door.name == text);
        door.copied().ok_or_else(|| format!("no door; write one of {}", names(doors)).into())
    }
}

/// The doors of one listener, by their paths.
///
/// A fixed path wins over a door that accepts any path; of those, the longest prefix wins.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Routes {
    fixed: Vec<(&'static str, &'static DoorKind)>,
    /// The longest first.
    prefixes: Vec<(PathPrefix, &'static DoorKind)>,
}

/// Why doors cannot have one listener, and what to write instead.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Conflict {
    /// There is no door, or a door twice, or two that cannot be told apart without `path`.
    #[error("{0}")]
    Doors(String),
    /// The paths do not fit the doors.
    #[error("{0}")]
    Path(String),
}

impl Routes {
    /// The paths of these doors, with the prefixes of those that accept any.
    pub(super) fn new(doors: &[&'static DoorKind], path: &PathPrefixes) -> Result<Self, Conflict> {
        if doors.is_empty() {
            let reason = format!("no door; write one or more of {}", names(all()));
            return Err(Conflict::Doors(reason));
        }
        let mut routes = Self { fixed: Vec::new(), prefixes: Vec::new() };
        let prefix_of = prefixes(doors, path)?;
        for (index, door) in doors.iter().enumerate() {
            if doors.iter().take(index).any(|before| before.name == door.name) {
                let reason = format!("{} stands there twice; once is enough", door.name);
                return Err(Conflict::Doors(reason));
            }
            match door.paths {
                DoorPaths::Fixed(paths) => routes.add_fixed(door, paths)?,
                DoorPaths::Any => routes.add_any(door, prefix_of(door), path)?,
            }
        }
        routes.prefixes.sort_by_key(|(prefix, _)| std::cmp::Reverse(prefix.as_str().len()));
        Ok(routes)
    }

    /// The door that a path belongs to.
    #[must_use]
    pub fn door(&self, path: &str) -> Option<&'static DoorKind> {
        let fixed = self.fixed.iter().find(|(fixed, _)| *fixed == path).map(|(_, door)| *door);
        fixed.or_else(|| {
            let longest = self.prefixes.iter().find(|(prefix, _)| prefix.holds(path));
            longest.map(|(_, door)| *door)
        })
    }

    fn add_fixed(
        &mut self,
        door: &'static DoorKind,
        paths: &'static [&'static str],
    ) -> Result<(), Conflict> {
        for path in paths {
            if let Some((_, other)) = self.fixed.iter().find(|(known, _)| known == path) {
                return Err(Conflict::Doors(format!(
                    "{} and {} both have the path {path}; give each a listener of its own",
                    other.name, door.name
                )));
            }
            self.fixed.push((path, door));
        }
        Ok(())
    }

    fn add_any(
        &mut self,
        door: &'static DoorKind,
        prefix: PathPrefix,
        path: &PathPrefixes,
    ) -> Result<(), Conflict> {
        if let Some((_, other)) = self.prefixes.iter().find(|(known, _)| *known == prefix) {
            let (one, two) = (other.name, door.name);
            let reason = format!(
                "{one} and {two} both accept any path under {prefix}; give each a prefix of its \
                 own, as in path = {{ {one} = \"/{one}\", {two} = \"/{two}\" }}"
            );
            return Err(match path {
                PathPrefixes::Unset => Conflict::Doors(reason),
                PathPrefixes::One(_) | PathPrefixes::Each(_) => Conflict::Path(reason),
            });
        }
        self.prefixes.push((prefix, door));
        Ok(())
    }
}

impl Default for Routes {
    /// Those of the Pilot door alone.
    fn default() -> Self {
        Self::new(&[&PILOT], &PathPrefixes::Unset).expect("one door has no conflict")
    }
}

/// The prefix of each door that accepts any path: what `path` says, and else all paths.
fn prefixes<'a>(
    doors: &[&'static DoorKind],
    path: &'a PathPrefixes,
) -> Result<impl Fn(&DoorKind) -> PathPrefix + use<'a>, Conflict> {
    match path {
        PathPrefixes::Unset => {}
        PathPrefixes::One(_) => {
            if !doors.iter().any(|door| door.paths == DoorPaths::Any) {
                let reason = format!(
                    "{} has fixed paths, and no other door is there; leave path out",
                    names(doors.iter().copied())
                );
                return Err(Conflict::Path(reason));
            }
        }
        PathPrefixes::Each(each) => {
            for (name, _) in each {
                let reason = match doors.iter().find(|door| door.name == name) {
                    None => format!("{name} is no door of this listener; add it to doors"),
                    Some(DoorKind { paths: DoorPaths::Fixed(paths), .. }) => {
                        format!("{name} has fixed paths ({}); leave it out", paths.join(", "))
                    }
                    Some(DoorKind { paths: DoorPaths::Any, .. }) => continue,
                };
                return Err(Conflict::Path(reason));
            }
        }
    }
    Ok(|door: &DoorKind| {
        let said = match path {
            PathPrefixes::Unset => None,
            PathPrefixes::One(prefix) => Some(prefix),
            PathPrefixes::Each(each) => {
                each.iter().find(|(name, _)| name == door.name).map(|(_, prefix)| prefix)
            }
        };
        said.cloned().unwrap_or_default()
    })
}

/// The names of doors, with commas.
pub(super) fn names<'a>(doors: impl IntoIterator<Item = &'a DoorKind>) -> String {
    doors.into_iter().map(|door| door.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::super::value::Value as _;
    use super::*;

    static RELAY: DoorKind =
        DoorKind { name: "relay", paths: DoorPaths::Fixed(&["/relay", "/v2/relay"]), quic: None };
    static OTHER_RELAY: DoorKind =
        DoorKind { name: "other", paths: DoorPaths::Fixed(&["/relay"]), quic: None };
    static BUS: DoorKind = DoorKind { name: "bus", paths: DoorPaths::Any, quic: None };
    static HUB: DoorKind = DoorKind { name: "hub", paths: DoorPaths::Any, quic: None };

    /// The routes of these doors, with the texts of `path`: one prefix, or `door=/prefix` each.
    fn routes(doors: &[&'static DoorKind], path: &[&str]) -> Result<Routes, Conflict> {
        let items: Vec<_> = path.iter().map(|item| (*item).to_owned()).collect();
        Routes::new(doors, &PathPrefixes::read(&items).unwrap())
    }

    fn doors_at(routes: &Routes, paths: &[&str]) -> Vec<Option<&'static str>> {
        paths.iter().map(|path| routes.door(path).map(|door| door.name)).collect()
    }

    #[test]
    fn door_that_nobody_knows_is_refused_with_those_that_there_are() {
        let Invalid(reason) = <&DoorKind>::parse("pilots").unwrap_err();
        assert!(reason.starts_with("no door; write one of pilot"), "{reason}");
    }

    #[test]
    fn door_of_another_program_is_known_once_it_is_registered_and_takes_no_name_from_others() {
        static CHAT: DoorKind = DoorKind { name: "chat", paths: DoorPaths::Any, quic: None };
        static OTHER: DoorKind =
            DoorKind { name: "chat", paths: DoorPaths::Fixed(&["/chat"]), quic: None };
        static SECOND_PILOT: DoorKind =
            DoorKind { name: "pilot", paths: DoorPaths::Any, quic: None };

        assert_eq!(CHAT.register(), Ok(()));
        assert_eq!(CHAT.register(), Ok(()), "once more changes nothing");

        assert_eq!(<&DoorKind>::parse("chat").unwrap(), &CHAT);
        assert_eq!(OTHER.register(), Err(DoorTaken("chat")));
        assert_eq!(SECOND_PILOT.register(), Err(DoorTaken("pilot")));
    }

    #[test]
    fn fixed_paths_win_over_any_path() {
        let routes = routes(&[&BUS, &RELAY, &PILOT], &[]).unwrap();
        let found = doors_at(&routes, &["/relay", "/v2/relay", "/v1/compat", "/", "/relay/x"]);
        assert_eq!(found, [Some("relay"), Some("relay"), Some("pilot"), Some("bus"), Some("bus")]);
    }

    #[test]
    fn fixed_paths_are_whole_and_others_belong_to_nobody() {
        let found = doors_at(&Routes::default(), &["/v1/compat", "/v1/compat/", "/v1", "/", ""]);
        assert_eq!(found, [Some("pilot"), None, None, None, None]);
    }

    #[test]
    fn prefix_holds_whole_segments_and_the_longest_wins() {
        let one = routes(&[&BUS], &["/bus"]).unwrap();
        let found = doors_at(&one, &["/bus", "/bus/", "/bus/a/b", "/business", "/"]);
        assert_eq!(found, [Some("bus"), Some("bus"), Some("bus"), None, None]);

        let two = routes(&[&BUS, &HUB], &["hub=/bus/hub", "bus=/bus"]).unwrap();
        assert_eq!(doors_at(&two, &["/bus/hub/x", "/bus/hubs"]), [Some("hub"), Some("bus")]);

        let rest = routes(&[&BUS, &HUB], &["hub=/hub"]).unwrap();
        assert_eq!(doors_at(&rest, &["/hub", "/x", "/"]), [Some("hub"), Some("bus"), Some("bus")]);
    }

    #[test]
    fn version_names_the_doors_that_are_compiled_in() {
        let doors: Vec<_> = DOORS.iter().map(|door| door.name).collect();
        let line = format!("doors: {}", doors.join(", "));
        assert_eq!(crate::build::ABOUT.lines().last(), Some(line.as_str()));
    }

    #[test]
    fn two_doors_of_any_path_need_prefixes_that_differ() {
        for path in [&[][..], &["/a"], &["bus=/a", "hub=/a"], &["bus=/"]] {
            let reason = routes(&[&BUS, &HUB], path).unwrap_err();
            assert!(reason.to_string().contains("bus and hub both accept any path"), "{reason}");
            assert!(reason.to_string().contains("{ bus = \"/bus\", hub = \"/hub\" }"), "{reason}");
            assert_eq!(matches!(reason, Conflict::Doors(_)), path.is_empty(), "{path:?}");
        }
    }

    #[test]
    fn path_is_refused_where_paths_are_fixed() {
        for (doors, path, reason) in [
            (&[&RELAY][..], "/a", "relay has fixed paths"),
            (&[&RELAY, &BUS], "relay=/a", "relay has fixed paths (/relay, /v2/relay)"),
            (&[&RELAY, &BUS], "hub=/a", "hub is no door of this listener"),
        ] {
            let conflict = routes(doors, &[path]).unwrap_err();
            assert!(
                matches!(&conflict, Conflict::Path(said) if said.contains(reason)),
                "{conflict}"
            );
        }
        assert!(routes(&[&RELAY, &BUS], &["/a"]).is_ok(), "it is the prefix of the other");
    }

    #[test]
    fn doors_that_share_a_fixed_path_or_stand_there_twice_are_refused() {
        for (doors, reason) in [
            (&[][..], "write one or more of pilot"),
            (&[&RELAY, &OTHER_RELAY], "relay and other both have the path /relay"),
            (&[&BUS, &BUS], "bus stands there twice"),
        ] {
            let conflict = routes(doors, &[]).unwrap_err();
            assert!(
                matches!(&conflict, Conflict::Doors(said) if said.contains(reason)),
                "{conflict}"
            );
        }
    }
}
