//! `serve`: runs the relay.

use anyhow::anyhow;
use tracing::warn;

use super::{Exit, logging};
use crate::config::{Config, create_state_dir};

/// Runs the relay until it is told to stop.
///
/// # Errors
/// It could not start, or had to stop.
#[expect(clippy::needless_pass_by_value, reason = "the server is going to own it")]
pub fn serve(config: Config) -> Result<(), Exit> {
    let _log = logging::start(&config.log_level, config.log_format)?;
    for warning in &config.warnings {
        warn!(reason = %warning, "questionable setting");
    }
    create_state_dir(&config.state_dir)?;
    Err(anyhow!("the server is not wired").into())
}
