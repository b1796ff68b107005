//! The registry: does it answer, and does it know the node?

use prometheus::proto::MetricFamily;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::report::Report;
use crate::config::Config;
use crate::doors::pilot::directory::{Directory, Lookup, Settings};
use crate::ids::NodeId;
use crate::server::directory_settings;

const CHECK: &str = "registry";

/// Asks the registry of the settings for its beacons, and for the node's key.
pub(super) async fn check(config: Option<&Config>, node: Option<NodeId>, report: &mut Report) {
    let Some(registry) = config.and_then(|config| config.registry.as_ref()) else {
        report.skip(CHECK, "there is no --registry");
        return;
    };
    let address = registry.address.to_string();
    let mut settings = config.map(directory_settings).expect("a registry is of a configuration");
    // It is asked, whatever the relay remembers.
    settings.registry.iter_mut().for_each(|registry| registry.kept_keys = None);
    let directory = match Directory::open(Settings { keys: None, ..settings }) {
        Ok(directory) => directory,
        Err(error) => {
            report.warn(CHECK, error.to_string(), "correct the settings of the registry");
            return;
        }
    };
    let running = directory.clone().run(CancellationToken::new());
    let _running = AbortOnDropHandle::new(tokio::spawn(running));
    if let Err(error) = directory.beacons().await {
        let reason = reason(&directory).map(|reason| format!(" ({reason})")).unwrap_or_default();
        let remedy = "is it up, and its port open to this machine? TLS as it speaks it? Known \
                      keys serve for 24 h, new nodes cannot log in meanwhile";
        report.warn(CHECK, format!("{address}: {error}{reason}"), remedy);
        return;
    }
    let Some(node) = node else {
        report.ok(CHECK, format!("{address} answers"));
        return;
    };
    match directory.lookup(node).await {
        Lookup::Key(key) => report.ok(CHECK, format!("{address} has {key} for node {node}")),
        Lookup::Unknown => report.warn(
            CHECK,
            format!("{address} does not know node {node}"),
            "register the node there, unless the key file has it",
        ),
        Lookup::Unavailable => {
            report.warn(CHECK, format!("{address} did not answer a look-up"), "see its log");
        }
    }
}

/// Why the registry did not answer, as the directory counts it.
fn reason(directory: &Directory) -> Option<String> {
    let mut families = Vec::new();
    directory.metrics(&mut families);
    let failures = |family: &&MetricFamily| family.name().ends_with("registry_failures_total");
    let metrics = families.iter().find(failures)?.get_metric();
    let counted = metrics.iter().find(|metric| metric.get_counter().get_value() > 0.0)?;
    Some(counted.get_label().first()?.value().to_owned())
}
