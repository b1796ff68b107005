//! Who said what: defaults, then the file, then the environment, then the command line.
//!
//! Everything is still text here; the types of the settings read it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::error::{Mistakes, OneLine, variable};
use super::flag_binds::{FLAG_BINDS, FlagBind};
use super::given::{Given, Scope};
use super::secret::{shown, shown_value};
use super::surroundings::DEFAULT_MAX_PEERS;
use super::table::Setting;
use super::value::{Kind, Ordered, Value, WssBind, bytes, split};
use super::{
    DoorKind, Error, Flags, Invalid, IpNet, Origin, PILOT, Place, Surroundings, all_settings, file,
    listener_settings, paths,
};

/// The address of a relay with `acme` and nothing else, for IPv6 and IPv4.
const ACME_BIND: &str = "[::]:443";

/// Where datagrams of nodes are taken by a relay that is there for clients of other doors alone:
/// at any free port, which nobody else can reach.
const UDP_BIND_OF_NONE: &str = "127.0.0.1:0";

/// The settings that are of the listener at `wss_bind` alone.
pub(super) const OF_WSS_BIND: [&str; 4] = ["wss_bind", "wss_tls_cert", "wss_tls_key", "acme"];

/// Those that it has in common with the listeners that flags of other doors make.
pub(super) const OF_FLAG_LISTENERS: [&str; 3] =
    ["public_plaintext", "trusted_proxy", "allow_origin"];

/// The effective text of every setting, with its origin.
///
/// Displayed, it is a configuration file that says the same; secrets are only named in
/// it, by their files, and the password of a URL is left out.
#[derive(Clone, Debug)]
pub struct Layers {
    given: BTreeMap<&'static str, Given>,
    /// The `[[listener]]` tables of the file, each with layers of its own.
    listeners: Vec<Self>,
    /// Of a table: where it stands.
    scope: Scope,
    most_peers: usize,
}

impl Layers {
    /// Puts the layers on top of each other, reading the configuration file if one is named.
    ///
    /// # Errors
    /// All that is wrong: the file cannot be read or has an unknown key, or a variable is unknown
    /// or not UTF-8.
    pub fn collect(flags: Flags, surroundings: &Surroundings) -> Result<Self, Error> {
        let mut mistakes = Mistakes::default();
        let layers = Self::gather(flags, surroundings, &mut mistakes);
        mistakes.end().map(|()| layers)
    }

    /// The same, without what is a mistake.
    pub(super) fn gather(
        flags: Flags,
        surroundings: &Surroundings,
        mistakes: &mut Mistakes,
    ) -> Self {
        let most_peers = surroundings.most_peers();
        let mut layers =
            Self { given: BTreeMap::new(), listeners: Vec::new(), scope: Scope::TOP, most_peers };
        for setting in all_settings() {
            if let Some(default) = setting.default {
                layers.set(setting.key, vec![default.to_owned()], Origin::Default);
            }
        }
        let max_peers = most_peers.min(DEFAULT_MAX_PEERS);
        layers.set("max_peers", vec![max_peers.to_string()], Origin::Default);
        if let Some(folder) = surroundings.default_state_dir() {
            layers.set("state_dir", vec![folder], Origin::Default);
        }

        let file_from_environment = mistakes.take(surroundings.variable("config")).flatten();
        let origin = if flags.config.is_some() { Origin::Flag } else { Origin::Environment };
        if let Some(path) = flags.config.or(file_from_environment) {
            let said = file::read(path.as_ref(), origin, mistakes);
            if let Some(said) = mistakes.take(said) {
                layers.given.extend(resolved(all_settings(), said.settings));
                layers.listeners = said.listeners.into_iter().map(Self::of_listener).collect();
            }
        }
        let mut outside = Vec::new();
        for setting in all_settings() {
            if let Some(text) = mistakes.take(surroundings.variable(setting.key)).flatten() {
                let given = Given { items: vec![text], origin: Origin::Environment };
                outside.push((setting.key, given));
            }
        }
        for (key, items) in flags.given {
            outside.push((key, Given { items, origin: Origin::Flag }));
        }
        layers.given.extend(resolved(all_settings(), outside));

        if layers.has_acme() && layers.is_default("wss_bind") {
            layers.set("wss_bind", vec![ACME_BIND.to_owned()], Origin::Default);
        }
        layers.trust_loopback("wss_bind", "trusted_proxy");
        if layers.has_flag_bind() && !layers.serves_wss_bind() && layers.is_default("udp_bind") {
            let has_pilot = layers.listeners.iter().any(Self::has_pilot);
            if !has_pilot {
                layers.set("udp_bind", vec![UDP_BIND_OF_NONE.to_owned()], Origin::Default);
            }
        }
        surroundings.strangers().into_iter().for_each(|stranger| mistakes.add(stranger));
        layers
    }

    /// The state folder for a command that needs no other setting: `folder`, where somebody named
    /// one, or that of `serve`. What else is wrong with the settings is no concern of such a command.
    ///
    /// # Errors
    /// The configuration file cannot be read, or the folder has no default on this machine.
    pub fn state_dir_of(
        folder: Option<String>,
        surroundings: &Surroundings,
    ) -> Result<PathBuf, Error> {
        let mut surroundings = surroundings.clone();
        if folder.is_some() {
            surroundings.variables.clear();
        }
        let mut mistakes = Mistakes::default();
        let layers = Self::gather(Flags::state_dir(folder), &surroundings, &mut mistakes);
        mistakes.end_unless(|mistake| match mistake {
            Error::Setting { place, .. } => place.key != "state_dir",
            Error::File { .. } | Error::Syntax { .. } | Error::Several(_) => false,
        })?;
        layers.state_dir()
    }

    /// What a `[[listener]]` table says, on top of the defaults.
    fn of_listener(table: file::Table) -> Self {
        let file::Table { scope, settings } = table;
        let mut layers =
            Self { given: BTreeMap::new(), listeners: Vec::new(), scope, most_peers: 0 };
        for setting in listener_settings() {
            if let Some(default) = setting.default {
                layers.set(setting.key, vec![default.to_owned()], Origin::Default);
            }
        }
        layers.given.extend(resolved(listener_settings(), settings));
        layers.trust_loopback("bind", "trusted_proxies");
        layers
    }

    /// Why there is no listener at `wss_bind`, where there is none.
    pub(super) fn reason_for_no_wss_bind(&self) -> &'static str {
        if self.listeners.iter().any(Self::has_pilot) {
            "a [[listener]] has the door pilot"
        } else {
            let bind = self.flag_binds().next();
            bind.expect("nothing else keeps that listener away").reason
        }
    }

    /// Has a local listener trust loopback, unless somebody has said whom: only programs on this
    /// machine reach it, and its proxy is among them.
    fn trust_loopback(&mut self, bind: &str, trusted: &'static str) {
        let is_local = self.read(bind).is_ok_and(|bind: WssBind| bind.is_local());
        if is_local && !self.given.contains_key(trusted) {
            let loopback = IpNet::LOOPBACK.map(|net| net.to_string());
            self.set(trusted, loopback.into(), Origin::Default);
        }
    }

    /// Whether somebody named names for the certificate of `wss_bind`.
    fn has_acme(&self) -> bool {
        split(self.items("acme")).next().is_some()
    }

    /// The settings of other doors' listeners that somebody has set.
    fn flag_binds(&self) -> impl Iterator<Item = &'static FlagBind> {
        FLAG_BINDS.into_iter().filter(|bind| !self.items(bind.key).is_empty())
    }

    /// Whether there is one.
    pub(super) fn has_flag_bind(&self) -> bool {
        self.flag_binds().next().is_some()
    }

    /// Whether there is a listener at `wss_bind`: where somebody has set it, or names for its
    /// certificate, and else unless a table has the Pilot door, which is what it is for, or the
    /// relay is there for clients of another door.
    pub(super) fn serves_wss_bind(&self) -> bool {
        let is_asked_for = !self.is_default("wss_bind") || self.has_acme();
        let has_others = self.has_flag_bind() || self.listeners.iter().any(Self::has_pilot);
        is_asked_for || !has_others
    }

    /// Whether a table has the Pilot door.
    fn has_pilot(table: &Self) -> bool {
        let doors: Result<Vec<&'static DoorKind>, Error> = table.read("doors");
        doors.is_ok_and(|doors| doors.contains(&&PILOT))
    }

    /// What each `[[listener]]` table says.
    pub(super) fn listeners(&self) -> &[Self] {
        &self.listeners
    }

    /// The same, to take over what another collection has.
    pub(super) fn listeners_mut(&mut self) -> &mut [Self] {
        &mut self.listeners
    }

    /// The state folder, for commands that need no other setting.
    ///
    /// # Errors
    /// It is empty, or has no default on this machine.
    pub fn state_dir(&self) -> Result<PathBuf, Error> {
        self.read("state_dir")
    }

    /// Reads one setting.
    pub(super) fn read<T: Value>(&self, key: &str) -> Result<T, Error> {
        T::read(self.items(key)).map_err(|Invalid(reason)| self.refuse(key, reason))
    }

    /// Reads one setting, for whose value the help writes `value_name`.
    pub(super) fn read_as<T: Value>(&self, key: &str, value_name: &str) -> Result<T, Error> {
        if value_name != "BYTES" {
            return self.read(key);
        }
        let in_bytes = |item: &String| bytes::in_bytes(item.trim()).unwrap_or_else(|| item.clone());
        let items: Vec<_> = self.items(key).iter().map(in_bytes).collect();
        T::read(&items).map_err(|_| self.refuse(key, bytes::HOW))
    }

    /// Refuses a value outside of its range.
    pub(super) fn check_range<T: Ordered>(
        &self,
        key: &str,
        value: &T,
        range: &RangeInclusive<T>,
    ) -> Result<(), Error> {
        if range.contains(value) {
            return Ok(());
        }
        let (least, most) = (range.start().shown(), range.end().shown());
        Err(self.refuse(key, format!("out of range; write a value from {least} to {most}")))
    }

    /// Whether nobody said anything about the setting.
    pub(super) fn is_default(&self, key: &str) -> bool {
        self.given.get(key).is_none_or(|given| given.origin == Origin::Default)
    }

    /// Whether the setting has the text of its default, whoever said it.
    pub(super) fn reads_as_default(&self, key: &str) -> bool {
        let setting = all_settings().find(|setting| setting.key == key);
        setting.is_some_and(|setting| self.items(key).iter().eq(setting.default.as_slice()))
    }

    /// Most peers that the descriptor limit allows.
    pub(super) const fn most_peers(&self) -> usize {
        self.most_peers
    }

    /// The error that the setting's value is wrong.
    pub(super) fn refuse(&self, key: &str, reason: impl Into<String>) -> Error {
        Error::Setting {
            place: self.place(key),
            value: shown(key, &self.items(key).join(",")).into_owned(),
            reason: reason.into(),
        }
    }

    /// The error that the file which the setting names is wrong.
    #[must_use]
    pub fn refuse_file(&self, key: &str, path: &Path, reason: impl Into<String>) -> Error {
        Error::File { place: self.place(key), path: path.to_owned(), reason: reason.into() }
    }

    /// The setting, as whoever said it last spelt it.
    pub(super) fn place(&self, key: &str) -> Place {
        let Scope { prefix, origin: scope } = &self.scope;
        let said = self.given.get(key).map(|given| &given.origin);
        let origin = said.filter(|origin| **origin != Origin::Default).unwrap_or(scope).clone();
        Place { key: format!("{prefix}{key}"), origin }
    }

    fn items(&self, key: &str) -> &[String] {
        self.given.get(key).map_or(&[], |given| &given.items)
    }

    fn set(&mut self, key: &'static str, items: Vec<String>, origin: Origin) {
        self.given.insert(key, Given { items, origin });
    }

    /// Takes what another collection has for a setting.
    pub(super) fn take(&mut self, key: &'static str, other: &Self) {
        match other.given.get(key) {
            Some(given) => self.given.insert(key, given.clone()),
            None => self.given.remove(key),
        };
    }

    /// The setting's value as an operator would write it on a command line.
    pub(super) fn said(&self, setting: &Setting) -> String {
        let text = split(self.items(setting.key)).collect::<Vec<_>>().join(",");
        shown_value(setting.key, &text).into_owned()
    }

    /// The setting's value as TOML; `None` where it has none.
    fn toml(&self, setting: &Setting) -> Option<toml::Value> {
        let items = self.items(setting.key);
        let text = items.first().map(String::as_str);
        Some(match setting.kind {
            Kind::List => split(items).collect::<Vec<_>>().into(),
            Kind::Switch => bool::read(items).ok()?.into(),
            Kind::Number => {
                let text = text?.trim();
                // A size may have a unit.
                text.parse::<i64>().map_or_else(|_| text.to_owned().into(), toml::Value::from)
            }
            Kind::TextOrTable if items.iter().any(|item| item.contains('=')) => {
                let pairs = items.iter().filter_map(|item| item.split_once('='));
                let pairs = pairs.map(|(name, text)| (name.to_owned(), text.into()));
                toml::Value::Table(pairs.collect())
            }
            Kind::Tables => {
                let table = |item: &String| {
                    let pairs = item.lines().filter_map(|line| line.split_once('='));
                    let pairs = pairs.map(|(name, text)| (name.to_owned(), text.into()));
                    toml::Value::Table(pairs.collect())
                };
                toml::Value::Array(items.iter().map(table).collect())
            }
            Kind::Text | Kind::TextOrTable => shown_value(setting.key, text?).into_owned().into(),
        })
    }
}

/// What was said of these settings, with the paths from the root.
fn resolved(
    settings: impl Iterator<Item = &'static Setting> + Clone,
    said: Vec<(&'static str, Given)>,
) -> impl Iterator<Item = (&'static str, Given)> {
    said.into_iter().map(move |(key, given)| match settings.clone().find(|one| one.key == key) {
        Some(setting) => (key, paths::resolve(setting, given)),
        None => (key, given),
    })
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let serves_wss_bind = self.serves_wss_bind();
        let mut heading = "";
        for setting in all_settings() {
            if setting.heading != heading {
                let gap = if heading.is_empty() { "" } else { "\n" };
                heading = setting.heading;
                writeln!(f, "{gap}# {heading}")?;
            }
            let key = setting.key;
            let is_of_wss_bind = OF_WSS_BIND.contains(&key)
                || OF_FLAG_LISTENERS.contains(&key) && !self.has_flag_bind();
            // What somebody has set is used once systemd hands over the socket.
            if is_of_wss_bind && !serves_wss_bind && self.is_default(key) {
                let reason = self.reason_for_no_wss_bind();
                writeln!(f, "# {key} is not used: {reason}")?;
            } else if key == "trusted_proxy" && self.has_flag_bind() && self.is_default(key) {
                // Each listener has a default of its own.
                writeln!(f, "# {key} is not set: loopback, for the listeners that are local")?;
            } else {
                self.write(setting, f)?;
            }
        }
        for listener in &self.listeners {
            writeln!(f, "\n[[listener]]")?;
            for setting in listener_settings() {
                // Of a list, none is something else than an empty one.
                if listener.given.contains_key(setting.key) {
                    listener.write(setting, f)?;
                }
            }
        }
        Ok(())
    }
}

impl Layers {
    /// Writes the line of a setting.
    fn write(&self, setting: &Setting, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = setting.key;
        let origin = self.given.get(key).map_or(&Origin::Default, |given| &given.origin);
        match (self.toml(setting), origin) {
            (None, _) => writeln!(f, "# {key} is not set"),
            (Some(value), Origin::Default) => writeln!(f, "{key} = {value}"),
            (Some(value), Origin::Flag) => writeln!(f, "{key} = {value} # by a flag"),
            (Some(value), Origin::Environment) => {
                writeln!(f, "{key} = {value} # by {}", variable(key))
            }
            (Some(value), Origin::File { path, line }) => {
                writeln!(f, "{key} = {value} # by {}, line {line}", OneLine(path.display()))
            }
        }
    }
}
