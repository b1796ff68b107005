//! `keygen`: a new Ed25519 key.

use std::io::ErrorKind;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

use super::{Exit, output};
use crate::config::remedy;
use crate::ids::PublicKey;
use crate::key_file::create_key;

/// What `keygen` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Keygen {
    /// New file for the private key, as base64; without it, both keys are printed as JSON
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out: Option<PathBuf>,
}

impl Keygen {
    /// Makes the key; only its public half is printed if there is a file for the other.
    pub(super) fn run(self) -> Result<(), Exit> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).context("the system gives no random bytes")?;
        let key = SigningKey::from_bytes(&seed);
        let public = PublicKey(key.verifying_key().to_bytes());
        let Some(file) = self.out else {
            let seed = STANDARD.encode(seed);
            let keys = serde_json::json!({ "seed": seed, "public_key": public.to_string() });
            return output::print(&format!("{keys}\n"));
        };
        create_key(&file, &key).map_err(|error| {
            if error.kind() == ErrorKind::AlreadyExists {
                return anyhow!(
                    "--out = {file:?}: it exists already, and stays; name another file"
                );
            }
            anyhow!("--out = {file:?}: the key cannot be written: {error}; {}", remedy(&error))
        })?;
        output::print(&format!("{public}\n"))
    }
}
