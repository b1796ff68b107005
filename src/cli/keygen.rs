//! `keygen`: a new Ed25519 key.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

use super::{Exit, output};
use crate::ids::PublicKey;

/// What `keygen` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Keygen {
    /// New file for the private key, as base64; without it, both keys are printed as JSON
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

impl Keygen {
    /// Makes the key; only its public half is printed if there is a file for the other.
    pub(super) fn run(self) -> Result<(), Exit> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context("the system gives no random bytes")?;
        let public = PublicKey(SigningKey::from_bytes(&seed).verifying_key().to_bytes());
        let seed = STANDARD.encode(seed);
        let Some(file) = self.out else {
            let keys = serde_json::json!({ "seed": seed, "public_key": public.to_string() });
            return output::print(&format!("{keys}\n"));
        };
        write_new(&file, &seed)
            .with_context(|| format!("--out = {file:?}: the key cannot be written"))?;
        output::print(&format!("{public}\n"))
    }
}

/// Writes a file for its owner alone; one that exists is somebody's key and stays.
fn write_new(file: &Path, seed: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{seed}")?;
    file.sync_all()
}
