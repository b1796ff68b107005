//! A configuration that is read again: what differs, what takes effect, what waits.

use super::*;

fn flags(flags: &[&str]) -> Loaded {
    Said { flags, ..Said::default() }.loaded()
}

pub(super) fn texts(changes: &[Change]) -> Vec<(&str, &str, &str)> {
    changes.iter().map(|change| (&*change.key, &*change.old, &*change.new)).collect()
}

#[test]
fn live_settings_take_effect_and_the_others_wait() {
    let old = flags(&["--relay-rate=5", "--peers=a:1", "--max-nodes=7"]);
    let file = "relay_rate = 6\nidle_timeout = \"80s\"\nudp_bind = \":1\"\nmax_nodes = 7\n\
                beacon_id = 4\ntrusted_proxy = [\"10.0.0.0/8\", \"::1\"]";
    let new = Said { file, ..Said::default() }.loaded();
    let (in_force, difference) = old.updated(&new);
    assert_eq!(
        texts(&difference.applied),
        [
            ("trusted_proxy", "127.0.0.0/8,::1/128", "10.0.0.0/8,::1"),
            ("idle_timeout", "90s", "80s"),
            ("relay_rate", "5", "6"),
            ("peers", "a:1", ""),
        ]
    );
    assert_eq!(
        texts(&difference.needs_restart),
        [("udp_bind", "[::]:9001", ":1"), ("beacon_id", "0", "4")]
    );
    let Config { relay_rate, udp_bind, beacon_id, .. } = in_force.config;
    assert_eq!((relay_rate, beacon_id), (6, BeaconId(0)));
    assert_eq!(udp_bind, old.config.udp_bind);

    // What waits is told again, until the restart; what is in force is not.
    let (_, again) = old.updated(&new).0.updated(&new);
    assert_eq!(again, Difference { applied: Vec::new(), ..difference });
}

#[test]
fn value_that_is_only_written_otherwise_is_no_change() {
    let new = flags(&["--idle-timeout=90000ms", "--udp-bind=[::]:9001", "--peers="]);
    assert_eq!(flags(&[]).updated(&new).1, Difference::default());
}

#[test]
fn proxies_stay_trusted_while_the_listener_stays_local() {
    let new = flags(&["--wss-bind=0.0.0.0:443", "--public-plaintext"]);
    assert!(new.config.trusted_proxies.is_empty());
    let (in_force, difference) = flags(&[]).updated(&new);
    assert_eq!(in_force.config.trusted_proxies, IpNet::LOOPBACK);
    let keys: Vec<_> = difference.needs_restart.iter().map(|change| &*change.key).collect();
    assert_eq!((difference.applied, &*keys), (vec![], &["wss_bind", "public_plaintext"] as &[_]));
}

#[test]
fn cluster_and_registry_wait_and_no_secret_is_told() {
    let token = NamedTempFile::new().unwrap();
    fs::write(token.path(), "hunter2").unwrap();
    let file = format!("--registry-admin-token-file={}", token.path().display());
    let old = flags(&["--registry=r:1", &file, "--cluster-nats=nats://u:hunter2@a"]);
    fs::write(token.path(), "hunter3").unwrap();
    let new = flags(&["--registry=r:1", &file, "--cluster-nats=nats://u:hunter3@a"]);
    let (_, difference) = old.updated(&new);
    assert_eq!(difference.applied, []);
    assert_eq!(
        texts(&difference.needs_restart),
        [
            ("cluster_nats", "nats://***@a", "nats://***@a"),
            ("registry_admin_token_file", "(hidden)", "(hidden)"),
        ]
    );
}

#[test]
fn each_live_setting_can_be_taken_over() {
    let mut old = flags(&[]).config;
    let new = flags(&[
        "--audit=required",
        "--trusted-proxy=10.0.0.1",
        "--allow-origin=https://a.test",
        "--relay-name=a.test",
        "--min-auth-generation=2",
        "--auth-timeout=1s",
        "--max-peers=7",
        "--upgrade-rate=7",
        "--upgrade-burst=7",
        "--idle-timeout=2s",
        "--ping-interval=1s",
        "--pong-timeout=1s",
        "--write-timeout=1s",
        "--drain-time=1s",
        "--outbox-bytes=20000",
        "--outbox-age=1s",
        "--max-nodes=7",
        "--relay-rate=7",
        "--relay-bytes=7",
        "--discover-rate=7",
        "--discover-burst=7",
        "--udp-sender-check=observed",
        "--punch-rate=7",
        "--punch-allow=10.0.0.1",
        "--require-punch-grant",
        "--peers=a:1",
        "--open-gossip",
        "--canary-interval=1s",
        "--log-level=warn",
    ]);
    // Those of a door are there with it: tests/it/netbird. Those of the bus are a value of their own.
    let others = [
        "netbird_",
        "peerbus_",
        "middleman_",
        "keyop_",
        "bus_",
        "audit_retention",
        "audit_max_bytes",
    ];
    let is_other = |key: &&str| others.iter().any(|other| key.starts_with(other));
    let live: Vec<_> = live_settings().filter(|key| !is_other(key)).collect();
    assert_eq!(old.differing(&new.config), live);
    old.take_live(&new.config);
    assert_eq!(old, new.config);
}
