//! A configuration that can be read again while the relay runs: what differs then, what of it
//! takes effect, and what needs a restart.

use std::path::PathBuf;

use serde::Serialize;

use super::bus_nats::BusNatsFlags;
use super::cluster::ClusterFlags;
use super::error::Mistakes;
use super::given::Scope;
use super::keyop::KeyopFlags;
use super::middleman::MiddlemanFlags;
use super::netbird::NetbirdFlags;
use super::peerbus::PeerbusFlags;
use super::registry::RegistryFlags;
use super::table::{Compared as _, Setting};
use super::{
    ClusterFabric, Config, Error, Flags, Layers, ListenerTable, Surroundings, all_settings,
    listener_settings,
};

/// Stands for what a secret file holds.
const SECRET: &str = "(hidden)";

/// Where a configuration comes from: the command line and the environment as they were at the
/// start, and the file as it is.
#[derive(Clone, Debug)]
pub struct Source {
    flags: Flags,
    surroundings: Surroundings,
}

impl Source {
    /// The configuration of these flags in these surroundings.
    #[must_use]
    pub const fn new(flags: Flags, surroundings: Surroundings) -> Self {
        Self { flags, surroundings }
    }

    /// Reads everything, and checks all of it. Blocks.
    ///
    /// # Errors
    /// All that is wrong.
    pub fn read(&self) -> Result<Loaded, Error> {
        let mut mistakes = Mistakes::default();
        let layers = Layers::gather(self.flags.clone(), &self.surroundings, &mut mistakes);
        // A setting that is missing for a mistake would look like one that others contradict.
        let read = if mistakes.is_empty() { Config::new(&layers) } else { Config::read(&layers) };
        let config = mistakes.take(read);
        mistakes.end()?;
        Ok(Loaded { layers, config: config.expect("what could not be read is a mistake") })
    }

    /// The configuration file, where one is named.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        let named = || self.surroundings.variable("config").ok().flatten();
        self.flags.config.clone().or_else(named).map(PathBuf::from)
    }
}

/// A checked configuration, with who said what of it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What was said, as text.
    pub layers: Layers,
    /// What it comes to.
    pub config: Config,
}

/// A setting that has another value than before; of secrets nothing is said.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Change {
    /// Its key in the file; in a `[[listener]]` table, as in `listener[1].bind`.
    pub key: String,
    /// The value before, as an operator would write it; empty where there was none.
    pub old: String,
    /// The value that was read.
    pub new: String,
}

/// What was read beside what is in force.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Difference {
    /// Settings that take effect at once.
    pub applied: Vec<Change>,
    /// Settings that stay as they are until the relay is started again.
    pub needs_restart: Vec<Change>,
}

impl Loaded {
    /// What is in force once a running relay has taken over what it can of `new`.
    #[must_use]
    pub fn updated(&self, new: &Self) -> (Self, Difference) {
        let mut difference = Difference::default();
        let mut in_force = self.clone();
        let differing = self.differing(new);
        let wss_bind = |loaded: &Self, setting| {
            let is_served = loaded.config.serves_wss_bind;
            if is_served { loaded.layers.said(setting) } else { String::new() }
        };
        // Its default is that of the address, and that address is not in force.
        let moved = differing.contains(&"wss_bind") && new.layers.is_default("trusted_proxy");
        in_force.config.take_live(&new.config);
        let of_netbird = in_force.config.take_netbird(&new.config);
        let mut secrets = in_force.config.take_peerbus(&new.config);
        secrets.extend(in_force.config.take_middleman(&new.config));
        secrets.extend(of_netbird.then_some("netbird_auth_secret_file"));
        for key in secrets.into_iter().filter(|key| !differing.contains(key)) {
            let (old, new) = (SECRET.to_owned(), SECRET.to_owned());
            difference.applied.push(Change { key: key.to_owned(), old, new });
        }
        in_force.config.take_keyop(&new.config);
        in_force.config.bus.take_live(&new.config.bus);
        if moved {
            in_force.config.trusted_proxies.clone_from(&self.config.trusted_proxies);
        }
        for setting in all_settings().filter(|setting| differing.contains(&setting.key)) {
            let key = setting.key.to_owned();
            let change = if setting.key == "wss_bind" {
                Change { key, old: wss_bind(self, setting), new: wss_bind(new, setting) }
            } else {
                Change { key, old: self.layers.said(setting), new: new.layers.said(setting) }
            };
            if !setting.is_live {
                difference.needs_restart.push(change);
            } else if setting.key != "trusted_proxy" || !moved {
                in_force.layers.take(setting.key, &new.layers);
                difference.applied.push(change);
            }
        }
        let Self { layers, config } = &mut in_force;
        update_listeners((layers, config), (&new.layers, &new.config), &mut difference);
        difference.needs_restart.extend(self.changed_secrets(new, &differing));
        (in_force, difference)
    }

    fn differing(&self, new: &Self) -> Vec<&'static str> {
        let mut keys = self.config.differing(&new.config);
        if self.config.serves_wss_bind != new.config.serves_wss_bind && !keys.contains(&"wss_bind")
        {
            keys.push("wss_bind");
        }
        // These have been read already, when each was loaded: none is wrong.
        if let (Ok(old), Ok(new)) =
            (RegistryFlags::read(&self.layers), RegistryFlags::read(&new.layers))
        {
            keys.extend(old.differing(&new));
        }
        if let (Ok(old), Ok(new)) =
            (ClusterFlags::read(&self.layers), ClusterFlags::read(&new.layers))
        {
            keys.extend(old.differing(&new));
        }
        if let (Ok(old), Ok(new)) =
            (NetbirdFlags::read(&self.layers), NetbirdFlags::read(&new.layers))
        {
            keys.extend(old.differing(&new));
        }
        if let (Ok(old), Ok(new)) =
            (PeerbusFlags::read(&self.layers), PeerbusFlags::read(&new.layers))
        {
            keys.extend(old.differing(&new));
        }
        if let (Ok(old), Ok(new)) =
            (MiddlemanFlags::read(&self.layers), MiddlemanFlags::read(&new.layers))
        {
            keys.extend(old.differing(&new));
        }
        if let (Ok(old), Ok(new)) = (KeyopFlags::read(&self.layers), KeyopFlags::read(&new.layers))
        {
            keys.extend(old.differing(&new));
        }
        keys.extend(self.config.bus.differing(&new.config.bus));
        if let (Ok(old), Ok(new)) =
            (BusNatsFlags::read(&self.layers), BusNatsFlags::read(&new.layers))
        {
            keys.extend(old.differing(&new));
        }
        keys
    }

    /// Secrets that are others although their files have the same names.
    fn changed_secrets(&self, new: &Self, differing: &[&str]) -> impl Iterator<Item = Change> {
        let token = |config: &Config| config.registry.as_ref()?.admin_token.clone();
        let secret = |config: &Config| match &config.cluster.as_ref()?.fabric {
            ClusterFabric::Mesh { secret, .. } => secret.clone(),
            ClusterFabric::Nats { .. } => None,
        };
        let (old, new) = (&self.config, &new.config);
        let changed = [
            ("admin_token_file", old.admin_token != new.admin_token),
            ("registry_admin_token_file", token(old) != token(new)),
            ("cluster_secret_file", secret(old) != secret(new)),
        ];
        let is_news = move |(key, changed): &(&str, bool)| *changed && !differing.contains(key);
        let changed: Vec<_> = changed.into_iter().filter(is_news).collect();
        let hidden = || SECRET.to_owned();
        changed.into_iter().map(move |(key, _)| Change {
            key: key.to_owned(),
            old: hidden(),
            new: hidden(),
        })
    }
}

/// The keys of all settings that a running relay takes over; the others need a restart.
pub fn live_settings() -> impl Iterator<Item = &'static str> {
    all_settings().filter(|setting| setting.is_live).map(|Setting { key, .. }| *key)
}

/// A table, as text and as what it comes to.
type Read<'a> = (&'a Layers, &'a ListenerTable);

/// Takes over what a running relay can of `new` tables, and adds what differs to `difference`.
/// Tables are the same listener where they have the same address.
fn update_listeners(
    in_force: (&mut Layers, &mut Config),
    new: (&Layers, &Config),
    difference: &mut Difference,
) {
    let (layers, config) = in_force;
    let (new_layers, new_config) = new;
    let mut unused: Vec<(usize, Read<'_>)> =
        new_layers.listeners().iter().zip(&new_config.listeners).enumerate().collect();
    let tables = layers.listeners_mut().iter_mut().zip(&mut config.listeners);
    for (index, (text, table)) in tables.enumerate() {
        match unused.iter().position(|(_, (_, new))| new.bind == table.bind) {
            Some(position) => {
                let (new_index, new) = unused.remove(position);
                update_listener(
                    (text, table),
                    new,
                    &Scope::prefix_of_listener(new_index),
                    difference,
                );
            }
            None => {
                let key = Scope::prefix_of_listener(index) + "bind";
                let old = table.bind.to_string();
                difference.needs_restart.push(Change { key, old, new: String::new() });
            }
        }
    }
    for (index, (_, table)) in unused {
        let key = Scope::prefix_of_listener(index) + "bind";
        let new = table.bind.to_string();
        difference.needs_restart.push(Change { key, old: String::new(), new });
    }
}

fn update_listener(
    (text, table): (&mut Layers, &mut ListenerTable),
    (new_text, new_table): Read<'_>,
    prefix: &str,
    difference: &mut Difference,
) {
    let differing = table.differing(new_table);
    let is_changed = |setting: &&'static Setting| differing.contains(&setting.key);
    for setting in listener_settings().filter(is_changed) {
        let change = Change {
            key: format!("{prefix}{}", setting.key),
            old: text.said(setting),
            new: new_text.said(setting),
        };
        if setting.is_live {
            text.take(setting.key, new_text);
            difference.applied.push(change);
        } else {
            difference.needs_restart.push(change);
        }
    }
    table.take_live(new_table);
}
