//! Header trust: does the relay see the client's address? It decides the limits of upgrades.
//!
//! We claim an address that is nobody's, as an attacker would, and look at what the relay has
//! observed: our own address, that of its proxy, or the claim.

use std::net::{IpAddr, Ipv4Addr};

use super::report::Report;

/// The address that we claim to have, of a range for documents (RFC 5737).
pub(super) const FORGED: &str = "203.0.113.77";

const CHECK: &str = "client-address";

/// Judges whom the relay took us for, who are at `local` and dialled `remote`.
pub(super) fn check(
    observed: IpAddr,
    local: IpAddr,
    remote: IpAddr,
    tls: bool,
    report: &mut Report,
) {
    let (local, remote) = (local.to_canonical(), remote.to_canonical());
    if observed.to_string() == FORGED {
        if !tls && remote.is_loopback() {
            let found = "the relay itself was dialled, which takes this machine for its proxy";
            report.ok(CHECK, found);
        } else {
            warn_of_belief(report);
        }
    } else if observed == local {
        report.ok(CHECK, format!("the relay sees this machine's own, {observed}"));
    } else if observed.is_loopback()
        || observed == remote
        || (is_private(observed) && !is_private(remote))
    {
        report.warn(
            CHECK,
            format!(
                "the relay sees {observed}, its proxy, and not the client: all share one limit"
            ),
            "the proxy must send X-Forwarded-For, and its address must be in --trusted-proxy",
        );
    } else {
        report
            .ok(CHECK, format!("the relay sees {observed}; this machine is {local}, behind a NAT"));
    }
}

/// Judges whom the relay took us for, who came through an HTTP proxy of this side.
pub(super) fn check_behind_proxy(observed: IpAddr, report: &mut Report) {
    if observed.to_string() == FORGED {
        warn_of_belief(report);
    } else {
        report
            .ok(CHECK, format!("the relay sees {observed}; whose it is depends on the HTTP proxy"));
    }
}

fn warn_of_belief(report: &mut Report) {
    report.warn(
        CHECK,
        "the relay believes whatever address a client claims: its limits do not hold",
        "the proxy must replace X-Forwarded-For, as deploy/Caddyfile and \
         deploy/nginx/nginx.conf do; --trusted-proxy must not hold clients",
    );
}

/// Whether an address means something in one network only.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_private_v4(address),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_link_local() || address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_seen_tells_what_the_proxy_does() {
        const HOME: &str = "192.168.1.7";
        const RELAY: &str = "198.51.100.1";
        for (observed, local, remote, tls, part) in [
            (FORGED, HOME, RELAY, true, "warning"),
            (FORGED, HOME, RELAY, false, "warning"),
            (FORGED, "127.0.0.1", "127.0.0.1", false, "the relay itself"),
            (FORGED, "127.0.0.1", "127.0.0.1", true, "warning"),
            ("127.0.0.1", HOME, RELAY, true, "warning"),
            ("127.0.0.1", "127.0.0.1", "127.0.0.1", true, "ok"),
            ("172.17.0.1", HOME, RELAY, true, "warning"),
            (RELAY, HOME, RELAY, true, "warning"),
            (RELAY, RELAY, RELAY, true, "ok"),
            ("192.0.2.9", HOME, RELAY, true, "behind a NAT"),
            ("10.0.0.5", HOME, "10.0.0.1", true, "behind a NAT"),
        ] {
            let [observed, local, remote] =
                [observed, local, remote].map(|address| address.parse().unwrap());
            let mut report = Report::default();
            check(observed, local, remote, tls, &mut report);
            assert!(report.to_string().contains(part), "{observed}, not {part}: {report}");
        }
    }
}
