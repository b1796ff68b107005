//! Logs: text or JSON lines on stderr, with a filter that can change while they run.

use std::io::{self, IsTerminal as _};

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config::{LogFilter, LogFormat};

/// Changes what is logged.
#[derive(Clone, Debug)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

impl LogControl {
    /// Logs what `filter` lets through, from the next event on.
    ///
    /// # Errors
    /// The subscriber is gone.
    pub fn set(&self, filter: &LogFilter) -> anyhow::Result<()> {
        self.0.reload(filter.to_filter()).context("the log filter cannot be changed")
    }
}

/// Starts the logs of this process.
///
/// # Errors
/// They have been started already.
pub fn start(filter: &LogFilter, format: LogFormat) -> anyhow::Result<LogControl> {
    let (filter, control) = reload::Layer::new(filter.to_filter());
    let lines = fmt::layer().with_writer(io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    subscriber.try_init().context("the log cannot be started")?;
    Ok(LogControl(control))
}
