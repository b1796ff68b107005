//! The settings of the NetBird door: what goes with what, and which listeners there are then.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// Flags of the door, whose file of secrets lives as long as the answer's first part.
fn flags<'a>(secrets: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let door = ["--netbird-exposed-address=rels://relay.test:443", secrets];
    door.into_iter().chain(more.iter().copied()).collect()
}

fn secrets() -> (NamedTempFile, String) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), "s3cret\n").unwrap();
    let flag = format!("--netbird-auth-secret-file={}", file.path().display());
    (file, flag)
}

/// A certificate with its key, for flags.
fn certificate(folder: &tempfile::TempDir) -> [String; 2] {
    let pair = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert, pair.cert.pem()).unwrap();
    fs::write(&key, pair.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    [
        format!("--netbird-tls-cert={}", cert.display()),
        format!("--netbird-tls-key={}", key.display()),
    ]
}

fn binds(config: &Config) -> Vec<(String, &'static str)> {
    let listeners = config.all_listeners(false).into_iter();
    listeners.map(|listener| (listener.bind.to_string(), listener.doors[0].name)).collect()
}

#[test]
fn relay_for_netbird_alone_has_no_listener_for_nodes() {
    let (_file, secrets) = secrets();
    let folder = tempfile::tempdir().unwrap();
    let [cert, key] = certificate(&folder);
    let alone = with_flags(&flags(&secrets, &["--netbird-bind=:443", &cert, &key])).unwrap();
    assert_eq!(binds(&alone), [("[::]:443".to_owned(), "netbird")]);
    assert_eq!(alone.udp_bind, "127.0.0.1:0".parse().unwrap(), "nobody else reaches it");
    assert_eq!(alone.warnings, [], "the certificate's key is no other user's to read");
    let listeners = alone.all_listeners(false);
    assert!(listeners[0].speaks_tls());
    assert_eq!((listeners[0].label(), &*listeners[0].setting), ("netbird", "netbird-bind"));
    assert_eq!(alone.netbird_instance().as_deref(), Some("rels://relay.test:443"));

    let bind = "--netbird-bind=127.0.0.1:33080";
    let both = with_flags(&flags(&secrets, &[bind, "--wss-bind=127.0.0.1:8443"])).unwrap();
    let expected = [("127.0.0.1:8443", "pilot"), ("127.0.0.1:33080", "netbird")];
    assert_eq!(binds(&both), expected.map(|(bind, door)| (bind.to_owned(), door)));
    assert_eq!(both.udp_bind, "[::]:9001".parse().unwrap());
    let udp = with_flags(&flags(&secrets, &[bind, "--udp-bind=:9001"])).unwrap();
    assert_eq!(udp.udp_bind, "[::]:9001".parse().unwrap());
}

#[test]
fn listener_of_netbird_that_others_reach_needs_tls_or_leave() {
    let (_file, secrets) = secrets();
    let refused = refusal(&flags(&secrets, &["--netbird-bind=:443"]));
    assert!(refused.starts_with("--netbird-bind = \":443\": it is open to others"), "{refused}");
    let open = flags(&secrets, &["--netbird-bind=:443", "--public-plaintext"]);
    let open = with_flags(&open).unwrap();
    assert_eq!((open.all_listeners(false)[0].trusted_proxies.len(), open.warnings.len()), (0, 0));
    let acme = flags(&secrets, &["--netbird-bind=:443", "--netbird-acme=relay.test"]);
    let acme = with_flags(&acme).unwrap();
    assert!(acme.acme().is_some() && acme.warnings.is_empty());
    assert_eq!(binds(&acme).len(), 1);
}

#[test]
fn proxies_of_the_flag_are_those_of_netbirds_listener_as_well() {
    let (_file, secrets) = secrets();
    let bind = "--netbird-bind=127.0.0.1:33080";
    let local = with_flags(&flags(&secrets, &[bind])).unwrap();
    assert_eq!(local.all_listeners(false)[0].trusted_proxies, IpNet::LOOPBACK);
    let flags = flags(&secrets, &[bind, "--trusted-proxy=10.0.0.0/8"]);
    let given = with_flags(&flags).unwrap();
    assert_eq!(given.all_listeners(false)[0].trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
    assert_eq!(given.warnings, []);
}

#[test]
fn what_is_printed_of_netbird_is_a_file_that_says_the_same() {
    let (_file, secrets) = secrets();
    let wss = "--wss-bind=127.0.0.1:8443";
    let open = "--public-plaintext";
    for more in [
        &["--netbird-bind=127.0.0.1:1"][..],
        &["--netbird-bind=:1", open],
        &["--netbird-bind=:1", open, wss],
        &["--netbird-bind=127.0.0.1:1", "--wss-bind=:2", open],
        &["--netbird-bind=:1", "--netbird-acme=a.test", "--trusted-proxy=10.0.0.1", wss],
        &["--netbird-bind=127.0.0.1:1", "--netbird-health-bind=:9000", "--stun-bind=:3478"],
    ] {
        let flags = flags(&secrets, more);
        let said = Said { flags: &flags, ..Said::default() };
        let printed = said.layers().unwrap().to_string();
        let again = Said { file: &printed, ..Said::default() };
        let (mut one, mut other) = (said.config().unwrap(), again.config().unwrap());
        (one.udp_bind_default, other.udp_bind_default) = (false, false);
        assert_eq!(other, one, "{printed}");
    }
}

#[test]
fn settings_of_netbird_mean_nothing_without_each_other() {
    let (_file, secrets) = secrets();
    for (flags, reason) in [
        (&["--netbird-bind=127.0.0.1:1"][..], "needs --netbird-exposed-address and"),
        (&[&*secrets], "needs --netbird-exposed-address as well"),
        (&["--netbird-tls-cert=/c"], "needs --netbird-bind as well"),
        (&["--netbird-acme=a.test"], "needs --netbird-bind as well"),
        (&["--netbird-bind=127.0.0.1:1", "--netbird-tls-key=/k"], "needs --netbird-tls-cert as"),
    ] {
        let refused = refusal(flags);
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    let nobody = refusal(&flags(&secrets, &[]));
    assert!(nobody.contains("add --netbird-bind, or write doors"), "{nobody}");
}

#[test]
fn two_listeners_of_one_address_are_refused() {
    let (_file, secrets) = secrets();
    let bind = "--netbird-bind=127.0.0.1:8443";
    let refused = refusal(&flags(&secrets, &[bind, "--wss-bind=127.0.0.1:8443"]));
    assert!(refused.contains("that is the address of --wss-bind"), "{refused}");
    let file = "[[listener]]\nbind = \"127.0.0.1:8443\"\ndoors = [\"pilot\"]";
    let said = flags(&secrets, &[bind]);
    let error = Said { file, flags: &said, ..Said::default() }.config().unwrap_err();
    assert!(error.to_string().contains("that is the address of --netbird-bind"), "{error}");
}

#[test]
fn reload_takes_over_the_proxies_of_netbirds_listener() {
    let (_file, secrets) = secrets();
    let loaded = |proxy: &str| {
        let flags = flags(&secrets, &["--netbird-bind=127.0.0.1:1", proxy]);
        Said { flags: &flags, ..Said::default() }.loaded()
    };
    let (old, new) = (loaded("--trusted-proxy="), loaded("--trusted-proxy=10.0.0.1"));
    let (in_force, difference) = old.updated(&new);
    assert_eq!((difference.applied.len(), difference.needs_restart.len()), (1, 0));
    let listeners = in_force.config.all_listeners(false);
    assert_eq!(listeners[0].trusted_proxies, ["10.0.0.1".parse().unwrap()]);
}

#[test]
fn reload_takes_over_what_logins_and_rates_are_judged_by() {
    let (_file, secrets) = secrets();
    let loaded = |more: &[&str]| {
        let flags = flags(&secrets, &[&["--netbird-bind=127.0.0.1:1"], more].concat());
        Said { flags: &flags, ..Said::default() }.loaded()
    };
    let old = loaded(&[]);
    let before = old.config.netbird.as_ref().unwrap();
    assert_eq!((before.takeover, before.rate, before.bytes), (NetbirdTakeover::Always, 0, 0));
    let new = ["--netbird-takeover=same-address", "--netbird-rate=7", "--netbird-bytes=8"];
    let new = loaded(&new);
    let (in_force, difference) = old.updated(&new);
    assert_eq!((difference.applied.len(), difference.needs_restart.len()), (3, 0));
    assert_eq!(in_force.config, new.config);
}
