//! Logs: text or JSON lines on stderr, with a filter that can change while they run.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal as _};
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use tracing::error;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt, reload};

use crate::config::{LogFilter, LogFormat};
use crate::log_writer::{LogWriter, MAX_QUEUED};

/// Time for the last lines to be written at the end.
pub(super) const LAST_LINES_TIME: Duration = Duration::from_secs(1);

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

/// The logs of this process. Dropping this waits for the last lines, 1 s at most.
#[derive(Debug)]
pub struct Logs {
    /// Changes what is logged.
    pub control: LogControl,
    /// Where the lines go.
    pub writer: LogWriter,
}

impl Drop for Logs {
    fn drop(&mut self) {
        // Lines that nobody takes stay unwritten, as they did before.
        let _written = self.writer.flush(LAST_LINES_TIME);
    }
}

/// Starts the logs of this process, panics among them.
///
/// # Errors
/// They have been started already, or there is no room for a thread.
pub fn start(filter: &LogFilter, format: LogFormat) -> anyhow::Result<Logs> {
    let (filter, control) = reload::Layer::new(filter.to_filter());
    let writer = LogWriter::start(io::stderr(), MAX_QUEUED).context("cannot start a thread")?;
    // Its complaints would go to stderr, past the writer.
    let lines = fmt::layer().with_writer(writer.clone()).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    subscriber.try_init().context("the log cannot be started")?;
    panic::set_hook(Box::new(log_panic));
    Ok(Logs { control: LogControl(control), writer })
}

/// Logs a panic. The hook of the standard library would wait for whoever reads stderr.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let thread = thread::current();
    let name = thread.name().unwrap_or_default();
    let reason = panic.payload_as_str().unwrap_or_default();
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(backtrace);
    let backtrace = backtrace.as_ref().map(tracing::field::display);
    error!(thread = name, place, reason, backtrace, "panicked: this is a bug of the relay");
}
