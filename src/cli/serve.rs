//! `serve`: runs the relay until it is told to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use super::logging::LAST_LINES_TIME;
use super::way_out::{completed, of_bus, of_identity};
use super::{Exit, LogControl, Logs, logging};
use crate::cluster::identity_file;
use crate::config::{
    Config, Error, Flags, Loaded, LogFilter, Place, Source, Surroundings, UnusablePair,
};
use crate::control::{Order, Task};
use crate::doors::Plan;
use crate::doors::pilot::directory::OpenError;
use crate::net::notify::ServiceManager;
use crate::server::{BindError, Host, Reloader, Server, Sockets, StartError};
use crate::store::{self, bus_folder};

/// Signals that come so soon after each other are one: supervisors send SIGTERM to the whole group of
/// processes, and who passes it on as well sends it twice.
const ONE_SIGNAL: Duration = Duration::from_millis(500);

/// What to do about what cannot be.
const BUG: &str = "this is a bug of the relay: report it with its log, and start it again";

/// Runs the relay until it is told to stop, with these doors beyond its own.
///
/// # Errors
/// It could not start, or was told to stop at once.
pub fn serve(flags: Flags, doors: Vec<Plan>) -> Result<(), Exit> {
    // Before anything is opened.
    let sockets = Sockets::inherit().map_err(|error| Exit::Usage(error.to_string()))?;
    let source = Source::new(flags, Surroundings::of_this_process());
    let Loaded { layers, config } = source.read()?;
    let log = logging::start(&config.log_level, config.log_format)?;
    let control = log.control.clone();
    let host = Host {
        settings: Some((source, layers)),
        set_log_filter: Some(Box::new(move |filter| {
            if let Err(error) = control.set(filter) {
                warn!(%error, "the log goes on as it was");
            }
        })),
        sockets,
        manager: ServiceManager::of_this_process().context("cannot use NOTIFY_SOCKET")?,
        log: Some(log.writer.clone()),
        doors,
    };
    for warning in &config.warnings {
        warn!(reason = %warning, "questionable setting");
    }
    let runtime = runtime()?;
    let mut recorder = None;
    let ended = runtime.block_on(async {
        let mut signals = Signals::new()?;
        debug!("starting");
        // In a task of its own: a file that does not answer makes nobody deaf to signals.
        let starting = tokio::spawn(start(host, config));
        let server = tokio::select! {
            started = starting => started.context("the start has failed")??,
            () = signals.stop() => {
                info!("stopped before everything was started");
                return Ok(());
            }
        };
        server.recorder().dump_on_panic();
        recorder = Some(server.recorder().clone());
        run(server, &mut signals, &log).await
    });
    // A look-up of a name or a read of a file that hangs must not hold up the end.
    runtime.shutdown_background();
    if let Some(recorder) = recorder {
        recorder.wait(LAST_LINES_TIME);
    }
    ended
}

/// Runs a command to its end. A read that hangs, such as that of stdin, does not hold it up.
pub(super) fn run_to_end<T>(command: impl Future<Output = T>) -> Result<T, Exit> {
    let runtime = runtime()?;
    let ended = runtime.block_on(command);
    runtime.shutdown_background();
    Ok(ended)
}

/// The runtime of all tasks, a thread a core.
fn runtime() -> Result<Runtime, Exit> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Ok(runtime.context("cannot start the runtime")?)
}

/// Starts the relay; what is in the way is named by its setting.
pub(super) async fn start(host: Host, config: Config) -> Result<Server, Exit> {
    let (keys, state_dir) = (config.keys.clone(), config.state_dir.clone());
    let registry = config.registry.as_ref().map(|registry| registry.address.to_string());
    Server::start_in(host, config).await.map_err(|error| match error {
        StartError::Sockets(error) => Exit::Usage(error.to_string()),
        StartError::Bind(error) => {
            let setting = error.written();
            let BindError { address, error, .. } = error;
            Exit::Bind { setting, address, error }
        }
        StartError::Directory(OpenError::File(error)) => {
            let (key, path) = keys.map_or(("state_dir", state_dir), |path| ("keys", path));
            let way_out = "write a good file, or restore it from a backup";
            let (place, reason) = (Place::flag(key), completed(&error.to_string(), way_out));
            Error::File { place, path, reason }.into()
        }
        StartError::Directory(error) => {
            let way_out = "write HOST:PORT, and a certificate that it can be believed by";
            let reason = completed(&error.to_string(), way_out);
            let place = Place::flag("registry");
            Error::Setting { place, value: registry.unwrap_or_default(), reason }.into()
        }
        StartError::Certificate(UnusablePair { path, reason }) => {
            Error::File { place: Place::flag("wss_tls_cert"), path, reason }.into()
        }
        StartError::StateDir(error) => error.into(),
        StartError::InUse(error) => Exit::InUse(error),
        StartError::Identity(error) => {
            let (place, path) = (Place::flag("state_dir"), identity_file(&state_dir));
            let reason = completed(&error.to_string(), of_identity(&error));
            Error::File { place, path, reason }.into()
        }
        StartError::Bus(error) => {
            let (place, path) = (Place::flag("state_dir"), bus_folder(&state_dir));
            let reason = completed(&error.to_string(), of_bus(&error));
            Error::File { place, path, reason }.into()
        }
        StartError::Nats(error) => {
            let way_out = "write servers and credentials as docs/CLUSTER.md has them";
            let reason = completed(&error.to_string(), way_out);
            let place = Place::flag("cluster_nats");
            // The URL may hold a password.
            Error::Setting { place, value: "…".to_owned(), reason }.into()
        }
        StartError::BusNats(error @ store::OpenError::Payload { .. }) => {
            Exit::Server(format!("--bus-nats: {error}"))
        }
        StartError::BusNats(error @ store::OpenError::Settings(_)) => {
            let way_out = "write servers and credentials as docs/MESSAGES.md has them";
            let reason = completed(&error.to_string(), way_out);
            let place = Place::flag("bus_nats");
            Error::Setting { place, value: "…".to_owned(), reason }.into()
        }
        StartError::BusNats(_)
        | StartError::NoDoor(_)
        | StartError::TwoDoors(..)
        | StartError::Tls(_)
        | StartError::Thread(_) => Exit::Failed(error.into()),
    })
}

/// Serves until a signal or an order, then drains; a signal after the first ends it at once.
async fn run(mut server: Server, signals: &mut Signals, log: &Logs) -> Result<(), Exit> {
    let mut orders = server.take_orders().expect("nobody else runs this server");
    // Beside everything else: a disk that hangs makes the relay deaf to nothing. What waits
    // there when the end begins is given up.
    let mut reloads = JoinSet::new();
    let hung_up = Arc::new(Notify::new());
    reloads.spawn(reload_whenever(Arc::clone(&hung_up), Arc::clone(server.reloader())));
    let mut signalled = loop {
        let told = tokio::select! {
            told = signals.next() => told,
            Some(order) = orders.recv() => Told::Order(order),
            () = log.writer.failed() => {
                return Err(anyhow!("the log writer has stopped unexpectedly; {BUG}").into());
            }
            Some(Err(error)) = reloads.join_next() => {
                return Err(anyhow!(error).context(format!("a reload has failed; {BUG}")).into());
            }
            () = server.failed() => {
                error!("a task of the relay has stopped unexpectedly: this is a bug of the relay");
                return Err(anyhow!("a task of the relay has stopped unexpectedly; {BUG}").into());
            }
        };
        match told {
            Told::Stop => break Some(Instant::now()),
            // A further signal, while one waits for its turn, asks for nothing new.
            Told::Reload => hung_up.notify_one(),
            Told::Record => server.recorder().record(),
            Told::Order(order) => match order.task.clone() {
                Task::Drain => {
                    order.answer(Ok(json!({ "draining": true })));
                    break None;
                }
                Task::Reload { force } => {
                    let reloader = Arc::clone(server.reloader());
                    reloads.spawn(async move { order.answer(reload(&reloader, force).await) });
                }
                Task::Log(filter) => order.answer(change_log(&log.control, &filter)),
            },
        }
    };
    drop(reloads);
    let drained = server.shutdown();
    tokio::pin!(drained);
    loop {
        tokio::select! {
            () = &mut drained => return Ok(()),
            Some(order) = orders.recv() => {
                let is_done = order.task == Task::Drain;
                let refused = || "the relay is draining".to_owned();
                order.answer(is_done.then(|| json!({ "draining": true })).ok_or_else(refused));
            }
            // The first after an operator's order, such as systemd's, cuts nobody off.
            () = signals.stop() => match signalled {
                Some(before) if before.elapsed() < ONE_SIGNAL => {
                    debug!("a signal that came twice counts once");
                }
                Some(_) => {
                    info!("stopped without draining to the end, by a second signal");
                    return Err(anyhow!("stopped at once by a second signal").into());
                }
                None => {
                    signalled = Some(Instant::now());
                    info!("draining already; another signal stops at once");
                }
            }
        }
    }
}

/// Reloads once for all that asked meanwhile, for ever.
async fn reload_whenever(asked: Arc<Notify>, reloader: Arc<Reloader>) {
    loop {
        asked.notified().await;
        // What came of it is in the log and the metrics.
        let _reported = reloader.reload(false).await;
    }
}

async fn reload(reloader: &Reloader, force: bool) -> Result<Value, String> {
    let changes = reloader.reload(force).await.map_err(|error| error.to_string())?;
    serde_json::to_value(changes).map_err(|error| error.to_string())
}

fn change_log(log: &LogControl, filter: &LogFilter) -> Result<Value, String> {
    log.set(filter).map_err(|error| format!("{error:#}"))?;
    info!(%filter, "the log filter was changed by an operator");
    Ok(json!({ "filter": filter.to_string() }))
}

/// What a signal or an operator asks for.
enum Told {
    Reload,
    Record,
    Stop,
    Order(Order),
}

/// The signals that the relay listens to.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user2: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Exit> {
        let listen = |kind| signal(kind).context("cannot listen to signals");
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
            user2: listen(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.terminate.recv() => Told::Stop,
            _ = self.interrupt.recv() => Told::Stop,
            _ = self.hangup.recv() => Told::Reload,
            _ = self.user2.recv() => Told::Record,
        }
    }

    /// Waits until the process is told to stop.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
