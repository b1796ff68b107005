//! The settings of the peerbus door and of the bus: what goes with what, and what a reload takes.

use super::*;

const BIND: &str = "--peerbus-bind=127.0.0.1:47821";

fn tokens(text: &str) -> (NamedTempFile, String) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let flag = format!("--peerbus-tokens-file={}", file.path().display());
    (file, flag)
}

#[test]
fn relay_for_peerbus_alone_has_no_listener_for_nodes() {
    let (_file, tokens) = tokens("tok-A\n");
    let config = with_flags(&[BIND, &tokens]).unwrap();
    let listeners = config.all_listeners(false);
    let [listener] = &*listeners else { panic!("{listeners:?}") };
    assert_eq!((listener.label(), &*listener.setting), ("peerbus", "peerbus-bind"));
    assert_eq!(listener.doors, [&PEERBUS]);
    assert_eq!(listener.routes.door("/any/path"), Some(&PEERBUS));
    assert_eq!(listener.trusted_proxies, IpNet::LOOPBACK);
    assert_eq!(config.udp_bind, "127.0.0.1:0".parse().unwrap(), "nobody else reaches it");

    let both = with_flags(&[BIND, &tokens, "--wss-bind=127.0.0.1:47821"]).unwrap_err();
    assert!(both.to_string().contains("that is the address of --wss-bind"), "{both}");
}

#[test]
fn settings_of_peerbus_mean_nothing_without_each_other() {
    let (_file, tokens) = tokens("tok-A\n");
    for (flags, reason) in [
        (&[BIND][..], "needs --peerbus-tokens-file as well"),
        (&["--peerbus-hmac-secret-file=/s"], "needs --peerbus-tokens-file as well"),
        (&[&tokens], "add --peerbus-bind, or write doors"),
        (&[&tokens, "--peerbus-bind=:47821"], "it is open to others than this machine"),
        (&[&tokens, BIND, "--cluster-nats=nats://n"], "add --bus-nats, or run the door"),
    ] {
        let refused = refusal(flags);
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    let file = "[[listener]]\nbind = \"127.0.0.1:1\"\ndoors = [\"peerbus\"]";
    let error = Said { file, ..Said::default() }.config().unwrap_err().to_string();
    assert!(error.contains("the peerbus door of a [[listener]] needs it"), "{error}");
    let said = Said { file, flags: &[&tokens], ..Said::default() };
    assert_eq!(said.config().unwrap().all_listeners(false).len(), 2);
}

#[test]
fn short_secret_and_broken_tokens_are_refused_and_not_shown() {
    let (file, flag) = tokens("hunter2 hunter2 hunter2\n");
    let error = with_flags(&[BIND, &flag]).unwrap_err().to_string();
    assert!(error.contains("line 1: more than two words"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");

    fs::write(file.path(), "tok-A").unwrap();
    let secret = NamedTempFile::new().unwrap();
    fs::write(secret.path(), "x".repeat(31)).unwrap();
    let of_secret = format!("--peerbus-hmac-secret-file={}", secret.path().display());
    let error = with_flags(&[BIND, &flag, &of_secret]).unwrap_err().to_string();
    assert!(error.contains("the secret has 31 bytes; write 32 or more"), "{error}");
}

#[test]
fn settings_stand_in_tables_of_their_own_and_what_is_printed_says_the_same() {
    let (file, _) = tokens("tok-A\nops=ops-* tok-B");
    let text = format!(
        "[peerbus]\nbind = \"127.0.0.1:1\"\ntokens_file = \"{}\"\n\
         [bus]\ndurability = \"always\"\nretention = \"30d\"\naudit_retention = \"1h\"\nwindow = 16",
        file.path().display()
    );
    let said = Said { file: &text, ..Said::default() };
    let config = said.config().unwrap();
    let Bus { bus_durability, bus_retention, bus_window, audit_retention, .. } = &config.bus;
    assert_eq!((*bus_durability, *bus_window), (BusDurability::Always, 16));
    assert_eq!(*bus_retention, 30 * DAY);
    assert_eq!(*audit_retention, Duration::from_secs(3_600));

    let printed = said.layers().unwrap().to_string();
    let mut again = Said { file: &printed, ..Said::default() }.config().unwrap();
    again.udp_bind_default = config.udp_bind_default;
    assert_eq!(again.peerbus, config.peerbus, "{printed}");
    assert_eq!(again.bus, config.bus, "{printed}");

    for (more, reason) in [
        ("[bus]\naudit = \"required\"", "did you mean"),
        ("[bus]\nwindow = 1\n[peerbus]\nwindow = 1", "no setting has this key"),
        ("bus_window = 1\n[bus]\nwindow = 1", "stands in [bus] and outside"),
    ] {
        let error = Said { file: more, ..Said::default() }.config().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn reload_takes_over_tokens_secret_and_how_long_messages_are_kept() {
    let (file, tokens) = tokens("tok-A");
    let loaded = |more: &[&str]| {
        let flags = [&[BIND, &*tokens], more].concat();
        Said { flags: &flags, ..Said::default() }.loaded()
    };
    let old = loaded(&[]);
    fs::write(file.path(), "tok-B").unwrap();
    let secret = NamedTempFile::new().unwrap();
    fs::write(secret.path(), "x".repeat(32)).unwrap();
    let of_secret = format!("--peerbus-hmac-secret-file={}", secret.path().display());
    let new = loaded(&[
        &of_secret,
        "--bus-retention=1d",
        "--audit-retention=2d",
        "--audit-max-bytes=200000000",
        "--bus-window=7",
    ]);
    let (in_force, difference) = old.updated(&new);
    let mut applied: Vec<_> = difference.applied.iter().map(|change| &*change.key).collect();
    applied.sort_unstable();
    assert_eq!(
        applied,
        [
            "audit_max_bytes",
            "audit_retention",
            "bus_retention",
            "peerbus_hmac_secret_file",
            "peerbus_tokens_file"
        ]
    );
    let waits: Vec<_> = difference.needs_restart.iter().map(|change| &*change.key).collect();
    assert_eq!(waits, ["bus_window"]);
    assert_eq!(in_force.config.peerbus, new.config.peerbus);
    assert_eq!((in_force.config.bus.bus_retention, in_force.config.bus.bus_window), (DAY, 256));
}
