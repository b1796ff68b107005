//! Certificates that the relay of this machine gets itself: can an authority check its names, and
//! how is the relay coming on with them?

use std::net::SocketAddr;

use futures_util::future::join_all;
use serde_json::Value;

use super::http::http_get;
use super::machine::local;
use super::reach;
use super::report::Report;
use crate::config::{AcmeName, Config};
use crate::net::dial::MAX_ADDRESSES;

const CHECK: &str = "acme";

/// The port that authorities connect to (RFC 8737 §3).
const PORT: u16 = 443;

/// Checks each name, and asks the relay what came of the orders.
pub(super) async fn check(config: &Config, report: &mut Report) {
    let listeners = config.all_listeners(false);
    let mut names: Vec<_> = listeners.iter().flat_map(|listener| &listener.acme).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return;
    }
    let looked = join_all(names.iter().map(|name| look(name))).await;
    for (name, looked) in names.iter().zip(looked) {
        tell(name, looked, report);
    }
    ask(config, report).await;
}

/// The addresses of a name, and whether somebody answers there.
async fn look(name: &AcmeName) -> std::io::Result<Vec<(SocketAddr, Option<String>)>> {
    let mut addresses = reach::resolve(name.as_str(), PORT).await?;
    addresses.truncate(MAX_ADDRESSES);
    let dialled = addresses.into_iter().map(async |address| {
        let refused = reach::dial(address).await.err();
        (address, refused.map(|error| error.to_string()))
    });
    Ok(join_all(dialled).await)
}

fn tell(
    name: &AcmeName,
    looked: std::io::Result<Vec<(SocketAddr, Option<String>)>>,
    report: &mut Report,
) {
    let found = match looked {
        Ok(found) => found,
        Err(error) => {
            let remedy = "add A and AAAA records that lead here: the authority connects to them";
            return report.warn(CHECK, format!("{name} does not resolve: {error}"), remedy);
        }
    };
    let listed: Vec<_> = found.iter().map(|(address, _)| address.ip().to_string()).collect();
    let silent: Vec<_> = found
        .iter()
        .filter_map(|(address, refused)| Some(format!("{address} ({})", refused.as_ref()?)))
        .collect();
    if silent.is_empty() {
        report.ok(CHECK, format!("{name} is {}, where port {PORT} answers", listed.join(", ")));
    } else {
        let remedy = "TCP 443 of each address has to lead to the relay: open the firewall, correct the \
                      records; a router may refuse it from here alone";
        report.warn(CHECK, format!("{name}: no answer at {}", silent.join(", ")), remedy);
    }
}

/// What the relay says of its certificates.
async fn ask(config: &Config, report: &mut Report) {
    let admin = local(config.admin_bind);
    let server = admin.to_string().parse().expect("an address is a host and a port");
    let status = match http_get(&server, "/status").await {
        Ok((200, status)) => serde_json::from_str(&status).unwrap_or(Value::Null),
        Ok(_) | Err(_) => Value::Null,
    };
    let Some(certificates) = status.get("acme").and_then(Value::as_array) else {
        return report.skip(CHECK, format!("no relay at {admin} says what it has ordered"));
    };
    for certificate in certificates {
        tell_order(certificate, report);
    }
}

fn tell_order(certificate: &Value, report: &mut Report) {
    let text = |key: &str| certificate.get(key).and_then(Value::as_str);
    let names = certificate.get("names").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<_> = names.filter_map(Value::as_str).collect();
    let names = names.join(", ");
    let next = text("next_order_at").unwrap_or("an unknown time");
    let held = match text("expires_at") {
        Some(until) => format!("{names}: a certificate until {until}"),
        None => format!("{names}: no certificate yet"),
    };
    match (text("error"), text("expires_at")) {
        (Some(error), _) => {
            let found = format!("{held}; the last order failed: {error}; the next is at {next}");
            report.warn(CHECK, found, "docs/TLS.md, Certificates by ACME; the log has more");
        }
        (None, Some(_)) => report.ok(CHECK, format!("{held}, renewed at {next}")),
        (None, None) => {
            report.warn(CHECK, format!("{held}, it is being ordered"), "wait, and look again");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn name_that_leads_nowhere_and_an_order_that_failed_are_worth_a_look() {
        let name: AcmeName = "relay.test".parse().unwrap();
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (one, other) = (at("192.0.2.1:443"), at("[2001:db8::1]:443"));
        let mut good = Report::default();
        tell(&name, Ok(vec![(one, None)]), &mut good);
        let order = |error: Value| {
            json!({ "names": ["relay.test"], "expires_at": "2027-01-01T00:00:00.000Z",
                    "next_order_at": "2026-12-01T00:00:00.000Z", "error": error })
        };
        tell_order(&order(Value::Null), &mut good);
        assert!(good.end().is_ok(), "{good}");

        let mut bad = Report::default();
        tell(&name, Ok(vec![(one, None), (other, Some("refused".to_owned()))]), &mut bad);
        tell(&name, Err(std::io::ErrorKind::NotFound.into()), &mut bad);
        tell_order(&order("dns: no such name".into()), &mut bad);
        tell_order(&json!({ "names": ["relay.test"] }), &mut bad);
        let said = bad.to_string();
        for part in [
            "no answer at [2001:db8::1]:443 (refused)",
            "relay.test does not resolve",
            "until 2027-01-01T00:00:00.000Z; the last order failed: dns: no such name; the next is at 2026-12-01",
            "no certificate yet, it is being ordered",
        ] {
            assert!(said.contains(part), "{said}");
        }
        assert_eq!(bad.end().unwrap_err().code(), 1, "{said}");
    }
}
