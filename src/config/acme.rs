//! What ACME is told: which names, by which authority, and what does not go with them.

use std::path::PathBuf;

use super::certificate::certificates;
use super::{AcmeContact, AcmeDirectory, AcmeName, Config, Error, Layers, TlsPair};

/// Most names of a listener, which are in one certificate: as many as Let's Encrypt signs.
const MOST_NAMES: usize = 100;

/// Where certificates come from, for all listeners.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Acme {
    /// The authority's directory.
    pub directory: AcmeDirectory,
    /// Whom its TLS is trusted by besides those whom the system trusts.
    pub directory_ca: Option<PathBuf>,
    /// Where it may write to, each once.
    pub contacts: Vec<AcmeContact>,
}

impl Config {
    /// Where certificates come from, where a listener has names for them.
    #[must_use]
    pub fn acme(&self) -> Option<Acme> {
        let listeners = self.all_listeners(false);
        if listeners.iter().all(|listener| listener.acme.is_empty()) {
            return None;
        }
        let of_tables = self.listeners.iter().flat_map(|table| &table.acme_contact);
        let mut contacts: Vec<_> = self.acme_contact.iter().chain(of_tables).cloned().collect();
        contacts.sort();
        contacts.dedup();
        let (directory, directory_ca) =
            (self.acme_directory.clone(), self.acme_directory_ca.clone());
        Some(Acme { directory, directory_ca, contacts })
    }
}

/// Refuses names of the setting `acme` as [`check_of`] does.
pub(super) fn check(names: &[AcmeName], tls: &[TlsPair], layers: &Layers) -> Result<(), Error> {
    check_of("acme", names, tls, layers)
}

/// Refuses names that come twice, that are too many, or that have certificates elsewhere, in the
/// layers of a listener.
pub(super) fn check_of(
    key: &str,
    names: &[AcmeName],
    tls: &[TlsPair],
    layers: &Layers,
) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    if names.len() > MOST_NAMES {
        let reason = format!("more than {MOST_NAMES} names; spread them over several [[listener]]");
        return Err(layers.refuse(key, reason));
    }
    let twice =
        names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|n| n == *name));
    if let Some((_, name)) = twice {
        return Err(layers.refuse(key, format!("{name} comes twice; write it once")));
    }
    if !tls.is_empty() {
        let reason = "the listener has a certificate from a file as well; leave one of them out";
        return Err(layers.refuse(key, reason));
    }
    Ok(())
}

/// Reads the authorities that the directory is trusted by, to see whether they can be.
pub(super) fn check_directory_ca(layers: &Layers) -> Result<(), Error> {
    let path: Option<PathBuf> = layers.read("acme_directory_ca")?;
    let Some(path) = path else { return Ok(()) };
    certificates(&path)
        .map(drop)
        .map_err(|reason| layers.refuse_file("acme_directory_ca", &path, reason))
}
