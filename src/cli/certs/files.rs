//! The files of certificates and keys.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Exit;
use super::issue::Made;
use crate::config::remedy;

/// A certificate's file and its key's.
#[derive(Debug)]
pub(in crate::cli) struct Pair {
    pub(in crate::cli) cert: PathBuf,
    pub(in crate::cli) key: PathBuf,
}

impl Pair {
    /// Writes both; the key so that its owner alone reads it.
    ///
    /// # Errors
    /// A file is there and not to be replaced, or cannot be written.
    pub(in crate::cli) fn write(&self, made: &Made, force: bool) -> Result<(), Exit> {
        let there = [&self.key, &self.cert].into_iter().find(|path| path.exists());
        if let Some(path) = there.filter(|_| !force) {
            return Err(anyhow!(
                "{path:?}: it exists already, and stays; add --force to replace it"
            )
            .into());
        }
        let written = |path: &Path, text: &str, mode| {
            replace(path, text, mode).with_context(|| format!("{path:?}: cannot be written"))
        };
        written(&self.key, &made.key, 0o600)?;
        written(&self.cert, &made.cert, 0o644)?;
        Ok(())
    }

    /// What was written, for who asked.
    pub(super) fn shown(&self) -> String {
        format!("{}\n{}\n", self.cert.display(), self.key.display())
    }
}

/// Writes a file under another name first, so that nobody reads half of it, and none that was open
/// to others is written into.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    // One that a run before left behind.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// Reads a file that an option names.
pub(super) fn read(option: &str, path: &Path) -> Result<String, Exit> {
    let text = fs::read_to_string(path);
    Ok(text.map_err(|error| {
        anyhow!("{option} = {path:?}: cannot be read: {error}; {}", remedy(&error))
    })?)
}

/// The first certificate of a file.
pub(super) fn certificate(option: &str, path: &Path) -> Result<CertificateDer<'static>, Exit> {
    let text = read(option, path)?;
    let der = CertificateDer::from_pem_slice(text.as_bytes());
    Ok(der.map_err(|error| {
        anyhow!("{option} = {path:?}: no certificate: {error}; name a PEM file with one")
    })?)
}
