//! By which names the operators' listener may be asked.
//!
//! A page of another site can have a browser ask a local address under a name of its own (DNS
//! rebinding). Such a request names a foreign host, and is refused.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use prometheus::proto::MetricFamily;

use crate::metrics::{Counter, family};

/// The names, and how often another was used.
#[derive(Debug)]
pub struct Hosts {
    bound: IpAddr,
    names: Vec<String>,
    refused: Counter,
}

impl Hosts {
    /// The bound address, `localhost`, and further names in lower case. A listener on every
    /// address takes any address, which no site can claim as its name.
    #[must_use]
    pub fn new(bound: SocketAddr, names: impl IntoIterator<Item = String>) -> Arc<Self> {
        let names = names.into_iter().collect();
        Arc::new(Self { bound: bound.ip().to_canonical(), names, refused: Counter::default() })
    }

    /// Whether a `Host` header, with or without a port, is ours.
    fn allows(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(address) => address.split(']').next().unwrap_or_default(),
            None => host.split(':').next().unwrap_or_default(),
        };
        match name.parse::<IpAddr>() {
            Ok(address) => self.bound.is_unspecified() || address.to_canonical() == self.bound,
            Err(_) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                name == "localhost" || self.names.contains(&name)
            }
        }
    }

    /// Appends the family to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        families.push(family::counter(
            "pilot_beacon_admin_foreign_hosts_total",
            "Requests to the operators' listener by a name that is not its own.",
            &self.refused,
        ));
    }
}

/// Passes on what is asked by a name of ours. Who names no host is no browser.
pub(super) async fn check(
    State(hosts): State<Arc<Hosts>>,
    request: Request,
    next: Next,
) -> Response {
    // Which of two a proxy goes by, nobody knows.
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        return (StatusCode::BAD_REQUEST, "a request has one Host header\n").into_response();
    }
    let named = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let uri = request.uri().host();
    if named.into_iter().chain(uri).all(|host| hosts.allows(host)) {
        return next.run(request).await;
    }
    hosts.refused.increment();
    let text = "this listener has another name; allow this one with --admin-host\n";
    (StatusCode::FORBIDDEN, text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(bound: &str) -> Arc<Hosts> {
        Hosts::new(bound.parse().unwrap(), ["relay.internal".to_owned()])
    }

    #[test]
    fn names_are_the_address_localhost_and_those_that_are_given() {
        let hosts = hosts("127.0.0.1:9464");
        for host in
            ["127.0.0.1:9464", "127.0.0.1", "localhost:8080", "LOCALHOST", "Relay.Internal."]
        {
            assert!(hosts.allows(host), "{host}");
        }
        for host in
            ["", "evil.example", "localhost.evil.example", "127.0.0.2:9464", "[::1]:9464", "[", ":"]
        {
            assert!(!hosts.allows(host), "{host}");
        }
    }

    #[test]
    fn listener_on_every_address_takes_any_address_and_no_other_name() {
        for bound in ["0.0.0.0:9464", "[::]:9464"] {
            let hosts = hosts(bound);
            for host in ["10.0.0.1:9464", "[fd00::1]:9464", "[::ffff:10.0.0.1]", "localhost"] {
                assert!(hosts.allows(host), "{bound}: {host}");
            }
            assert!(!hosts.allows("evil.example:9464"));
        }
        assert!(hosts("[::1]:9464").allows("[::1]:9464"));
    }
}
