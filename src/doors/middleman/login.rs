//! Who may come in, and as what.

use crate::config::{Config, KeyDigest, Keys};
use crate::proto::middleman::Role;

/// What logins are judged by.
#[derive(Debug, Default)]
pub(super) struct Login {
    service_keys: Keys,
    client_keys: Keys,
    /// Whether a connection is told its GUID.
    pub(super) tells_guid: bool,
}

impl Login {
    /// By these settings; nobody may come in where they have no keys.
    pub(super) fn new(config: &Config) -> Self {
        let Some(middleman) = &config.middleman else { return Self::default() };
        Self {
            service_keys: middleman.service_keys.clone(),
            client_keys: middleman.client_keys.clone(),
            tells_guid: middleman.tells_guid,
        }
    }

    /// What the bearer of a key is; both files are looked through.
    pub(super) fn role(&self, key: &KeyDigest) -> Option<Role> {
        let is_service = self.service_keys.has(key);
        let is_client = self.client_keys.has(key);
        match (is_service, is_client) {
            (true, _) => Some(Role::Service),
            (false, true) => Some(Role::Client),
            (false, false) => None,
        }
    }
}
