//! What each setting of NetBird's and openZro's relay is here.

use std::fmt::Write as _;
use std::path::Path;

use super::lines::Lines;
use super::settings::{KNOWN, NONE};
use super::sources::Said;
use crate::config::{AcmeName, ExposedAddress, IpNet, WssBind};

/// Where the secret is if nobody says.
const SECRET_FILE: &str = "/etc/beacon-relay/netbird-secret";

/// What came of the settings.
#[derive(Debug)]
pub(super) struct Migrated {
    /// The configuration, without the secret.
    pub(super) toml: String,
    /// The secret, where it was said itself.
    pub(super) secret: Option<String>,
}

/// Translates what was said; the secret is to be in this file.
///
/// # Errors
/// What is missing, or means nothing here.
pub(super) fn migrate(said: &Said, secret_file: Option<&Path>) -> Result<Migrated, String> {
    let program = if said.is_openzro { "openZro" } else { "NetBird" };
    let mut lines =
        Lines(format!("# The settings of {program}'s relay, for `beacon-relay serve`.\n\n"));
    listener(said, &mut lines)?;
    let secret = secret(said, secret_file, &mut lines)?;
    for_clients(said, &mut lines)?;
    for_operators(said, &mut lines)?;
    let mut toml = lines.0;
    let without = without_counterpart(said);
    if !without.is_empty() {
        toml.push_str("\n# Without a counterpart:\n");
        toml.push_str(&without);
    }
    Ok(Migrated { toml, secret })
}

/// Where clients come to.
fn listener(said: &Said, lines: &mut Lines) -> Result<(), String> {
    let bind = said.text("listen-address").unwrap_or(":443");
    let place = if said.text("listen-address").is_some() {
        said.place("listen-address")
    } else {
        "its default"
    };
    let address: WssBind = bind.parse().map_err(|error| format!("{place} = {bind:?}: {error}"))?;
    lines.add("netbird_bind", bind, place);

    let exposed = said.text("exposed-address");
    let exposed = exposed.ok_or("NB_EXPOSED_ADDRESS (or --exposed-address) is missing")?;
    let place = said.place("exposed-address");
    let _: ExposedAddress =
        exposed.parse().map_err(|error| format!("{place} = {exposed:?}: {error}"))?;
    lines.add("netbird_exposed_address", exposed, place);

    let names = said.items("letsencrypt-domains");
    let pair = ["tls-cert-file", "tls-key-file"].map(|name| said.text(name));
    let has_tls = match pair {
        [Some(cert), Some(key)] => {
            lines.add("netbird_tls_cert", cert, said.place("tls-cert-file"));
            lines.add("netbird_tls_key", key, said.place("tls-key-file"));
            if !names.is_empty() {
                return Err(format!(
                    "{} and {} are both there; leave one of them out",
                    said.place("tls-cert-file"),
                    said.place("letsencrypt-domains"),
                ));
            }
            true
        }
        [None, None] => {
            let place = said.place("letsencrypt-domains");
            for name in &names {
                let _: AcmeName =
                    name.parse().map_err(|error| format!("{place}: `{name}` is {error}"))?;
            }
            if !names.is_empty() {
                lines.add("netbird_acme", names.clone(), place);
                if let Some(email) = said.text("letsencrypt-email") {
                    let contact = vec![format!("mailto:{email}")];
                    lines.add("acme_contact", contact, said.place("letsencrypt-email"));
                }
            }
            !names.is_empty()
        }
        [cert, _] => {
            let missing = if cert.is_some() { "tls-key-file" } else { "tls-cert-file" };
            return Err(format!("{missing} is missing: a certificate and its key belong together"));
        }
    };
    if !has_tls && !address.is_local() {
        lines.add("public_plaintext", true, "there is no TLS: behind a proxy that ends it");
    }
    Ok(())
}

/// The secret, where it was said itself, and the line that names its file.
fn secret(
    said: &Said,
    secret_file: Option<&Path>,
    lines: &mut Lines,
) -> Result<Option<String>, String> {
    if let Some(file) = said.text("auth-secret-file") {
        lines.add("netbird_auth_secret_file", file, said.place("auth-secret-file"));
        return Ok(None);
    }
    let secret = said.text("auth-secret");
    let secret = secret.ok_or("NB_AUTH_SECRET (or --auth-secret) is missing")?;
    if secret.trim() != secret || secret.contains(['\n', '\r']) {
        return Err(format!(
            "{}: a secret that begins or ends with a space, or has several lines, cannot stand in a \
             file; change it at the management server as well",
            said.place("auth-secret")
        ));
    }
    let file = secret_file.map_or_else(|| SECRET_FILE.into(), |file| file.display().to_string());
    let place = if secret_file.is_some() {
        format!("{} is in it", said.place("auth-secret"))
    } else {
        format!("write {} to it, chmod 600; --secret-file does that", said.place("auth-secret"))
    };
    lines.add("netbird_auth_secret_file", file, &place);
    Ok(Some(secret.to_owned()))
}

/// Proxies and STUN.
fn for_clients(said: &Said, lines: &mut Lines) -> Result<(), String> {
    let proxies = said.items("trusted-proxies");
    let place = said.place("trusted-proxies");
    for proxy in &proxies {
        let _: IpNet = proxy.parse().map_err(|error| format!("{place}: `{proxy}` is {error}"))?;
    }
    if !proxies.is_empty() {
        lines.add("trusted_proxy", proxies, place);
    }
    if said.is_on("enable-stun") {
        let ports = said.items("stun-ports");
        let ports = if ports.is_empty() { vec!["3478"] } else { ports };
        let mut binds = Vec::new();
        for port in ports {
            let number: Result<u16, _> = port.parse();
            number.map_err(|_| format!("{}: `{port}` is no port", said.place("stun-ports")))?;
            binds.push(format!(":{port}"));
        }
        lines.add("stun_bind", binds, said.place("enable-stun"));
    }
    Ok(())
}

/// Health, metrics and the log.
fn for_operators(said: &Said, lines: &mut Lines) -> Result<(), String> {
    match said.text("health-listen-address") {
        Some(health) => {
            let place = said.place("health-listen-address");
            match health.parse::<WssBind>() {
                Ok(WssBind::Tcp(_)) => lines.add("netbird_health_bind", health, place),
                Ok(WssBind::Unix(_)) | Err(_) => {
                    return Err(format!("{place} = {health:?}: not IP:PORT, such as :9000"));
                }
            }
        }
        None if said.is_openzro => {}
        None => lines.add("netbird_health_bind", ":9000", "its default"),
    }
    if let Some(port) = said.text("metrics-port") {
        let place = said.place("metrics-port");
        let _: u16 = port.parse().map_err(|_| format!("{place} = {port:?}: no port"))?;
        lines.add("admin_bind", format!(":{port}"), &format!("{place}: close it to the outside"));
    }
    if let Some(level) = said.text("log-level") {
        let ours = match level {
            "panic" | "fatal" | "error" => "error",
            "warn" | "warning" => "warn",
            "info" => "info",
            "debug" => "debug",
            "trace" => "trace",
            other => return Err(format!("{} = {other:?}: no level", said.place("log-level"))),
        };
        lines.add("log_level", ours, said.place("log-level"));
    }
    Ok(())
}

/// A line for each setting that does nothing here.
fn without_counterpart(said: &Said) -> String {
    let mut text = String::new();
    for name in said.names().filter(|name| !KNOWN.contains(name)) {
        // The log at the console is where ours is.
        if name == "log-file" && matches!(said.text(name), Some("console" | "") | None) {
            continue;
        }
        let reason = NONE.iter().find(|(none, _)| *none == name);
        let reason = reason.map_or("no setting of a relay that is known here", |(_, why)| why);
        // Writing to a string does not fail.
        let _ = writeln!(text, "# {}: {reason}", said.place(name));
    }
    text
}
