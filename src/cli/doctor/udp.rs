//! UDP: does the relay answer a Discover from here?

use futures_util::future::join_all;

use crate::client::udp::Peer;
use crate::ids::NodeId;

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
    let asked = addresses
        .into_iter()
        .map(async |relay| (relay, Peer::connect(relay, stranger(), None, false).await));
    for (relay, answer) in join_all(asked).await {
        match answer {
            Ok(peer) => {
                report.ok("udp", format!("{relay} sees this machine at {}", peer.observed()));
            }
            Err(error) => {
                let remedy = format!(
                    "open UDP {port} in the relay's firewall, and here for answers; is the \
                     relay's --udp-bind on that address?"
                );
                report.warn("udp", format!("{relay}: {error}"), remedy);
            }
        }
    }
}

/// A node that nobody is, of the upper half of the numbers: a Discover makes its sender that
/// node's endpoint for ten minutes, so it must be nobody's.
fn stranger() -> NodeId {
    let random = getrandom::u32().unwrap_or_else(|_| std::process::id());
    NodeId::new(random | 1 << 31).expect("the highest bit is set")
}
