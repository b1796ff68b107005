//! The machine of the relay: is one running, has it descriptors enough, and are the kernel's
//! buffers large enough?

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;

use super::http::http_get;
use super::report::Report;
use crate::config::Config;
use crate::net::udp::BUFFER_SIZE;

/// The share of descriptors in use that is worth a look, in percent.
const FULL: u64 = 90;

/// Looks at the relay that these settings are of, as its operators' port shows it.
pub(super) async fn check_relay(config: &Config, report: &mut Report) {
    let admin = local(config.admin_bind);
    let server = admin.to_string().parse().expect("an address is a host and a port");
    let ready = http_get(&server, "/readyz").await;
    let metrics = metrics(config).await;
    let (Ok((status, said)), Some(metrics)) = (ready, metrics) else {
        let remedy =
            "start it: systemctl start beacon-relay; is --admin-bind that of its settings?";
        report.warn("relay", format!("no relay answers at {admin}"), remedy);
        report.skip("descriptors", "no relay runs here; LimitNOFILE= bounds its peers");
        return;
    };
    let found = format!("{admin}: {}", said.trim());
    if status == 200 && said.contains("degraded") {
        report.warn("relay", found, "peers are served; `beacon-relay status` says what is wrong");
    } else if status == 200 {
        report.ok("relay", found);
    } else {
        report.warn("relay", found, "no peer should be sent to it: see its log, and /readyz");
    }
    check_descriptors(config, &metrics, report);
    check_counters(&metrics, report);
}

/// What the relay that these settings are of has counted; nothing where none answers.
pub(super) async fn metrics(config: &Config) -> Option<String> {
    let admin = local(config.admin_bind);
    let server = admin.to_string().parse().expect("an address is a host and a port");
    match http_get(&server, "/metrics").await {
        Ok((200, metrics)) => Some(metrics),
        Ok(_) | Err(_) => None,
    }
}

/// What the relay that these settings are of says of itself; nothing where none answers.
pub(super) async fn status(config: &Config) -> Option<Value> {
    let admin = local(config.admin_bind);
    let server = admin.to_string().parse().expect("an address is a host and a port");
    match http_get(&server, "/status").await {
        Ok((200, status)) => serde_json::from_str(&status).ok(),
        Ok(_) | Err(_) => None,
    }
}

fn check_descriptors(config: &Config, metrics: &str, report: &mut Report) {
    let [open, most] = ["process_open_fds", "process_max_fds"].map(|name| sum(metrics, name));
    let found = format!("{open} of {most} in use, for {} peers at most", config.max_peers);
    let remedy = "raise LimitNOFILE= (ulimit -n) and restart; --max-peers follows it";
    if open * 100 >= most * FULL || most < config.max_peers as u64 {
        report.warn("descriptors", found, remedy);
    } else {
        report.ok("descriptors", found);
    }
}

/// What the relay has counted of its surroundings since its start.
fn check_counters(metrics: &str, report: &mut Report) {
    let hidden = sum(metrics, "pilot_beacon_wss_not_forwarded_total");
    if hidden > 0 {
        report.warn(
            "forwarded-for",
            format!("{hidden} requests of trusted proxies did not say who the client is"),
            "the proxy must send X-Forwarded-For (expected of `connect` from this machine)",
        );
    }
    let lost = sum(metrics, "pilot_beacon_udp_kernel_dropped_total");
    if lost > 0 {
        let found = format!("the kernel dropped {lost} datagrams before the relay read them");
        report.warn("udp-drops", found, "larger buffers (udp-buffers), or more CPU");
    }
}

/// The sum of a family's samples, which are whole numbers.
pub(super) fn sum(metrics: &str, family: &str) -> u64 {
    let values = metrics.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        let name = name.split('{').next()?;
        if name == family { value.parse::<u64>().ok() } else { None }
    });
    values.sum()
}

/// Where a listener is reached from this machine.
pub(super) fn local(bind: SocketAddr) -> SocketAddr {
    let ip = match bind.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
    };
    SocketAddr::new(ip, bind.port())
}

/// Compares the kernel's limits of buffers with what the relay asks for.
pub(super) fn check_buffers(report: &mut Report) {
    let limits = ["rmem_max", "wmem_max"].map(|name| {
        let text = fs::read_to_string(format!("/proc/sys/net/core/{name}")).ok()?;
        Some((name, text.trim().parse::<usize>().ok()?))
    });
    for limit in limits {
        let Some((name, bytes)) = limit else {
            report.skip("udp-buffers", "/proc/sys does not say");
            continue;
        };
        let found = format!("net.core.{name} is {bytes}");
        if bytes < BUFFER_SIZE {
            let remedy = format!("sysctl -w net.core.{name}={BUFFER_SIZE}, and in /etc/sysctl.d");
            report.warn("udp-buffers", found, remedy);
        } else {
            report.ok("udp-buffers", found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sum_is_of_one_family_only() {
        let metrics = "# TYPE a counter\na{b=\"1\"} 2\na{b=\"2\"} 3\na_b 7\nb 1\n";
        assert_eq!([sum(metrics, "a"), sum(metrics, "a_b"), sum(metrics, "c")], [5, 7, 0]);
    }
}
