//! The proxy's configuration: does a reload of it keep the WebSockets?
//!
//! Caddy 2.6 closes them all. 2.7 and later close them too, but for `stream_close_delay`.
//! nginx leaves them to its old workers, unless `worker_shutdown_timeout` ends those.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use super::PATIENCE;
use super::http::http_get;
use super::report::Report;

const CHECK: &str = "proxy-reload";

/// The first Caddy that can keep streams over a reload.
const KEEPS: (u32, u32) = (2, 7);

/// Checks a Caddyfile, an nginx.conf, or what Caddy's control port says.
pub(super) async fn check(source: &str, report: &mut Report) {
    let verdict = if let Some(authority) = source.strip_prefix("http://") {
        of_running_caddy(authority.trim_end_matches('/')).await
    } else {
        match fs::read_to_string(source) {
            Err(error) => Err(anyhow!("{source}: {error}")),
            Ok(text) if is_nginx(&text) => Ok(nginx(&text)),
            Ok(_) => of_caddyfile(source).await,
        }
    };
    match verdict {
        Ok(Verdict::Keeps(found)) => report.ok(CHECK, found),
        Ok(Verdict::Closes(found, remedy)) => report.warn(CHECK, found, remedy),
        Err(error) => {
            let remedy = "name a Caddyfile, an nginx.conf, or http://localhost:2019; caddy must \
                          be in the PATH";
            report.warn(CHECK, format!("cannot be checked: {error:#}"), remedy);
        }
    }
}

/// What a reload does, and what to do about it.
enum Verdict {
    Keeps(String),
    Closes(String, &'static str),
}

async fn of_caddyfile(path: &str) -> anyhow::Result<Verdict> {
    let version = caddy_version().await?;
    let adapted = caddy(&["adapt", "--adapter", "caddyfile", "--config", path]).await;
    let adapted = adapted.with_context(|| format!("Caddy {} refuses it", shown(version)))?;
    let config = serde_json::from_str(&adapted).context("what Caddy makes of it is no JSON")?;
    Ok(of_caddy(version, &config))
}

async fn of_running_caddy(authority: &str) -> anyhow::Result<Verdict> {
    let server = authority.parse().map_err(|error| anyhow!("{authority}: {error}"))?;
    let (status, body) = http_get(&server, "/config/").await?;
    if status != 200 {
        bail!("{authority} answers {status}");
    }
    let config = serde_json::from_str(&body).context("Caddy's configuration is no JSON")?;
    Ok(of_caddy(caddy_version().await?, &config))
}

fn of_caddy(version: (u32, u32), config: &Value) -> Verdict {
    const UPGRADE: &str = "plan a reload like a restart, or use Caddy 2.7 or later with \
                           deploy/Caddyfile.stream-close-delay, or nginx";
    const DELAY: &str = "add stream_close_delay to its reverse_proxy: \
                         deploy/Caddyfile.stream-close-delay";
    let version_shown = shown(version);
    if version < KEEPS {
        let found = format!("Caddy {version_shown} closes every WebSocket at a reload");
        return Verdict::Closes(found, UPGRADE);
    }
    let mut delays = Vec::new();
    close_delays(config, &mut delays);
    match delays.into_iter().min() {
        Some(delay) => Verdict::Keeps(format!(
            "Caddy {version_shown} keeps WebSockets for {} s after a reload",
            delay.as_secs()
        )),
        None => Verdict::Closes(
            format!("Caddy {version_shown} closes every WebSocket at a reload, as it is set up"),
            DELAY,
        ),
    }
}

/// The delays of all reverse proxies that have one: a machine may have other sites.
fn close_delays(config: &Value, delays: &mut Vec<Duration>) {
    match config {
        Value::Object(fields) => {
            let delay = fields.get("stream_close_delay").and_then(Value::as_u64);
            delays.extend(delay.filter(|delay| *delay > 0).map(Duration::from_nanos));
            fields.values().for_each(|value| close_delays(value, delays));
        }
        Value::Array(items) => items.iter().for_each(|item| close_delays(item, delays)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The directives of an nginx.conf, without comments.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().filter_map(|line| line.split('#').next());
    code.flat_map(|line| line.split([';', '{', '}'])).map(str::trim)
}

fn is_nginx(text: &str) -> bool {
    directives(text).any(|directive| directive.starts_with("proxy_pass "))
}

fn nginx(text: &str) -> Verdict {
    let limit = directives(text).find(|line| line.starts_with("worker_shutdown_timeout "));
    match limit {
        Some(limit) => Verdict::Closes(
            format!("nginx closes every WebSocket after a reload: {limit}"),
            "take it out: old workers then end with their last WebSocket",
        ),
        None => Verdict::Keeps("nginx leaves WebSockets to its old workers".to_owned()),
    }
}

async fn caddy_version() -> anyhow::Result<(u32, u32)> {
    let text = caddy(&["version"]).await?;
    let mut numbers = text.trim_start_matches('v').split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("`caddy version` says {text:?}"),
    }
}

fn shown((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// What a command of Caddy prints; its last words, if it fails.
async fn caddy(arguments: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new("caddy");
    let running = command.args(arguments).kill_on_drop(true).output();
    let output = timeout(PATIENCE, running).await.context("caddy takes over 10 s")?;
    let output = output.context("caddy cannot be run")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{}", said.lines().last().unwrap_or("it says nothing"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_of_any_reverse_proxy_counts_from_its_version_on() {
        let with = serde_json::json!({"routes": [
            {"handle": [{"handler": "reverse_proxy", "stream_close_delay": 86_400_000_000_000_u64}]},
            {"handle": [{"handler": "reverse_proxy"}]},
        ]});
        let without = serde_json::json!({"handler": "reverse_proxy", "stream_close_delay": 0});
        let keeps = |version, config| matches!(of_caddy(version, config), Verdict::Keeps(_));
        assert!(keeps((2, 10), &with) && keeps((2, 7), &with));
        assert!(!keeps((2, 6), &with) && !keeps((2, 10), &without));
    }

    #[test]
    fn nginx_keeps_unless_its_workers_must_end() {
        let keeps = "location / { proxy_pass http://x; } # worker_shutdown_timeout 1s;";
        let closes = "worker_shutdown_timeout 10s;\nlocation / { proxy_pass http://x; }";
        assert!(
            is_nginx(keeps) && is_nginx(closes) && !is_nginx("reverse_proxy x # proxy_pass x;")
        );
        assert!(matches!(nginx(keeps), Verdict::Keeps(_)));
        assert!(matches!(nginx(closes), Verdict::Closes(..)));
    }
}
