//! What each setting of a keyop-messenger hub's YAML file is here.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::Value;
use yaml_rust2::{Yaml, YamlLoader};

use super::compose::has_too_many_aliases;
use super::lines::Lines;
use crate::config::WssBind;

/// The address that the original's example listens at.
const LISTEN: &str = ":7740";

/// Bytes of a megabyte, as the original counts them.
const MEGABYTE: i64 = 1 << 20;

/// Settings without a counterpart, and why.
const WITHOUT: [(&str, &str); 17] = [
    ("name", "the common name of the certificate says it"),
    ("storage.offset_flush_interval_ms", "a cursor moves in the commit of an acknowledgement"),
    ("storage.compaction_threshold_mb", "records go once every peer that subscribes has them"),
    ("storage.dead_letter_compaction_threshold_mb", "dead letters go by dead_letter_retention"),
    ("storage.max_subscriber_lag_mb", "keyop.channel_bytes bounds a channel"),
    ("subscribers.max_retries", "of subscribers within the program; here keyop.ack_attempts"),
    ("subscribers.retry_backoff_base_ms", "of subscribers within the program"),
    ("subscribers.retry_backoff_max_ms", "of subscribers within the program"),
    ("tls.expiry_warn_days", "the alert on a certificate's end says when"),
    ("tls.min_version", "TLS 1.3 alone"),
    ("federation.reconnect_base_ms", "500 ms, doubled to 60 s"),
    ("federation.reconnect_max_ms", "500 ms, doubled to 60 s"),
    ("federation.reconnect_jitter", "20 %"),
    ("federation.send_buffer_messages", "what waits for a hub is on the disk"),
    ("dedup.seen_id_lru_size", "the ids of an hour are known, 131,072 at most"),
    ("audit.max_size_mb", "keyop.audit_file has the events, as lines of the same form"),
    ("audit.max_files", "keyop.audit_file has the events, as lines of the same form"),
];

/// The settings of a file, each by the path of its keys, until they are taken.
struct Said<'a>(BTreeMap<String, &'a Yaml>);

impl<'a> Said<'a> {
    fn read(root: &'a Yaml) -> Self {
        let mut said = BTreeMap::new();
        gather(root, "", &mut said);
        Self(said)
    }

    fn take(&mut self, path: &str) -> Option<&'a Yaml> {
        self.0.remove(path)
    }

    fn text(&mut self, path: &str) -> Result<Option<&'a str>, String> {
        let Some(value) = self.take(path) else { return Ok(None) };
        let text = value.as_str().ok_or_else(|| format!("{path}: no text"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn number(&mut self, path: &str) -> Result<Option<i64>, String> {
        let Some(value) = self.take(path) else { return Ok(None) };
        let number = value.as_i64().filter(|number| *number >= 0);
        number.map(Some).ok_or_else(|| format!("{path}: no whole number of 0 or more"))
    }

    fn truth(&mut self, path: &str) -> Result<bool, String> {
        let Some(value) = self.take(path) else { return Ok(false) };
        value.as_bool().ok_or_else(|| format!("{path}: neither true nor false"))
    }

    fn list(&mut self, path: &str) -> Result<&'a [Yaml], String> {
        match self.take(path) {
            None | Some(Yaml::Null) => Ok(&[]),
            Some(value) => {
                value.as_vec().map(Vec::as_slice).ok_or_else(|| format!("{path}: no list"))
            }
        }
    }

    /// Adds a number that is not the original's word for "as usual", 0.
    fn put(&mut self, lines: &mut Lines, path: &str, key: &str) -> Result<(), String> {
        if let Some(number) = self.number(path)?.filter(|number| *number > 0) {
            lines.add(key, number, path);
        }
        Ok(())
    }
}

/// The leaves of a mapping: scalars and lists.
fn gather<'a>(yaml: &'a Yaml, before: &str, said: &mut BTreeMap<String, &'a Yaml>) {
    let Some(mapping) = yaml.as_hash() else {
        said.insert(before.to_owned(), yaml);
        return;
    };
    for (key, value) in mapping {
        let key = key.as_str().unwrap_or("?");
        let path = if before.is_empty() { key.to_owned() } else { format!("{before}.{key}") };
        gather(value, &path, said);
    }
}

/// Translates a hub's file into a configuration.
///
/// # Errors
/// It is none, or says what means nothing here.
pub(super) fn migrate(text: &str) -> Result<String, String> {
    if has_too_many_aliases(text) {
        return Err("too many aliases; write out what they stand for".to_owned());
    }
    let documents = YamlLoader::load_from_str(text).map_err(|error| format!("no YAML: {error}"))?;
    let root = documents.first().filter(|root| root.as_hash().is_some());
    let mut said = Said::read(root.ok_or("it has no settings")?);
    let (is_hub, is_client) = (said.truth("hub.enabled")?, said.truth("client.enabled")?);
    if !is_hub && !is_client {
        return Err("neither hub.enabled nor client.enabled is true: nothing to replace".to_owned());
    }

    let mut lines =
        Lines("# The settings of a keyop-messenger hub, for `beacon-relay serve`.\n\n".to_owned());
    let listen = said.text("hub.listen_addr")?;
    let place = listen.map_or("its example's: hub.listen_addr is not set", |_| "hub.listen_addr");
    let bind = listen.unwrap_or(LISTEN);
    bind.parse::<WssBind>().map_err(|error| format!("{place} = {bind:?}: {error}"))?;
    if is_hub {
        lines.add("keyop_bind", bind, place);
    } else {
        // Hubs are reached with the certificate of the door, and nobody else reaches that.
        lines.add("keyop_bind", "127.0.0.1:7740", "hub.enabled is false: for this machine alone");
    }
    for (path, key) in
        [("tls.cert", "keyop_cert"), ("tls.key", "keyop_key"), ("tls.ca", "keyop_client_ca")]
    {
        let file = said.text(path)?.ok_or_else(|| format!("{path} is missing"))?;
        lines.add(key, file, path);
    }
    durability(&mut said, &mut lines)?;
    let peers = said.list("hub.allowed_peers")?;
    lines.0.push_str("\n[keyop]\n");
    said.put(&mut lines, "federation.max_batch_bytes", "max_record")?;
    times(&mut said, &mut lines)?;
    let segment = said.0.get("storage.compaction_threshold_mb").and_then(|mb| mb.as_i64());
    let files = said.number("storage.max_files")?.filter(|files| *files > 0);
    if let Some(bytes) = files
        .and_then(|files| files.checked_mul(segment.unwrap_or(100).max(1))?.checked_mul(MEGABYTE))
    {
        let place = "storage.max_files × storage.compaction_threshold_mb";
        lines.add("channel_bytes", bytes, place);
    }
    if is_hub {
        peers_of(peers, &mut lines)?;
    }
    let hubs = said.list("client.hubs")?;
    if is_client {
        hubs_of(hubs, &mut lines)?;
    }
    let data = said.text("storage.data_dir")?;
    Ok(lines.0 + &without(&said, data))
}

/// When the disk has what was acknowledged.
fn durability(said: &mut Said<'_>, lines: &mut Lines) -> Result<(), String> {
    let every = said.number("storage.sync_interval_ms")?;
    let policy = said.text("storage.sync_policy")?;
    let (value, place) = match (every, policy) {
        (_, Some("none")) => ("none", "storage.sync_policy"),
        (Some(1..), _) => ("interval", "storage.sync_interval_ms; here it is 200 ms"),
        (_, Some("periodic")) => ("interval", "storage.sync_policy"),
        (Some(_), _) => ("always", "storage.sync_interval_ms = 0"),
        (None, _) => ("always", "the default of storage.sync_interval_ms"),
    };
    lines.add("bus_durability", value, place);
    Ok(())
}

/// The times of a hub, which Go writes as `168h` or `1h30m`.
fn times(said: &mut Said<'_>, lines: &mut Lines) -> Result<(), String> {
    for (path, key) in
        [("hub.fed_client_offset_ttl", "cursor_expiry"), ("storage.retention", "retention")]
    {
        let Some(value) = said.take(path) else { continue };
        let milliseconds = match value.as_str() {
            Some(text) => go_duration(text),
            None => value.as_i64().filter(|number| *number == 0).map(|_| 0),
        };
        let milliseconds =
            milliseconds.ok_or_else(|| format!("{path}: no time such as 168h or 1h30m"))?;
        if milliseconds > 0 {
            lines.add(key, format!("{}s", milliseconds.div_ceil(1_000)), path);
        }
    }
    Ok(())
}

/// A time as Go writes it, in milliseconds.
fn go_duration(text: &str) -> Option<u64> {
    let (mut rest, mut total) = (text, 0_u64);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| c.is_ascii_digit()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(unit);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(milliseconds)?)?;
        rest = behind;
    }
    (!text.is_empty()).then_some(total)
}

/// The channels of an entry.
fn channels(entry: &Yaml, key: &str, of: &str) -> Result<Value, String> {
    let value = &entry[key];
    let listed = if value.is_null() || value.is_badvalue() {
        &[][..]
    } else {
        value.as_vec().ok_or_else(|| format!("{of}.{key}: no list"))?
    };
    let names = listed.iter().map(|name| {
        name.as_str().map(Value::from).ok_or_else(|| format!("{of}.{key}: no name of a channel"))
    });
    names.collect::<Result<Vec<_>, _>>().map(Value::from)
}

fn peers_of(peers: &[Yaml], lines: &mut Lines) -> Result<(), String> {
    for (peer, number) in peers.iter().zip(1..) {
        let place = format!("hub.allowed_peers, entry {number}");
        let name = peer["name"].as_str().ok_or_else(|| format!("{place}: its name is missing"))?;
        lines.0.push_str("\n[[keyop.peer]]\n");
        lines.add("name", name, &place);
        lines.add("subscribe", channels(peer, "subscribe", &place)?, "none listed: any");
        lines.add("publish", channels(peer, "publish", &place)?, "none listed: any");
    }
    if peers.is_empty() {
        lines.0.push_str(
            "\n# hub.allowed_peers has no entry. Here, each certificate of the CA may then subscribe and\n\
             # publish everywhere: list the peers in [[keyop.peer]], name, subscribe, publish\n",
        );
    }
    Ok(())
}

fn hubs_of(hubs: &[Yaml], lines: &mut Lines) -> Result<(), String> {
    for (hub, number) in hubs.iter().zip(1..) {
        let place = format!("client.hubs, entry {number}");
        let address = hub["addr"].as_str().ok_or_else(|| format!("{place}: addr is missing"))?;
        lines.0.push_str("\n[[keyop.hub]]\n");
        lines.add("address", address, &place);
        lines.add("subscribe", channels(hub, "subscribe", &place)?, "what comes from it");
        lines.add("publish", channels(hub, "publish", &place)?, "what it gets");
    }
    if hubs.is_empty() {
        return Err("client.enabled is true, and client.hubs has no entry".to_owned());
    }
    Ok(())
}

/// What is left of a file, as remarks.
fn without(said: &Said<'_>, data: Option<&str>) -> String {
    let mut remarks = String::from("\n# Without a counterpart:\n");
    for path in said.0.keys() {
        let reason = WITHOUT.iter().find(|(known, _)| known == path);
        let reason = reason.map_or("no setting of a hub that is known", |(_, reason)| reason);
        // Writing to a string does not fail.
        let _ = writeln!(remarks, "# {}: {reason}", path.escape_debug());
    }
    if let Some(data) = data {
        let _ = writeln!(
            remarks,
            "# storage.data_dir: records are kept in the state folder. What is in {data:?} is taken over, while\n\
             # neither of the two runs, by `beacon-relay migrate keyop FILE --data {data:?}`"
        );
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = "\
storage:
  data_dir: /var/lib/keyop
  sync_interval_ms: 200
  max_files: 4
  compaction_threshold_mb: 50
  retention: 1h30m
hub:
  enabled: true
  listen_addr: 0.0.0.0:7740
  fed_client_offset_ttl: 168h
  allowed_peers:
    - name: alpha
      subscribe: [alerts]
      publish: [orders, alerts]
    - name: beta
tls: { cert: hub.crt, key: hub.key, ca: ca.crt, expiry_warn_days: 30 }
federation: { max_batch_bytes: 4194304 }
dedup: { seen_id_lru_size: 0 }
audit: { max_size_mb: 100 }
\"a\\nb\": 1
";

    fn settings(toml: &str) -> Vec<&str> {
        toml.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect()
    }

    #[test]
    fn file_of_a_hub_becomes_a_configuration() {
        let toml = migrate(HUB).unwrap();
        let bare = |line: &str| line.split(" # ").next().unwrap_or_default().to_owned();
        let lines: Vec<_> = settings(&toml).into_iter().map(bare).collect();
        assert_eq!(
            lines,
            [
                "keyop_bind = \"0.0.0.0:7740\"",
                "keyop_cert = \"hub.crt\"",
                "keyop_key = \"hub.key\"",
                "keyop_client_ca = \"ca.crt\"",
                "bus_durability = \"interval\"",
                "[keyop]",
                "max_record = 4194304",
                "cursor_expiry = \"604800s\"",
                "retention = \"5400s\"",
                "channel_bytes = 209715200",
                "[[keyop.peer]]",
                "name = \"alpha\"",
                "subscribe = [\"alerts\"]",
                "publish = [\"orders\", \"alerts\"]",
                "[[keyop.peer]]",
                "name = \"beta\"",
                "subscribe = []",
                "publish = []",
            ]
        );
        assert!(toml.contains("--data \"/var/lib/keyop\""), "{toml}");
        assert!(toml.contains("# tls.expiry_warn_days: the alert"), "{toml}");
        assert!(toml.contains("# a\\nb: no setting of a hub"), "{toml}");
        assert!(toml.parse::<toml::Table>().is_ok(), "{toml}");
    }

    #[test]
    fn hubs_of_a_client_are_hubs_of_the_relay() {
        let text = "client: { enabled: true, hubs: [{ addr: 'h:7740', subscribe: [a], publish: [b] }] }\n\
                    tls: { cert: a, key: b, ca: c }\nstorage: { sync_policy: periodic }\n";
        let toml = migrate(text).unwrap();
        assert!(toml.contains("keyop_bind = \"127.0.0.1:7740\" "), "{toml}");
        assert!(toml.contains("[[keyop.hub]]\naddress = \"h:7740\" "), "{toml}");
        assert!(toml.contains("bus_durability = \"interval\" "), "{toml}");
    }

    #[test]
    fn what_cannot_be_translated_is_named() {
        let tls = "tls: { cert: a, key: b, ca: c }\n";
        for (text, reason) in [
            ("a: [", "no YAML"),
            ("", "no settings"),
            ("hub: { enabled: false }", "nothing to replace"),
            ("hub: { enabled: maybe }", "hub.enabled: neither"),
            ("hub: { enabled: true }", "tls.cert is missing"),
            ("hub: { enabled: true, listen_addr: 'x' }", "hub.listen_addr = \"x\""),
            (&format!("{tls}hub: {{ enabled: true, allowed_peers: [{{}}] }}"), "entry 1"),
            (&format!("{tls}hub: {{ enabled: true, allowed_peers: 7 }}"), "no list"),
            (&format!("{tls}hub: {{ enabled: true, fed_client_offset_ttl: 7x }}"), "no time"),
            (&format!("{tls}client: {{ enabled: true }}"), "client.hubs has no entry"),
            (&format!("{tls}hub: {{ enabled: true }}\nstorage: {{ max_files: -1 }}"), "0 or more"),
        ] {
            let error = migrate(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
        assert_eq!(go_duration("1h30m"), Some(5_400_000));
        assert_eq!((go_duration(""), go_duration("7"), go_duration("h")), (None, None, None));
    }
}
