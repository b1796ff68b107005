//! The cluster's settings together: which fabric, what it needs, and what stays hidden.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

const KEY: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

fn fabric(flags: &[&str]) -> ClusterFabric {
    with_flags(flags).unwrap().cluster.unwrap().fabric
}

/// A file of its owner alone.
fn file(text: &str) -> (NamedTempFile, String) {
    let file = NamedTempFile::new().unwrap();
    fs::write(&file, text).unwrap();
    let path = file.path().to_str().unwrap().to_owned();
    (file, path)
}

#[test]
fn relay_is_alone_unless_told_otherwise() {
    let config = with_flags(&[]).unwrap();
    assert_eq!((config.cluster, config.warnings), (None, vec![]));
}

#[test]
fn mesh_takes_relays_a_name_keys_and_a_secret() {
    let (_file, secret) = file(" 0123456789abcdef\n");
    let flags = [
        "--cluster-bind=[::]:9100",
        "--cluster-join=a:9100,b:9101",
        "--cluster-join=[::1]:9102",
        "--cluster-dns=Relays.example.net",
        "--cluster-allow",
        KEY,
        "--cluster-secret-file",
        &secret,
        "--cluster-keepalive=500ms",
        "--cluster-name=eu_1",
    ];
    let config = with_flags(&flags).unwrap();
    let cluster = config.cluster.unwrap();
    assert_eq!((cluster.name.as_str(), cluster.keepalive), ("eu_1", Duration::from_millis(500)));
    let ClusterFabric::Mesh { bind, join, dns, allow, secret, tcp } = cluster.fabric else {
        panic!()
    };
    assert_eq!(bind, "[::]:9100".parse().unwrap());
    let join: Vec<_> = join.iter().map(HostPort::to_string).collect();
    assert_eq!(join, ["a:9100", "b:9101", "[::1]:9102"]);
    assert_eq!(dns.unwrap().to_string(), "relays.example.net:9100");
    assert_eq!(allow, [KEY.parse().unwrap()]);
    assert_eq!(secret.unwrap().expose(), "0123456789abcdef");
    assert!(tcp, "packets go over TCP unless it is turned off");
    assert_eq!(config.warnings, []);
}

#[test]
fn nats_takes_servers_and_credentials() {
    let (_file, path) = file("a JWT and a seed");
    let flags = ["--cluster-nats=tls://a,tls://b:1", "--cluster-nats-credentials", &path];
    let ClusterFabric::Nats { servers, credentials } = fabric(&flags) else { panic!() };
    assert_eq!(servers.to_string(), "tls://a:4222,tls://b:1");
    assert_eq!(credentials, Some(PathBuf::from(&path)));
    let cluster = with_flags(&flags).unwrap().cluster.unwrap();
    assert_eq!((cluster.name.as_str(), cluster.keepalive), ("beacon", Duration::from_secs(5)));
}

#[test]
fn mesh_is_never_open_to_strangers() {
    let refused = refusal(&["--cluster-bind=:9100"]);
    assert!(refused.starts_with("--cluster-bind = \":9100\": needs --cluster-secret-file or"));
    assert!(refusal(&["--cluster-bind=:9100", "--cluster-allow="]).contains("--cluster-allow"));
    assert!(with_flags(&["--cluster-bind=:9100", "--cluster-allow", KEY]).is_ok());
}

#[test]
fn two_fabrics_are_refused() {
    let flags = ["--cluster-bind=:1", "--cluster-allow", KEY, "--cluster-nats=nats://u:hunter2@a"];
    let refused = refusal(&flags);
    assert!(refused.starts_with("--cluster-nats = \"nats://***@a\": cannot be combined with"));
}

#[test]
fn flags_of_a_fabric_mean_nothing_without_it() {
    for (flag, value, needs) in [
        ("--cluster-join", "a:1", "--cluster-bind"),
        ("--cluster-dns", "a", "--cluster-bind"),
        ("--cluster-secret-file", "/secret", "--cluster-bind"),
        ("--cluster-allow", KEY, "--cluster-bind"),
        ("--cluster-tcp", "false", "--cluster-bind"),
        ("--cluster-nats-credentials", "/creds", "--cluster-nats"),
    ] {
        let expected = format!("{flag} = \"{value}\": needs {needs} as well");
        // Of a flag that is on or off, a value is a part of its word.
        assert_eq!(refusal(&[&format!("{flag}={value}")]), expected);
    }
    let both = ["--cluster-nats=nats://a", "--cluster-join=a:1"];
    assert!(refusal(&both).ends_with("needs --cluster-bind as well"));
}

#[test]
fn name_or_keepalive_of_no_cluster_is_a_warning() {
    let config = with_flags(&["--cluster-name=eu", "--cluster-keepalive=1s"]).unwrap();
    assert_eq!(config.cluster, None);
    let warnings: Vec<_> = config.warnings.iter().map(Warning::to_string).collect();
    let expected = "--cluster-name does nothing without --cluster-bind or --cluster-nats";
    assert!(warnings.len() == 2 && warnings[0].starts_with(expected), "{warnings:?}");
}

#[test]
fn shared_name_needs_a_port_where_the_system_chooses_ours() {
    let flags = ["--cluster-bind=:0", "--cluster-allow", KEY, "--cluster-dns"];
    let with = |name| [&flags as &[_], &[name]].concat();
    assert!(refusal(&with("relays")).starts_with("--cluster-dns = \"relays\": needs a port"));
    assert!(with_flags(&with("relays:7")).is_ok());
}

#[test]
fn secret_is_long_hidden_and_its_owners_alone() {
    let (file, path) = file("hunter2hunter2\n");
    let flags = &["--cluster-bind=:1", "--cluster-secret-file", &path];
    let said = Said { flags, ..Said::default() };
    let error = said.config().unwrap_err();
    let reason = "the secret has 14 bytes; write 16 or more";
    assert!(error.is_about_a_file() && error.to_string().ends_with(reason), "{error}");

    fs::write(&file, "hunter2hunter2hunter2").unwrap();
    let config = said.config().unwrap();
    assert!(!format!("{config:?} {}", said.layers().unwrap()).contains("hunter2"));
    assert_eq!(config.warnings, []);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(said.config().unwrap().warnings[0].to_string().ends_with("chmod 600 it"));

    let missing = refusal_of_file(&["--cluster-bind=:1", "--cluster-secret-file=/nonexistent/s"]);
    assert!(missing.starts_with("--cluster-secret-file = \"/nonexistent/s\": cannot be read"));
    let missing =
        refusal_of_file(&["--cluster-nats=nats://a", "--cluster-nats-credentials=/nonexistent/c"]);
    assert!(missing.starts_with("--cluster-nats-credentials = \"/nonexistent/c\": cannot be"));
}

fn refusal_of_file(flags: &[&str]) -> String {
    let error = with_flags(flags).unwrap_err();
    assert!(error.is_about_a_file(), "{error}");
    error.to_string()
}

#[test]
fn password_of_a_url_is_shown_nowhere() {
    let url = "nats://user:hunter2@a";
    let variables = &[("BEACON_RELAY_CLUSTER_NATS", url)] as &[_];
    let said = Said { variables, flags: &["--cluster-name=eu"], ..Said::default() };
    let (layers, config) = (said.layers().unwrap(), said.config().unwrap());
    let ClusterFabric::Nats { ref servers, .. } = config.cluster.as_ref().unwrap().fabric else {
        panic!()
    };
    assert!(servers.expose().eq(["nats://user:hunter2@a:4222"]));
    let shown = format!("{config:?} {layers} {layers:?}");
    assert!(shown.contains("cluster_nats = \"nats://***@a\" # by BEACON_"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let printed = Said { file: &layers.to_string(), ..Said::default() };
    assert!(printed.config().unwrap_err().to_string().contains("stands for a user"));

    for file in [
        "cluster_nats = [\"nats://user:hunter2@a\", \"nats://b\"]",
        "cluster_nat = \"nats://user:hunter2@a\"",
        "cluster_nats = \"user:hunter2@a\"",
    ] {
        let error = Said { file, ..Said::default() }.config().unwrap_err().to_string();
        assert!(error.contains("***@") && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn mesh_that_is_printed_is_a_file_that_says_the_same() {
    let (_file, secret) = file("0123456789abcdef");
    let flags = &[
        "--cluster-bind=:9100",
        "--cluster-join=a:1,b:2",
        "--cluster-dns=c",
        "--cluster-allow",
        KEY,
        "--cluster-secret-file",
        &secret,
    ];
    let said = Said { flags, ..Said::default() };
    let printed = said.layers().unwrap().to_string();
    let again = Said { file: &printed, ..Said::default() };
    assert_eq!(again.config().unwrap().cluster, said.config().unwrap().cluster, "{printed}");
}
