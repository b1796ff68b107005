//! What the configuration of this machine says, without the network.

use super::report::Report;
use crate::config::{Config, Flags, Loaded, Source, Surroundings};
use crate::doors::pilot::directory::{Directory, Settings};

/// Reads the configuration as `serve` would.
pub(super) fn read(flags: Flags, report: &mut Report) -> Option<Config> {
    match Source::new(flags, Surroundings::of_this_process()).read() {
        Ok(Loaded { config, .. }) => Some(config),
        Err(error) => {
            let remedy = "the relay does not start with it: correct it, then run check-config";
            for mistake in error.each() {
                report.fail("settings", mistake.to_string(), remedy);
            }
            None
        }
    }
}

/// Checks what the configuration names.
pub(super) fn check(config: &Config, report: &mut Report) {
    if config.warnings.is_empty() {
        report.ok("settings", "they are valid");
    }
    for warning in &config.warnings {
        report.warn("settings", warning.to_string(), "see docs/SETTINGS.md");
    }
    let is_remote = config.registry.is_some() && config.keys.is_none();
    if is_remote {
        report.skip("keys", "they are the registry's");
        return;
    }
    let (keys, state_dir) = (config.keys.clone(), config.state_dir.clone());
    let folder = state_dir.display().to_string();
    match Directory::open(Settings { keys, registry: None, state_dir }) {
        Ok(_directory) if config.keys.is_none() => {
            report.ok("keys", format!("the embedded directory in {folder} can be read"));
        }
        Ok(_directory) => report.ok("keys", "the key file can be read"),
        Err(error) => {
            let remedy = "correct the file; run the doctor as the user of the relay";
            report.fail("keys", error.to_string(), remedy);
        }
    }
}
