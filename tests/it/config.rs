//! What an operator sees of a bad setting: one line that names the key, the value and
//! the reason, and the exit code of whoever is to blame.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::wording::{assert_names_a_way_out, assert_plain};

const USAGE: i32 = 64;
const CONFIG: i32 = 78;

/// One bad value for each setting, with a part of the reason.
const BAD: [(&str, &str, &str); 113] = [
    ("state_dir", "", "write a path"),
    ("keys", "/nonexistent/keys.json", "No such file"),
    ("wss_bind", "localhost:8443", "not IP:PORT"),
    ("wss_tls_cert", "/nonexistent/cert.pem", "needs --wss-tls-key as well"),
    ("wss_tls_key", "/nonexistent/key.pem", "needs --wss-tls-cert as well"),
    ("udp_bind", "9001", "not IP:PORT"),
    ("stun_bind", "stun.example.net:3478", "`stun.example.net:3478` is not IP:PORT"),
    ("admin_bind", "127.0.0.1:99999", "not IP:PORT"),
    ("admin_host", "a b", "is not a host name"),
    ("admin_token_file", "/nonexistent/token", "cannot be read"),
    ("public_plaintext", "maybe", "neither true nor false"),
    ("trusted_proxy", "10.1.0.0/8", "write 10.0.0.0/8"),
    (
        "nat64_prefix",
        "2001:db8::/44",
        "`2001:db8::/44` is not a prefix of a translator: /44 is no length",
    ),
    ("allow_origin", "app.example.net", "not an origin"),
    ("relay_name", "relay.example.net:443", "not a host name"),
    ("min_auth_generation", "4", "from 1 to 3"),
    ("auth_timeout", "0s", "from 1ms to 24h"),
    ("max_peers", "4000000000", "descriptor limit"),
    ("upgrade_rate", "-1", "not a whole number"),
    ("upgrade_burst", "0", "from 1 to"),
    ("idle_timeout", "0s", "from 1ms to 24h"),
    ("ping_interval", "30", "such as 30s"),
    ("pong_timeout", "ten", "not a duration"),
    ("write_timeout", "0ms", "from 1ms to 24h"),
    ("drain_time", "25h", "from 0s to 24h"),
    ("outbox_bytes", "8192", "from 16384"),
    ("outbox_age", "2", "such as 2s"),
    ("max_nodes", "0", "from 1 to 10000000"),
    ("relay_rate", "4k", "not a whole number"),
    ("relay_bytes", "1.5", "not a whole number"),
    ("discover_rate", "-5", "not a whole number"),
    ("discover_burst", "0", "from 1 to"),
    ("udp_sender_check", "on", "neither off nor observed"),
    ("punch_rate", "many", "not a whole number"),
    ("punch_allow", "*,192.0.2.1", "`*` is not an address"),
    ("require_punch_grant", "2", "neither true nor false"),
    ("beacon_id", "4294967296", "not a whole number"),
    ("peers", "a:9001,b", "`b` is not HOST:PORT"),
    ("advertise_addr", "::1:9001", "needs brackets"),
    ("open_gossip", "yes", "neither true nor false"),
    ("canary_interval", "5", "such as 5s"),
    ("bind_wait", "1", "such as 1s"),
    ("free_bind", "maybe", "neither true nor false"),
    ("audit", "always", "neither best-effort nor required"),
    ("log_level", "inof", "`inof` is no level"),
    ("log_format", "xml", "neither text nor json"),
    ("registry", "registry.example.net", "the port is missing"),
    ("registry_tls", "true", "needs --registry as well"),
    ("registry_ca", "/nonexistent/ca.pem", "needs --registry as well"),
    ("registry_fingerprint", "00ff", "64 hex digits, and this has 4"),
    ("registry_admin_token_file", "/nonexistent/token", "needs --registry as well"),
    ("acme", "192.0.2.1", "`192.0.2.1` is an IP address; write the DNS name"),
    ("acme_contact", "admin@example.org", "`admin@example.org` is not a contact; write mailto:"),
    ("acme_directory", "http://ca.internal/dir", "not a directory; write its URL with https://"),
    ("acme_directory_ca", "", "write a path"),
    ("netbird_auth_secret_file", "/nonexistent/secret", "needs --netbird-exposed-address as well"),
    ("netbird_exposed_address", "relay.example.net", "write HOST:PORT"),
    ("netbird_bind", "localhost:443", "not IP:PORT"),
    ("netbird_health_bind", "9000", "not IP:PORT"),
    ("netbird_takeover", "never", "neither always nor same-address"),
    ("netbird_rate", "1k", "not a whole number"),
    ("netbird_bytes", "1.5", "not a whole number"),
    ("netbird_tls_cert", "/nonexistent/cert.pem", "needs --netbird-bind as well"),
    ("netbird_tls_key", "/nonexistent/key.pem", "needs --netbird-bind as well"),
    ("netbird_acme", "192.0.2.1", "`192.0.2.1` is an IP address; write the DNS name"),
    ("peerbus_bind", "localhost:47821", "not IP:PORT"),
    ("peerbus_tokens_file", "/nonexistent/tokens", "cannot be read"),
    ("peerbus_hmac_secret_file", "/nonexistent/secret", "needs --peerbus-tokens-file as well"),
    ("middleman_bind", "localhost:8764", "not IP:PORT"),
    ("middleman_service_keys_file", "/nonexistent/keys", "cannot be read"),
    ("middleman_client_keys_file", "/nonexistent/keys", "needs --middleman-service-keys-file"),
    ("middleman_guid", "maybe", "neither true nor false"),
    ("middleman_request_timeout", "30", "such as 30s"),
    ("middleman_max_message", "1024", "from 4096 to 1048576"),
    ("keyop_bind", "localhost:7740", "not IP:PORT"),
    ("keyop_cert", "/nonexistent/cert", "needs --keyop-bind as well"),
    ("keyop_key", "/nonexistent/key", "needs --keyop-bind as well"),
    ("keyop_client_ca", "/nonexistent/ca", "needs --keyop-bind as well"),
    ("keyop_client_crl", "/nonexistent/crl", "needs --keyop-bind as well"),
    ("keyop_name", "", "1 to 255 bytes of plain text"),
    ("keyop_max_record", "100", "from 1024 to 8388608"),
    ("keyop_ack_timeout", "30", "such as 30s"),
    ("keyop_ack_attempts", "0", "from 1 to 10000"),
    ("keyop_retention", "7", "such as 7s"),
    ("keyop_channel_bytes", "1000", "from 1048576 to"),
    ("keyop_channel_records", "0", "from 1 to 1000000000"),
    ("keyop_dead_letter_retention", "1s", "from 1h to"),
    ("keyop_cursor_expiry", "1s", "from 1h to"),
    ("keyop_audit_file", "", "write a path"),
    ("bus_nats", "http://nats.example.net", "not a URL of nats:// or tls://"),
    ("bus_nats_credentials", "/nonexistent/creds", "needs --bus-nats as well"),
    ("bus_nats_name", "my.bus", "letters, digits, - and _"),
    ("bus_nats_replicas", "6", "from 1 to 5"),
    ("bus_nats_max_bytes", "1000", "from 67108864 to 1000000000000"),
    ("bus_durability", "often", "neither always, interval nor none"),
    ("bus_quota_messages", "0", "from 1 to 1000000000"),
    ("bus_quota_bytes", "1048576", "from 2097152 to"),
    ("bus_retention", "7", "such as 7s"),
    ("bus_window", "5000", "from 1 to 4096"),
    ("audit_checkpoint_file", "", "write a path"),
    ("audit_max_bytes", "1000", "from 134217728 to 1000000000000"),
    ("audit_retention", "0s", "from 1h to 3650d"),
    ("registry_connections", "0", "from 1 to 16"),
    ("cluster_bind", "localhost:9100", "not IP:PORT"),
    ("cluster_join", "a:9100,b", "`b` is not HOST:PORT"),
    ("cluster_dns", "relays.example.net:0", "the port is no number"),
    ("cluster_secret_file", "/nonexistent/secret", "needs --cluster-bind as well"),
    ("cluster_allow", "00ff", "`00ff` is not a relay's id"),
    ("cluster_tcp", "maybe", "neither true nor false"),
    ("cluster_keepalive", "10ms", "from 100ms to 5m"),
    ("cluster_nats", "http://nats.example.net", "not a URL of nats:// or tls://"),
    ("cluster_nats_credentials", "/nonexistent/creds", "needs --cluster-nats as well"),
    ("cluster_name", "my.beacon", "letters, digits, - and _"),
];

/// The program, without anything of the environment of the tests.
fn relay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").env("RUST_BACKTRACE", "1");
    command
}

/// The single line on stderr of a run that must fail with `code`.
fn refused(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {line}");
    assert_eq!(line.lines().count(), 1, "{command:?}: {line}");
    assert!(!line.contains("panicked"), "{command:?}: {line}");
    assert_plain("a refusal", &line);
    assert_names_a_way_out(&line);
    assert!(output.stdout.is_empty(), "{command:?}");
    line
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// 78 where the file that a flag names is to blame, whoever gave the flag.
fn code_of(key: &str) -> i32 {
    let names_a_file = ["keys", "admin_token_file", "peerbus_tokens_file"].contains(&key)
        || key == "middleman_service_keys_file";
    if names_a_file { CONFIG } else { USAGE }
}

#[test]
fn each_bad_flag_is_one_line_with_key_value_and_reason() {
    for (key, value, reason) in BAD {
        let flag = format!("--{}", key.replace('_', "-"));
        let line = refused(&mut relay(&["check-config", &format!("{flag}={value}")]), code_of(key));
        assert!(line.contains(&format!("{flag} = \"{value}\": ")), "{line}");
        assert!(line.contains(reason), "{line}");
    }
}

#[test]
fn each_bad_variable_is_one_line_with_key_value_and_reason() {
    // An empty variable is not set.
    for (key, value, reason) in BAD.into_iter().filter(|(_, value, _)| !value.is_empty()) {
        let name = format!("BEACON_RELAY_{}", key.to_uppercase());
        let line = refused(relay(&["check-config"]).env(&name, value), code_of(key));
        assert!(line.contains(reason), "{line}");
        assert!(line.contains(&format!("{name} = \"{value}\": ")), "{line}");
    }
}

#[test]
fn each_bad_value_of_the_file_is_one_line_with_its_number() {
    let folder = TempDir::new().unwrap();
    for (key, value, reason) in BAD {
        let file = write(&folder, "relay.toml", &format!("# a comment\n{key} = \"{value}\"\n"));
        let line = refused(&mut relay(&["check-config", "--config", &file]), CONFIG);
        assert!(line.contains(reason), "{line}");
        assert!(line.contains(&format!("{file}: line 2: {key} = \"{value}\": ")), "{line}");
    }
}

#[test]
fn every_flag_of_the_help_has_a_bad_value_here() {
    let help = stdout(&relay(&["serve", "--help"]).output().unwrap());
    let flags = help.lines().filter_map(|line| line.trim().strip_prefix("--"));
    let flags: Vec<_> = flags
        .filter_map(|line| line.split([' ', '[']).next())
        .map(|flag| flag.replace('-', "_"))
        .filter(|flag| flag != "config")
        .collect();
    assert_eq!(flags.len(), BAD.len());
    for flag in flags {
        assert!(BAD.iter().any(|(key, ..)| *key == flag), "{flag}");
    }
}

#[test]
fn listeners_of_the_document_are_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURE.md");
    let document = fs::read_to_string(path).unwrap();
    let (_, section) = document.split_once("\n## More than one listener\n").unwrap();
    let (_, example) = section.split_once("\n```toml\n").unwrap();
    let folder = TempDir::new().unwrap();
    let sockets = folder.path().display().to_string();
    let example = example.split("\n```").next().unwrap().replace("/run/beacon-relay", &sockets);
    let file = write(&folder, "relay.toml", &example);
    let output = relay(&["check-config", "--config", &file]).output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let printed = stdout(&output);
    assert_eq!(printed.matches("\n[[listener]]\n").count(), 2, "{printed}");
    assert!(printed.contains("\nwss_bind = \"127.0.0.1:8443\" # by "), "{printed}");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    let hex = "ab".repeat(32);
    for (flags, part) in [
        (&["--wss-bind=0.0.0.0:8443"] as &[_], "--wss-bind = \"0.0.0.0:8443\": "),
        (&["--min-auth-generation=3"], "--relay-name"),
        (&["--beacon-id=7", "--registry=r:9000"], "--advertise-addr"),
        (
            &["--registry=r:9", "--registry-ca=/c", "--registry-fingerprint", &hex],
            "cannot be combined",
        ),
        (&["--cluster-bind=:9100"], "--cluster-secret-file or --cluster-allow"),
        (&["--cluster-bind=:9100", "--cluster-nats=nats://n"], "cannot be combined"),
    ] {
        let line = refused(relay(&["check-config"]).args(flags), USAGE);
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn bad_file_that_a_flag_names_exits_78() {
    let folder = TempDir::new().unwrap();
    let empty = write(&folder, "empty", "\n");
    let broken = write(&folder, "keys.json", "{\"7\": 7}");
    let short = write(&folder, "short", "fifteen bytes..");
    let missing = folder.path().join("missing");
    let missing = missing.to_str().unwrap();
    let registry = "--registry=r:9000";
    for (flag, path, more) in [
        ("--registry-ca", &*empty, &[registry] as &[_]),
        ("--registry-ca", missing, &[registry]),
        ("--registry-admin-token-file", &empty, &[registry]),
        ("--registry-admin-token-file", missing, &[registry]),
        ("--admin-token-file", &empty, &[]),
        ("--admin-token-file", &short, &[]),
        ("--admin-token-file", missing, &[]),
        ("--keys", &broken, &[]),
        ("--config", missing, &[]),
        ("--config", folder.path().to_str().unwrap(), &[]),
        ("--state-dir", &empty, &[]),
    ] {
        let line = refused(relay(&["check-config", flag, path]).args(more), CONFIG);
        assert!(line.contains(&format!("{flag} = \"{path}\": ")), "{line}");
    }
}

#[test]
fn configuration_file_is_refused_with_the_line() {
    let folder = TempDir::new().unwrap();
    for (text, part) in [
        ("idle_timout = \"90s\"", "did you mean idle_timeout?"),
        ("idle_timeout = 90", "such as 90s"),
        ("idle_timeout = \"90s", "line 1"),
        ("idle_timeout = [\"1s\", \"2s\"]", "not a list"),
        ("[listener]\nwss_bind = \":1\"", "listener"),
    ] {
        let file = write(&folder, "relay.toml", text);
        let line = refused(&mut relay(&["check-config", "--config", &file]), CONFIG);
        assert!(line.contains(&format!("{file}: line 1: ")) && line.contains(part), "{line}");
        refused(relay(&["check-config"]).env("BEACON_RELAY_CONFIG", &file), CONFIG);
    }
}

#[test]
fn bad_table_of_a_listener_is_one_line_and_exits_78() {
    let folder = TempDir::new().unwrap();
    let good = "[[listener]]\nbind = \"127.0.0.1:8444\"\ndoors = [\"pilot\"]\n";
    for (more, part) in [
        ("tls = [{ cert = \"a\", key = \"b\" }]", "line 4: listener[1].tls = "),
        ("tls_client_ca = \"a\"", "line 4: listener[1].tls_client_ca = "),
        ("acme = [\"*.relay.test\"]", "line 4: listener[1].acme = \"*.relay.test\": "),
        ("path = \"/bus\"", "listener[1].path = \"/bus\": pilot has fixed paths"),
        ("doors = [\"pilot\"]", "line 4: duplicate key"),
        (good, "line 5: listener[2].bind = \"127.0.0.1:8444\": that is listener[1].bind already"),
        ("[[listener]]\nbind = \":8445\"\ndoors = [\"pilot\"]", "listener[2].bind = \":8445\": "),
    ] {
        let file = write(&folder, "relay.toml", &format!("{good}{more}\n"));
        let line = refused(&mut relay(&["check-config", "--config", &file]), CONFIG);
        assert!(line.contains(part), "{line}");
    }
    // The flag is right, and the table is not.
    let file = write(&folder, "relay.toml", good);
    let both = ["check-config", "--config", &file, "--wss-bind=127.0.0.1:8444"];
    let line = refused(&mut relay(&both), CONFIG);
    assert!(line.contains("that is the address of --wss-bind"), "{line}");
}

#[test]
fn each_mistake_is_a_line() {
    let folder = TempDir::new().unwrap();
    let file = write(&folder, "relay.toml", "idle_timout = \"90s\"\nmax_nodes = 0\n");
    let mut command = relay(&["serve", "--config", &file]);
    let output = command.env("BEACON_RELAY_KEY", "x").output().unwrap();
    let lines = String::from_utf8(output.stderr).unwrap();
    let lines: Vec<_> = lines.lines().collect();
    assert_eq!((output.status.code(), lines.len()), (Some(USAGE), 3), "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("beacon-relay: ")), "{lines:?}");
    let all = lines.join("\n");
    for part in ["line 1: idle_timout", "BEACON_RELAY_KEY = \"x\"", "line 2: max_nodes"] {
        assert!(all.contains(part), "{all}");
    }
}

#[test]
fn misused_command_line_is_one_line_and_exits_64() {
    for (arguments, part) in [
        (&[] as &[_], "subcommand"),
        (&["sreve"], "sreve"),
        (&["serve", "--idle-timout=1s"], "--idle-timeout"),
        (&["serve", "-c", "x"], "-c"),
        (&["check-config", "--keys"], "--keys"),
        (&["check-config", "--max-peers=1", "--max-peers=2"], "--max-peers"),
        (&["enroll", "0", "AAAA"], "`0` is not a node id"),
        (&["enroll", "7", "AAAA"], "32 bytes"),
    ] {
        let line = refused(&mut relay(arguments), USAGE);
        assert!(line.contains(part), "{line}");
    }
}

#[test]
fn help_and_version_exit_0() {
    for arguments in
        [&["--help"] as &[_], &["serve", "--help"], &["--version"], &["help", "keygen"]]
    {
        assert!(stdout(&relay(arguments).output().unwrap()).len() > 10);
    }
}

#[test]
fn valid_configuration_is_printed_as_a_file_that_is_valid() {
    let folder = TempDir::new().unwrap();
    let keys = write(&folder, "keys.json", "{}");
    let flags = ["check-config", "--keys", &keys, "--peers=a:9001,b:9001", "--udp-bind=:9001"];
    let printed = stdout(&relay(&flags).output().unwrap());
    assert!(printed.contains("configuration is valid"), "{printed}");
    assert!(printed.contains("peers = [\"a:9001\", \"b:9001\"] # by a flag\n"), "{printed}");

    let file = write(&folder, "relay.toml", &printed);
    let again = stdout(&relay(&["check-config", "--config", &file]).output().unwrap());
    let without_origins = |text: &str| {
        let values = text.lines().map(|line| line.split(" # by").next().unwrap().to_owned());
        values.collect::<Vec<_>>()
    };
    assert_eq!(without_origins(&printed), without_origins(&again));
}

#[test]
fn readable_token_is_a_warning_and_never_printed() {
    let folder = TempDir::new().unwrap();
    let token = write(&folder, "token", "hunter2\n");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let flags = ["check-config", "--registry=r:9000", "--registry-admin-token-file", &token];
    let output = relay(&flags).output().unwrap();
    let warning = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(warning.contains(&token) && warning.contains("chmod 600"), "{warning}");
    assert!(!warning.contains("hunter2") && !stdout(&output).contains("hunter2"));
}

#[test]
fn secret_of_a_cluster_and_password_of_a_url_are_never_printed() {
    let folder = TempDir::new().unwrap();
    let secret = write(&folder, "secret", "hunter2hunter2hunter2\n");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let mesh = ["check-config", "--cluster-bind=:9100", "--cluster-secret-file", &secret];
    let output = relay(&mesh).output().unwrap();
    let warning = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(warning.contains(&secret) && warning.contains("chmod 600"), "{warning}");
    assert!(!warning.contains("hunter2") && !stdout(&output).contains("hunter2"));

    let nats = ["check-config", "--cluster-nats=nats://relay:hunter2@a,nats://b"];
    let printed = stdout(&relay(&nats).output().unwrap());
    assert!(printed.contains("cluster_nats = \"nats://***@a,nats://b\" # by a flag"), "{printed}");
    let both = refused(relay(&nats).arg("--cluster-bind=:9100"), USAGE);
    assert!(both.contains("nats://***@") && !both.contains("hunter2"), "{both}");
}

#[test]
fn reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = relay(&["check-config"]).stdout(writer).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn new_key_is_its_owners_alone_and_replaces_none() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("node.key");
    let out = ["keygen", "--out", file.to_str().unwrap()];
    let public = stdout(&relay(&out).output().unwrap());
    assert!(public.trim().parse::<beacon_relay::ids::PublicKey>().is_ok(), "{public}");
    let seed = fs::read_to_string(&file).unwrap();
    assert_eq!(seed.trim().strip_prefix("private-key:").unwrap().len(), 44);
    assert_ne!(seed, public);
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);

    let line = refused(&mut relay(&out), 1);
    assert!(line.contains("exists") && line.contains(file.to_str().unwrap()), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), seed);
}

#[test]
fn new_key_without_a_file_is_printed_as_json() {
    let keys = stdout(&relay(&["keygen"]).output().unwrap());
    let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
    assert_eq!(keys["seed"].as_str().unwrap().len(), 44);
    assert_eq!(keys["public_key"].as_str().unwrap().len(), 44);
}

#[test]
fn relay_has_one_id_which_others_can_allow() {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("state");
    let folder = folder.to_str().unwrap();
    let id = stdout(&relay(&["cluster-id", "--state-dir", folder]).output().unwrap());
    let again = relay(&["cluster-id"]).env("STATE_DIRECTORY", folder).output().unwrap();
    assert_eq!((stdout(&again), id.trim().len()), (id.clone(), 64));
    let flags = ["check-config", "--cluster-bind=:9100", "--cluster-allow", id.trim()];
    stdout(&relay(&flags).output().unwrap());

    let file = format!("{folder}/cluster.key");
    fs::write(&file, "no key").unwrap();
    let line = refused(&mut relay(&["cluster-id", "--state-dir", folder]), CONFIG);
    assert!(line.contains(&file) && line.contains("32 bytes"), "{line}");
}

#[test]
fn enrolled_node_is_in_the_state_folder_that_serve_would_use() {
    const KEY: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";
    const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let root = TempDir::new().unwrap();
    let folder = root.path().join("state");
    let folder = folder.to_str().unwrap();
    for (key, done) in [(KEY, "added"), (KEY, "already"), (OTHER, "instead")] {
        let said =
            stdout(&relay(&["enroll", "4242", key, "--state-dir", folder]).output().unwrap());
        assert!(said.contains("4242") && said.contains(done) && said.contains(folder), "{said}");
    }
    let said = relay(&["enroll", "4242", OTHER]).env("STATE_DIRECTORY", folder).output().unwrap();
    assert!(stdout(&said).contains("already"));
    assert_eq!(Path::new(folder).metadata().unwrap().permissions().mode() & 0o777, 0o700);
}
