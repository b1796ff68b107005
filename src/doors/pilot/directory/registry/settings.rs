//! Where the registry is, and how we show who we are.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::net::tls::Trust;

/// Where the registry is and how we show who we are.
#[derive(Clone)]
pub struct RegistrySettings {
    /// `host:port`.
    pub address: String,
    /// Which certificate the registry must have; `None` is plain TCP.
    pub tls: Option<Trust>,
    /// What the registry may demand of beacons that register.
    pub admin_token: Option<String>,
    /// Most connections at a time, from 1 to 64.
    pub connections: usize,
    /// How long a login may take; an answer is awaited for nine tenths of it, 60 s at most.
    pub patience: Duration,
    /// The file in which keys outlast a restart; `None` keeps them in memory only.
    pub kept_keys: Option<PathBuf>,
}

impl RegistrySettings {
    /// A registry at `address`, a `host:port`, over plain TCP, that keeps nothing.
    #[must_use]
    pub const fn new(address: String) -> Self {
        Self {
            address,
            tls: None,
            admin_token: None,
            connections: 4,
            patience: Duration::from_secs(10),
            kept_keys: None,
        }
    }
}

impl fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistrySettings")
            .field("address", &self.address)
            .field("tls", &self.tls)
            .field("admin_token", &self.admin_token.as_ref().map(|_| "redacted"))
            .field("connections", &self.connections)
            .field("patience", &self.patience)
            .field("kept_keys", &self.kept_keys)
            .finish()
    }
}
