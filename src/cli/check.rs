//! `check-config`: reads what `serve` would read, and binds nothing.

use super::{Exit, output};
use crate::config::{Config, Layers, Loaded};
use crate::doors::pilot::directory::{self, Directory};

/// Checks what the settings name, and prints the settings.
pub(super) fn check(loaded: &Loaded) -> Result<(), Exit> {
    let Loaded { layers, config } = loaded;
    let state_dir = &config.state_dir;
    if state_dir.exists() && !state_dir.is_dir() {
        return Err(layers
            .refuse_file("state_dir", state_dir, "it is no folder; name another")
            .into());
    }
    check_keys(layers, config)?;
    for warning in &config.warnings {
        output::warn(warning);
    }
    output::print(&format!("# configuration is valid\n\n{layers}"))
}

/// Reads the key file, or the embedded directory where that is what there is.
fn check_keys(layers: &Layers, config: &Config) -> Result<(), Exit> {
    let (key, path) = match (&config.keys, &config.registry) {
        (Some(path), _) => ("keys", path),
        (None, Some(_)) => return Ok(()),
        (None, None) => ("state_dir", &config.state_dir),
    };
    let files = directory::Settings {
        keys: config.keys.clone(),
        registry: None,
        state_dir: config.state_dir.clone(),
    };
    Directory::open(files).map_err(|error| layers.refuse_file(key, path, error.to_string()))?;
    Ok(())
}
