//! The settings as they are printed, and mistakes in them.

use std::collections::HashMap;
use std::fs;

use super::super::*;
use super::Said;

#[test]
fn what_is_printed_is_a_file_that_says_the_same() {
    let flags = &[
        "--relay-bytes=5000000000",
        "--peers=a:1,[::1]:2",
        "--open-gossip=1",
        "--punch-allow=*",
        "--registry=r:9000",
        "--registry-tls",
        "--wss-bind=unix:/run/a b.sock",
        "--idle-timeout=2m",
        "--log-level=info,beacon_relay::udp=debug",
        "--relay-name=Relay.example",
        "--trusted-proxy=",
        "--nat64-prefix=2001:db8:64::/96,2001:db8:122::/48",
        "--udp-bind=:9001",
        "--keys=/etc/\"keys\".json",
    ];
    let said = Said { flags, ..Said::default() };
    let printed = said.layers().unwrap().to_string();
    let again = Said { file: &printed, ..Said::default() };
    assert_eq!(again.config().unwrap(), said.config().unwrap(), "{printed}");
}

#[test]
fn number_between_spaces_is_printed() {
    let printed = Said { file: "max_nodes = \" 5 \"", ..Said::default() }.layers().unwrap();
    assert!(printed.to_string().contains("\nmax_nodes = 5 #"), "{printed}");
}

#[test]
fn path_that_looks_like_a_url_is_printed_whole() {
    let said = Said { flags: &["--state-dir=/a://b@c"], ..Said::default() };
    let printed = said.layers().unwrap().to_string();
    assert!(printed.contains("\nstate_dir = \"/a://b@c\" #"), "{printed}");
    let new = Said { flags: &["--state-dir=/a://d@c"], ..Said::default() }.loaded();
    let change = said.loaded().updated(&new).1.needs_restart.remove(0);
    assert_eq!((&*change.old, &*change.new), ("/a://b@c", "/a://d@c"));
}

#[test]
fn line_break_in_a_key_a_value_or_a_path_breaks_no_message() {
    for (file, message) in [
        ("\"a\\nb\" = 1", r#": line 1: a\nb = "1": no setting has this key"#),
        ("peers = [\"a\\nb\"]", r"`a\nb` is not HOST:PORT"),
        ("log_level = \"\\u001b[2J=x\"", r"\u{1b}[2J"),
    ] {
        let error = Said { file, ..Said::default() }.config().unwrap_err().to_string();
        assert!(error.contains(message), "{error:?}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a\nb");
    fs::write(&file, "max_nodes = 7").unwrap();
    let variables = HashMap::from([("BEACON_RELAY_CONFIG".into(), file.into())]);
    let surroundings = Surroundings { variables, is_root: true, descriptors: 1_024 };
    let printed = Layers::collect(Flags::default(), &surroundings).unwrap().to_string();
    assert!(printed.contains(r"a\nb, line 1"), "{printed}");
}
