//! `[[listener]]` tables: what they say, what is refused, and what a reload takes over of them.

use super::*;

/// A table with the Pilot door at this address, and further lines.
fn pilot(bind: &str, lines: &str) -> String {
    format!("[[listener]]\nbind = \"{bind}\"\ndoors = [\"pilot\"]\n{lines}\n")
}

fn config(file: &str) -> Config {
    Said { file, ..Said::default() }.config().unwrap()
}

fn loaded(file: &str) -> Loaded {
    Said { file, ..Said::default() }.loaded()
}

/// What stands behind `line N: `, and that the file is to blame.
fn refusal_of(file: &str) -> String {
    let error = Said { file, ..Said::default() }.config().unwrap_err();
    assert!(error.is_about_a_file(), "{error}");
    let text = error.to_string();
    let (_, rest) = text.split_once(": line ").unwrap();
    rest.to_owned()
}

/// Where each listener listens, and the name of its socket.
fn binds(config: &Config) -> Vec<(String, Option<String>)> {
    let listeners = config.all_listeners(false).into_iter();
    listeners.map(|listener| (listener.bind.to_string(), listener.name)).collect()
}

#[test]
fn table_says_what_the_flags_say_of_the_listener_of_wss_bind() {
    let file = pilot(
        "0.0.0.0:8444",
        "name = \"lan\"\npublic_plaintext = true\ntrusted_proxies = [\"10.0.0.0/8\"]\n\
         allow_origins = [\"https://App.test\"]",
    );
    let listeners = config(&file).all_listeners(false);
    let [listener] = &*listeners else { panic!("{listeners:?}") };
    assert_eq!(listener.setting, "listener[1].bind");
    assert_eq!(listener.name.as_deref(), Some("lan"));
    assert_eq!(listener.bind.to_string(), "0.0.0.0:8444");
    assert_eq!(listener.routes, Routes::default());
    assert!(listener.public_plaintext);
    assert_eq!(listener.trusted_proxies, ["10.0.0.0/8".parse().unwrap()]);
    let origin = "https://app.test".parse().unwrap();
    assert_eq!(listener.allow_origins, AllowOrigins::Only(vec![origin]));
}

#[test]
fn local_table_trusts_loopback_and_follows_the_rule_of_its_doors() {
    for bind in ["127.0.0.1:1", "unix:/run/a.sock"] {
        let listeners = config(&pilot(bind, "")).all_listeners(false);
        assert_eq!(listeners[0].trusted_proxies, IpNet::LOOPBACK, "{bind}");
        assert_eq!(listeners[0].allow_origins, AllowOrigins::DoorsAnd(vec![]));
    }
    let given = config(&pilot("127.0.0.1:1", "trusted_proxies = []\nallow_origins = []"));
    assert_eq!(given.listeners[0].trusted_proxies, []);
    assert_eq!(given.listeners[0].allow_origins, AllowOrigins::Only(vec![]));
    let public = config(&pilot(":1", "public_plaintext = true\nallow_origins = \"*\""));
    assert_eq!(public.listeners[0].trusted_proxies, []);
    assert_eq!(public.listeners[0].allow_origins, AllowOrigins::Any);
}

#[test]
fn listener_of_wss_bind_is_there_if_it_is_set_or_no_table_has_its_door() {
    let wss = |address: &str| (address.to_owned(), Some("wss".to_owned()));
    let table = ("127.0.0.1:1".to_owned(), None);
    let file = pilot("127.0.0.1:1", "");

    assert_eq!(binds(&config("")), [wss("127.0.0.1:8443")]);
    assert_eq!(binds(&config(&file)), std::slice::from_ref(&table));
    assert_eq!(binds(&config(&pilot("127.0.0.1:8443", ""))).len(), 1, "no collision");
    let in_file = config(&format!("wss_bind = \"127.0.0.1:8443\"\n{file}"));
    assert_eq!(binds(&in_file), [wss("127.0.0.1:8443"), table.clone()]);
    let by_flag = Said { file: &file, flags: &["--wss-bind=[::1]:7"], ..Said::default() };
    assert_eq!(binds(&by_flag.config().unwrap()), [wss("[::1]:7"), table.clone()]);
    let variables = &[("BEACON_RELAY_WSS_BIND", "[::1]:8")] as &[_];
    let by_variable = Said { file: &file, variables, ..Said::default() };
    assert_eq!(binds(&by_variable.config().unwrap()), [wss("[::1]:8"), table]);
    // As when systemd hands over a socket for it.
    assert_eq!(config(&file).all_listeners(true).len(), 2);
}

#[test]
fn setting_of_a_listener_that_is_not_there_is_warned_of() {
    let file = format!("allow_origin = [\"https://a.test\"]\n{}", pilot("127.0.0.1:1", ""));
    let warnings: Vec<_> = config(&file).warnings.iter().map(ToString::to_string).collect();
    let [warning] = &*warnings else { panic!("{warnings:?}") };
    assert!(warning.contains(": line 1: allow_origin does nothing: "), "{warning}");
    assert_eq!(config(&format!("wss_bind = \"[::1]:1\"\n{file}")).warnings, []);
}

#[test]
fn error_names_the_key_the_value_the_reason_and_the_way_out() {
    for (lines, said) in [
        (
            "bind = \"localhost:1\"\ndoors = [\"pilot\"]",
            "2: listener[1].bind = \"localhost:1\": not IP:PORT",
        ),
        (
            "bind = \":1\"\ndoors = [\"pilot\"]",
            "2: listener[1].bind = \":1\": it is open to others",
        ),
        ("doors = [\"pilot\"]", "1: listener[1].bind = \"\": missing; write where to listen"),
        ("bind = \":1\"", "1: listener[1].doors = \"\": missing; write what is spoken there"),
        (
            "bind = \":1\"\ndoors = [\"x\"]",
            "3: listener[1].doors = \"x\": `x` is no door; write one of pilot",
        ),
        ("bind = \":1\"\ndoors = []", "3: listener[1].doors = \"\": no door; write one or more"),
        ("name = \"wss\"", "2: listener[1].name = \"wss\": the name of other sockets"),
        (
            "trusted_proxies = [\"x\"]",
            "2: listener[1].trusted_proxies = \"x\": `x` is not an address",
        ),
        (
            "allow_origins = [\"*\", \"x\"]",
            "2: listener[1].allow_origins = \"*,x\": `*` is not an origin",
        ),
        ("public_plaintext = \"maybe\"", "2: listener[1].public_plaintext = \"maybe\": neither"),
        ("path = \"bus\"", "2: listener[1].path = \"bus\": not a path such as /bus"),
        ("path = \"/bus\"", "2: listener[1].path = \"/bus\": pilot has fixed paths"),
        ("path = { pilot = \"/a\" }", "2: listener[1].path = \"pilot=/a\": pilot has fixed paths"),
        (
            "trusted_proxy = []",
            "2: listener[1].trusted_proxy = \"[]\": no setting has this key; did you mean trusted_proxies?",
        ),
        ("bind = {}", "2: listener[1].bind = \"{}\": a table is the value of no setting"),
    ] {
        let lines = if lines.contains("bind") || lines.starts_with("doors") {
            lines.to_owned()
        } else {
            format!("{lines}\nbind = \"[::1]:1\"\ndoors = [\"pilot\"]")
        };
        let refusal = refusal_of(&format!("[[listener]]\n{lines}"));
        assert!(refusal.starts_with(said), "{refusal}\n{said}");
    }
    let second = format!("{}[[listener]]\nbind = \"x\"", pilot("[::1]:1", ""));
    assert!(refusal_of(&second).contains(": listener[2].doors = "), "the place of the second");
    for text in ["listener = 1", "listener = [1]", "[listener]\nbind = \":1\""] {
        assert!(refusal_of(text).contains("write [[listener]]"), "{text}");
    }
}

#[test]
fn authorities_of_clients_need_files_that_hold_them_and_tls() {
    let refusal = refusal_of(&pilot("[::1]:1", "tls_client_ca = \"/none/ca.pem\""));
    assert!(refusal.starts_with("4: listener[1].tls_client_ca = "), "{refusal}");
    assert!(refusal.contains("cannot be read"), "{refusal}");
    let refusal = refusal_of(&pilot("[::1]:1", "tls_client_crl = \"crl.pem\""));
    assert!(refusal.contains("needs tls_client_ca as well"), "{refusal}");
    let ca = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap().cert.pem();
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), ca).unwrap();
    let named = format!("tls_client_ca = {:?}", file.path());
    let refusal = refusal_of(&pilot("[::1]:1", &named));
    assert!(refusal.contains("the relay has to speak TLS there itself"), "{refusal}");
    let refusal = refusal_of("[[listener]]\nbind = \"127.0.0.1:1\"\ndoors = [\"keyop\"]");
    assert!(refusal.contains("knows its peers by their certificates"), "{refusal}");
}

#[test]
fn address_or_name_that_another_listener_has_is_refused() {
    let two = |one: &str, other: &str| format!("{}{}", pilot(one, ""), pilot(other, ""));
    for (one, other) in [
        ("127.0.0.1:1", "127.0.0.1:1"),
        ("127.0.0.1:1", "[::ffff:127.0.0.1]:1"),
        ("unix:/run/a.sock", "unix:/run//a.sock"),
    ] {
        let refusal = refusal_of(&two(one, other));
        let said = format!("6: listener[2].bind = {other:?}: that is listener[1].bind already");
        assert!(refusal.starts_with(&said), "{refusal}");
        let file = format!("wss_bind = \"{one}\"\n{}", pilot(other, ""));
        let refusal = refusal_of(&file);
        assert!(refusal.contains("that is the address of --wss-bind"), "{refusal}");
    }
    assert_eq!(config(&two("127.0.0.1:0", "127.0.0.1:0")).listeners.len(), 2);
    let named = format!("{}{}", pilot("[::1]:1", "name = \"a\""), pilot("[::1]:2", "name = \"a\""));
    assert!(refusal_of(&named).contains("listener[2].name = \"a\": that is listener[1].name"));
}

#[test]
fn what_is_printed_with_tables_is_a_file_that_says_the_same() {
    let tables = format!(
        "udp_bind = \":9001\"\n{}{}",
        pilot("unix:/run/a b.sock", "name = \"a\"\nallow_origins = \"*\""),
        pilot("[::1]:1", "trusted_proxies = []\nallow_origins = []\npublic_plaintext = true"),
    );
    for file in [tables.clone(), format!("wss_bind = \"[::1]:9\"\n{tables}")] {
        let loaded = loaded(&file);
        let printed = loaded.layers.to_string();
        assert_eq!(config(&printed), loaded.config, "{printed}");
    }
    let printed = loaded(&tables).layers.to_string();
    assert!(printed.contains("\n# wss_bind is not used: a [[listener]] has the door pilot\n"));
    assert!(printed.contains("\n[[listener]]\nname = \"a\" # by "), "{printed}");
    assert!(printed.contains("trusted_proxies = [\"127.0.0.0/8\", \"::1/128\"]\n"), "{printed}");
}

#[test]
fn setting_that_waits_for_the_socket_of_wss_is_printed() {
    let table = pilot("127.0.0.1:1", "");
    let file = format!("allow_origin = \"https://a.test\"\npublic_plaintext = true\n{table}");
    let loaded = loaded(&file);
    let printed = loaded.layers.to_string();
    assert!(printed.contains("\n# trusted_proxy is not used: "), "{printed}");
    assert_eq!(
        config(&printed).all_listeners(true),
        loaded.config.all_listeners(true),
        "{printed}"
    );
}

#[test]
fn table_of_the_same_address_takes_over_what_is_live() {
    let old = format!("{}{}", pilot("[::1]:1", ""), pilot("[::1]:2", ""));
    // In another order, and with something of everything.
    let new = format!(
        "{}{}",
        pilot("[::1]:2", "trusted_proxies = [\"10.0.0.1\"]\nallow_origins = \"*\"\nname = \"b\""),
        pilot("[::1]:3", ""),
    );
    let (old, new) = (loaded(&old), loaded(&new));

    let (in_force, difference) = old.updated(&new);

    assert_eq!(
        loaded::texts(&difference.applied),
        [
            ("listener[1].trusted_proxies", "127.0.0.0/8,::1/128", "10.0.0.1"),
            ("listener[1].allow_origins", "", "*"),
        ]
    );
    assert_eq!(
        loaded::texts(&difference.needs_restart),
        [
            ("listener[1].bind", "[::1]:1", ""),
            ("listener[1].name", "", "b"),
            ("listener[2].bind", "", "[::1]:3"),
        ]
    );
    let [first, second] = &*in_force.config.listeners else { panic!("the listeners stay") };
    assert_eq!(*first, old.config.listeners[0]);
    let taken_over = &new.config.listeners[0];
    assert_eq!(second.trusted_proxies, taken_over.trusted_proxies);
    assert_eq!((&second.allow_origins, &second.name), (&taken_over.allow_origins, &None));
    let (_, again) = in_force.updated(&new);
    assert_eq!(again, Difference { applied: Vec::new(), ..difference });
}

#[test]
fn listener_of_wss_bind_that_would_come_or_go_waits_for_a_restart() {
    let (none, table) = (loaded(""), loaded(&pilot("[::1]:1", "")));
    assert_eq!(
        loaded::texts(&none.updated(&table).1.needs_restart),
        [("wss_bind", "127.0.0.1:8443", ""), ("listener[1].bind", "", "[::1]:1")]
    );
    let back = table.updated(&none).1;
    assert_eq!(
        loaded::texts(&back.needs_restart),
        [("wss_bind", "", "127.0.0.1:8443"), ("listener[1].bind", "[::1]:1", "")]
    );
    assert_eq!(back.applied, []);
}
