//! UDP: does the relay answer from here? Asked by an address question, which makes nobody known
//! to it.

use std::io;

use futures_util::future::join_all;

use crate::client::udp::observed_address;

use super::reach::resolve;
use super::report::Report;

/// Asks every address of a `HOST:PORT`, all at the same time.
pub(super) async fn check(address: &str, report: &mut Report) {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    let Some((host, port)) = parts else {
        report.warn("udp", format!("{address} is not HOST:PORT"), "write --udp host:9001");
        return;
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let addresses = match resolve(host, port).await {
        Ok(addresses) => addresses,
        Err(error) => {
            let remedy = "add A and AAAA records for it, or correct --udp";
            report.warn("udp", format!("{host} does not resolve: {error}"), remedy);
            return;
        }
    };
    let asked = addresses.into_iter().map(async |relay| (relay, observed_address(relay).await));
    for (relay, answer) in join_all(asked).await {
        match answer {
            Ok(observed) => report.ok("udp", format!("{relay} sees this machine at {observed}")),
            Err(error) => report.warn("udp", format!("{relay}: {error}"), remedy(&error, port)),
        }
    }
}

/// What to do where an address question was not answered.
fn remedy(error: &io::Error, port: u16) -> String {
    if error.kind() == io::ErrorKind::TimedOut {
        return format!(
            "either UDP is blocked: open UDP {port} in the relay's firewall, and here for answers, \
             and see whether the relay's --udp-bind is on that address; or the relay is of a version \
             that does not answer who has no id: upgrade it, since daemons ask so at their start"
        );
    }
    format!("does a relay listen there? see its --udp-bind, and UDP {port} in its firewall")
}
