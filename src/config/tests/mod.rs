//! The settings together: who wins, what contradicts what, and what is printed.

mod acme;
mod cluster;
mod keyop;
mod listeners;
mod loaded;
mod middleman;
mod netbird;
mod peerbus;
mod printed;
mod registry;
mod seeds;

use std::collections::HashMap;
use std::fs;

use clap::{Args as _, FromArgMatches as _};
use tempfile::NamedTempFile;

use super::table::Compared as _;
use super::*;

/// What an operator says, in all three ways.
#[derive(Default)]
struct Said<'a> {
    file: &'a str,
    variables: &'a [(&'a str, &'a str)],
    flags: &'a [&'a str],
}

impl Said<'_> {
    fn layers(&self) -> Result<Layers, Error> {
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), self.file).unwrap();
        let config = ["serve", "--config", file.path().to_str().unwrap()];
        let arguments = config.iter().chain(self.flags);
        let matches = Flags::augment_args(clap::Command::new("serve")).get_matches_from(arguments);
        let flags = Flags::from_arg_matches(&matches).unwrap();

        let home = ("HOME", "/home/a");
        let variables = self.variables.iter().chain([&home]);
        let variables: HashMap<_, _> =
            variables.map(|(name, value)| (name.into(), value.into())).collect();
        let surroundings = Surroundings { variables, is_root: false, descriptors: 1_024 };
        Layers::collect(flags, &surroundings)
    }

    fn loaded(&self) -> Loaded {
        let layers = self.layers().unwrap();
        let config = Config::new(&layers).unwrap();
        Loaded { layers, config }
    }

    fn config(&self) -> Result<Config, Error> {
        Config::new(&self.layers()?)
    }
}

fn with_flags(flags: &[&str]) -> Result<Config, Error> {
    Said { flags, ..Said::default() }.config()
}

fn refusal(flags: &[&str]) -> String {
    let error = with_flags(flags).unwrap_err();
    assert!(!error.is_about_a_file(), "{error}");
    error.to_string()
}

#[test]
fn defaults_are_a_valid_configuration() {
    let config = with_flags(&[]).unwrap();
    assert_eq!(config.state_dir, PathBuf::from("/home/a/.local/state/beacon-relay"));
    assert_eq!(config.wss_bind, WssBind::Tcp("127.0.0.1:8443".parse().unwrap()));
    assert_eq!(config.udp_bind, "[::]:9001".parse().unwrap());
    assert!(config.udp_bind_default);
    assert_eq!(config.admin_bind, "127.0.0.1:9464".parse().unwrap());
    assert_eq!(config.beacon_id, BeaconId(0));
    assert_eq!(config.idle_timeout, Duration::from_secs(90));
    assert_eq!(config.max_peers, 1_024 - 256);
    assert_eq!(config.max_nodes, 500_000);
    assert_eq!((config.upgrade_rate, config.upgrade_burst), (10, 100));
    assert_eq!((config.relay_rate, config.relay_bytes), (4_000, 0));
    assert_eq!((config.outbox_bytes, config.outbox_age), (262_144, Duration::from_secs(2)));
    assert_eq!(config.punch_allow, PunchAllow::List(vec![]));
    assert_eq!((config.keys, config.registry, config.relay_name), (None, None, None));
    assert!(!config.public_plaintext && !config.open_gossip && !config.require_punch_grant);
}

#[test]
fn file_beats_default_and_environment_beats_file_and_flag_beats_environment() {
    let file = "max_nodes = 1\nrelay_rate = 1\npunch_rate = 1";
    let variables = &[("BEACON_RELAY_RELAY_RATE", "2"), ("BEACON_RELAY_PUNCH_RATE", "2")] as &[_];
    let config = Said { file, variables, flags: &["--punch-rate", "3"] }.config().unwrap();
    assert_eq!((config.max_nodes, config.relay_rate, config.punch_rate), (1, 2, 3));
    assert_eq!(config.upgrade_rate, 10);
}

#[test]
fn list_of_a_higher_layer_replaces_the_lower_one() {
    let file = "peers = [\"a:1\", \"b:2\"]";
    let said = Said { file, flags: &["--peers", "c:3", "--peers", "d:4,e:5"], ..Said::default() };
    let peers: Vec<_> = said.config().unwrap().peers.iter().map(HostPort::to_string).collect();
    assert_eq!(peers, ["c:3", "d:4", "e:5"]);
    let said = Said { file, flags: &["--peers="], ..Said::default() };
    assert_eq!(said.config().unwrap().peers, []);
}

#[test]
fn switch_is_true_alone_and_can_be_turned_off() {
    assert!(with_flags(&["--open-gossip"]).unwrap().open_gossip);
    assert!(!with_flags(&["--open-gossip=false"]).unwrap().open_gossip);
    let variables = &[("BEACON_RELAY_OPEN_GOSSIP", "1")] as &[_];
    assert!(Said { variables, ..Said::default() }.config().unwrap().open_gossip);
}

#[test]
fn unknown_variable_is_refused_and_those_of_platforms_are_not() {
    let variables =
        &[("BEACON_RELAY_PORT", "tcp://10.0.0.1:9001"), ("BEACON_RELAY_KEYS", "")] as &[_];
    assert_eq!(Said { variables, ..Said::default() }.config().unwrap().keys, None);
    let variables = &[("BEACON_RELAY_KEY", "keys.json")] as &[_];
    let error = Said { variables, ..Said::default() }.config().unwrap_err();
    assert!(!error.is_about_a_file());
    let expected = "BEACON_RELAY_KEY = \"keys.json\": no setting has this variable; \
                    did you mean BEACON_RELAY_KEYS?";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn all_mistakes_are_told_at_once_and_each_once() {
    let file = "outbox_age = \"2\"\nadmin_bind = \"9464\"\n[[listener]]\nbind = \"x\"\n\
                [[listener]]\ndoors = [\"pilot\"]\n";
    let said = Said { file, flags: &["--max-nodes", "0"], ..Said::default() };
    let error = Config::new(&said.layers().unwrap()).unwrap_err();
    let keys = error.each().iter().map(|one| match one {
        Error::Setting { place, .. } => place.key.clone(),
        Error::File { .. } | Error::Syntax { .. } | Error::Several(_) => panic!("{one}"),
    });
    let keys = keys.collect::<Vec<_>>();
    assert_eq!(
        keys,
        ["admin_bind", "outbox_age", "max_nodes", "listener[1].doors", "listener[2].bind"]
    );
    assert!(!error.is_about_a_file(), "a flag is wrong as well");
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn unknown_key_hides_no_other_mistake_and_causes_none() {
    let source = |file: &str| {
        let named = NamedTempFile::new().unwrap();
        fs::write(named.path(), file).unwrap();
        let config = Some(named.path().to_str().unwrap().to_owned());
        let flags = Flags { config, ..Flags::default() };
        let variables = [("HOME".into(), "/home/a".into())].into();
        let surroundings = Surroundings { variables, is_root: false, descriptors: 1_024 };
        Source::new(flags, surroundings).read().unwrap_err()
    };
    let error = source("advertise_adr = \"a:1\"\nbeacon_id = 7\nregistry = \"r:9000\"\n");
    assert_eq!(error.each().len(), 1, "{error}");
    let error = source("advertise_adr = \"a:1\"\nmax_nodes = 0\n");
    assert_eq!(error.each().len(), 2, "{error}");
}

#[test]
fn sizes_and_times_are_taken_as_people_write_them() {
    let flags = &["--outbox-bytes", "256KiB", "--idle-timeout", "1m45s", "--relay-bytes=1GB"];
    let config = with_flags(flags).unwrap();
    assert_eq!((config.outbox_bytes, config.relay_bytes), (262_144, 1_000_000_000));
    assert_eq!(config.idle_timeout, Duration::from_secs(105));
    let layers = Said { flags, ..Said::default() }.layers().unwrap();
    assert!(layers.to_string().contains("outbox_bytes = \"256KiB\" # by a flag\n"), "{layers}");
    assert!(
        refusal(&["--outbox-bytes", "1KiB"]).contains("\"1KiB\": out of range; write a value from")
    );
    assert!(refusal(&["--outbox-bytes", "256k"]).contains("such as 256KiB"));
    assert!(refusal(&["--max-nodes", "1KiB"]).contains("not a whole number from"), "it is no size");
}

#[test]
fn relative_paths_are_relative_to_the_file_and_shown_from_the_root() {
    let said =
        Said { file: "keys = \"keys.json\"\nkeyop_audit_file = \"/a/b\"", ..Said::default() };
    let layers = said.layers().unwrap();
    let folder = std::env::temp_dir();
    let printed = layers.to_string();
    let expected = format!("keys = \"{}\" # by ", folder.join("keys.json").display());
    assert!(printed.contains(&expected), "{printed}");
    assert!(printed.contains("keyop_audit_file = \"/a/b\""), "{printed}");
    let here = std::env::current_dir().unwrap();
    assert_eq!(with_flags(&["--keys", "k.json"]).unwrap().keys, Some(here.join("k.json")));
    let variables = &[("BEACON_RELAY_STATE_DIR", "state")] as &[_];
    let config = Said { variables, ..Said::default() }.config().unwrap();
    assert_eq!(config.state_dir, here.join("state"));
}

#[test]
fn two_settings_of_one_address_are_refused() {
    for (flags, part) in [
        (
            &["--admin-bind=127.0.0.1:8443"] as &[_],
            "--admin-bind = \"127.0.0.1:8443\": that is the address of --wss-bind",
        ),
        (
            &["--stun-bind=[::]:9001"],
            "--stun-bind = \"[::]:9001\": that is the address of --udp-bind",
        ),
        (
            &["--stun-bind=:3478,:3478"],
            "--stun-bind = \":3478,:3478\": that is the address of --stun-bind",
        ),
        (
            &["--wss-bind=127.0.0.1:9464"],
            "--admin-bind = \"127.0.0.1:9464\": that is the address of --wss-bind",
        ),
    ] {
        let line = refusal(flags);
        assert!(line.starts_with(part), "{line}");
    }
    let any_port = &["--admin-bind=127.0.0.1:0", "--wss-bind=127.0.0.1:0", "--stun-bind=:0,:0"];
    assert!(with_flags(any_port).is_ok());
    assert!(with_flags(&["--stun-bind=127.0.0.1:8443"]).is_ok(), "TCP and UDP do not meet");
}

#[test]
fn socket_in_a_missing_folder_is_refused() {
    let line = refusal(&["--wss-bind=unix:/nonexistent/wss.sock"]);
    assert!(line.contains("there is no folder /nonexistent; make it"), "{line}");
    let file = "[[listener]]\nbind = \"unix:/nonexistent/a.sock\"\ndoors = [\"pilot\"]";
    let error = Said { file, ..Said::default() }.config().unwrap_err();
    assert!(error.to_string().contains("line 2: listener[1].bind = "), "{error}");
}

#[test]
fn error_names_the_place_that_won() {
    let file = "\noutbox_age = \"2\"";
    let error = Said { file, ..Said::default() }.config().unwrap_err();
    assert!(error.is_about_a_file());
    let reason = "not a duration; write a number and a unit, such as 2s";
    assert!(error.to_string().ends_with(&format!(": line 2: outbox_age = \"2\": {reason}")));

    let variables = &[("BEACON_RELAY_OUTBOX_AGE", "3")] as &[_];
    let error = Said { file, variables, flags: &[] }.config().unwrap_err();
    assert!(error.to_string().starts_with("BEACON_RELAY_OUTBOX_AGE = \"3\": "), "{error}");

    let error = Said { file, variables, flags: &["--outbox-age", "4"] }.config().unwrap_err();
    assert!(error.to_string().starts_with("--outbox-age = \"4\": "), "{error}");
}

#[test]
fn pings_that_come_too_late_are_refused_and_can_be_turned_off() {
    let late = refusal(&["--ping-interval", "90s"]);
    assert!(
        late.starts_with(
            "--ping-interval = \"90s\": not shorter than --idle-timeout, which is 90s"
        ),
        "{late}"
    );
    let early = refusal(&["--idle-timeout", "30s"]);
    assert!(
        early.starts_with("--idle-timeout = \"30s\": not longer than --ping-interval"),
        "{early}"
    );
    let none = &["--ping-interval", "0s", "--pong-timeout", "2h", "--idle-timeout", "1ms"];
    assert!(with_flags(none).is_ok());
}

#[test]
fn explicit_udp_bind_is_told_from_the_default() {
    let config = with_flags(&["--udp-bind", ":9001"]).unwrap();
    assert_eq!(config.udp_bind, "[::]:9001".parse().unwrap());
    assert!(!config.udp_bind_default);
}

#[test]
fn public_listener_needs_a_flag_and_trusts_no_proxy_by_itself() {
    let refused = refusal(&["--wss-bind", ":8443"]);
    assert!(refused.starts_with("--wss-bind = \":8443\": "), "{refused}");
    let config = with_flags(&["--wss-bind", ":8443", "--public-plaintext"]).unwrap();
    assert_eq!(config.trusted_proxies, []);
}

#[test]
fn local_listener_trusts_loopback_unless_told_otherwise() {
    assert_eq!(with_flags(&[]).unwrap().trusted_proxies, IpNet::LOOPBACK);
    let unix = with_flags(&["--wss-bind", "unix:/run/relay.sock"]).unwrap();
    assert_eq!(unix.trusted_proxies, IpNet::LOOPBACK);
    let given = with_flags(&["--trusted-proxy", "10.0.0.0/8"]).unwrap();
    assert_eq!(given.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(with_flags(&["--trusted-proxy="]).unwrap().trusted_proxies, []);
}

#[test]
fn prefixes_of_translators_can_be_given_in_each_way_and_wait_for_a_restart() {
    let text = "2001:db8:122::/48,2001:db8:64::/96";
    let [both, file] = [text, "nat64_prefix = [\"2001:db8:64::/96\", \"2001:db8:122::/48\"]"];
    let variables = &[("BEACON_RELAY_NAT64_PREFIX", both)] as &[_];
    let flags = &["--nat64-prefix", "2001:db8:64::/96", "--nat64-prefix", "2001:db8:122::/48"];
    let by_file = Said { file, ..Said::default() }.loaded();
    let by_variable = Said { variables, ..Said::default() }.loaded();
    let by_flags = Said { flags, ..Said::default() }.loaded();
    assert_eq!(by_file.config.translators, by_variable.config.translators);
    assert_eq!(by_file.config.translators, by_flags.config.translators);
    assert_eq!(by_file.updated(&by_flags).1, Difference::default(), "another order");

    let none = Said::default().loaded();
    let (in_force, difference) = none.updated(&by_file);
    assert_eq!(in_force.config.translators, none.config.translators);
    assert_eq!((difference.applied.len(), difference.needs_restart.len()), (0, 1));
}

#[test]
fn peers_beyond_the_descriptor_limit_are_refused_with_it() {
    assert_eq!(with_flags(&["--max-peers", "768"]).unwrap().max_peers, 768);
    let refused = refusal(&["--max-peers", "769"]);
    assert!(refused.starts_with("--max-peers = \"769\": "), "{refused}");
    assert!(refused.contains("1 to 768"), "{refused}");
}

#[test]
fn third_generation_needs_a_name() {
    assert!(refusal(&["--min-auth-generation", "3"]).contains("--relay-name"));
    assert!(with_flags(&["--min-auth-generation", "3", "--relay-name", "a.example"]).is_ok());
}

#[test]
fn flags_have_the_names_that_operators_were_told() {
    let told = "state-dir wss-bind wss-tls-cert wss-tls-key acme acme-contact acme-directory acme-directory-ca udp-bind stun-bind admin-bind admin-host admin-token-file keys registry registry-tls registry-ca \
        registry-fingerprint registry-admin-token-file registry-connections beacon-id peers advertise-addr open-gossip \
        audit bind-wait free-bind auth-timeout idle-timeout ping-interval pong-timeout write-timeout drain-time max-peers \
        max-nodes upgrade-rate upgrade-burst trusted-proxy nat64-prefix allow-origin relay-rate relay-bytes \
        discover-rate discover-burst \
        outbox-bytes outbox-age relay-name min-auth-generation require-punch-grant punch-rate \
        punch-allow udp-sender-check public-plaintext canary-interval log-level log-format cluster-bind cluster-join \
        cluster-dns cluster-secret-file cluster-allow cluster-tcp cluster-keepalive cluster-nats \
        cluster-nats-credentials cluster-name netbird-auth-secret-file netbird-exposed-address netbird-bind \
        netbird-tls-cert netbird-tls-key netbird-acme netbird-health-bind netbird-takeover netbird-rate netbird-bytes \
        peerbus-bind peerbus-tokens-file peerbus-hmac-secret-file middleman-bind middleman-service-keys-file \
        middleman-client-keys-file middleman-guid middleman-request-timeout middleman-max-message bus-durability bus-quota-messages \
        bus-nats bus-nats-credentials bus-nats-name bus-nats-replicas bus-nats-max-bytes \
        bus-quota-bytes bus-retention bus-window audit-checkpoint-file audit-retention audit-max-bytes \
        keyop-bind keyop-cert keyop-key keyop-client-ca keyop-client-crl keyop-name keyop-max-record keyop-ack-timeout \
        keyop-ack-attempts keyop-retention keyop-channel-bytes keyop-channel-records keyop-dead-letter-retention \
        keyop-cursor-expiry keyop-audit-file";
    let mut told: Vec<_> = told.split_whitespace().map(str::to_owned).collect();
    let settings = all_settings().filter(|setting| setting.kind != value::Kind::Tables);
    let mut flags: Vec<_> = settings.map(|setting| setting.key.replace('_', "-")).collect();
    told.sort();
    flags.sort();
    assert_eq!(flags, told);
}
