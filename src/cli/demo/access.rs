//! How the programs of the demo come in at a listener that its relay has besides: by a secret, in a
//! file that lasts as long as the demo.

use std::fmt;
use std::fs;
use std::net::SocketAddr;

use anyhow::Context as _;

use super::TemporaryState;

/// A secret that nobody has used before.
pub(super) fn new_secret() -> anyhow::Result<String> {
    Ok(format!("{:016x}{:016x}", getrandom::u64()?, getrandom::u64()?))
}

/// The file of a listener's secret.
pub(super) struct SecretFile {
    folder: TemporaryState,
    secret: String,
}

impl SecretFile {
    /// Makes a secret, and writes it.
    pub(super) fn create() -> anyhow::Result<Self> {
        let folder = TemporaryState::create().context("cannot make a temporary folder")?;
        let file = Self { folder, secret: new_secret()? };
        let path = file.path();
        fs::write(&path, format!("{}\n", file.secret))
            .with_context(|| format!("cannot write {path}"))?;
        Ok(file)
    }

    fn path(&self) -> String {
        self.folder.path().join("secret").display().to_string()
    }

    /// The settings of the listener: this one says where it is, and that one names the file.
    pub(super) fn settings(
        &self,
        bind: &'static str,
        file: &'static str,
    ) -> [(&'static str, String); 2] {
        [(bind, "127.0.0.1:0".to_owned()), (file, self.path())]
    }

    /// How programs come in at its address.
    pub(super) fn access(&self, address: SocketAddr) -> Access {
        Access { url: format!("ws://{address}"), secret: self.secret.clone() }
    }
}

/// A listener, as its programs know it.
#[derive(Clone)]
pub struct Access {
    pub(super) url: String,
    pub(super) secret: String,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Access").field("url", &self.url).finish_non_exhaustive()
    }
}
