//! The settings of the middleman door: what goes with what, and what a reload takes.

use super::*;

const BIND: &str = "--middleman-bind=127.0.0.1:8764";

/// A file of keys, and the flag that names it.
fn keys(of: &str, text: &str) -> (NamedTempFile, String) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let flag = format!("--middleman-{of}-keys-file={}", file.path().display());
    (file, flag)
}

#[test]
fn relay_for_middleman_alone_has_no_listener_for_nodes() {
    let (_file, services) = keys("service", "xyzzy\n");
    let config = with_flags(&[BIND, &services]).unwrap();
    let listeners = config.all_listeners(false);
    let [listener] = &*listeners else { panic!("{listeners:?}") };
    assert_eq!((listener.label(), &*listener.setting), ("middleman", "middleman-bind"));
    assert_eq!(listener.doors, [&MIDDLEMAN]);
    assert_eq!(listener.routes.door("/any/path"), Some(&MIDDLEMAN));
    assert_eq!(config.udp_bind, "127.0.0.1:0".parse().unwrap(), "nobody else reaches it");

    let door = config.middleman.unwrap();
    assert!(door.tells_guid);
    assert_eq!((door.request_timeout, door.max_message), (Duration::from_secs(30), 1_048_576));
    assert_eq!(door.client_keys, Keys::default(), "nobody is a client");
}

#[test]
fn settings_of_middleman_mean_nothing_without_each_other() {
    let (_file, services) = keys("service", "xyzzy\n");
    for (flags, reason) in [
        (&[BIND][..], "needs --middleman-service-keys-file as well"),
        (&["--middleman-client-keys-file=/c"], "needs --middleman-service-keys-file as well"),
        (&[&services], "add --middleman-bind, or write doors"),
        (&[&services, "--middleman-bind=:8764"], "it is open to others than this machine"),
        (&[&services, BIND, "--middleman-max-message=1048577"], "4096 to 1048576"),
        (&[&services, BIND, "--middleman-request-timeout=0s"], "1ms to"),
    ] {
        let refused = refusal(flags);
        assert!(refused.contains(reason), "{flags:?}: {refused}");
    }
    let file = "[[listener]]\nbind = \"127.0.0.1:1\"\ndoors = [\"middleman\"]";
    let error = Said { file, ..Said::default() }.config().unwrap_err().to_string();
    assert!(error.contains("the middleman door of a [[listener]] needs it"), "{error}");
    let said = Said { file, flags: &[&services], ..Said::default() };
    assert_eq!(said.config().unwrap().all_listeners(false).len(), 2);
}

#[test]
fn door_without_a_store_is_allowed_in_a_cluster() {
    let (_file, services) = keys("service", "xyzzy\n");
    assert!(with_flags(&[&services, BIND, "--cluster-nats=nats://n"]).is_ok());
}

#[test]
fn key_of_a_service_is_refused_for_clients_and_not_shown() {
    let (_services, of_services) = keys("service", "xyzzy\nhunter2");
    let (clients, of_clients) = keys("client", "plugh\nhunter2");
    let error = with_flags(&[BIND, &of_services, &of_clients]).unwrap_err().to_string();
    assert!(error.contains("middleman-client-keys-file"), "{error}");
    assert!(error.contains("would be a service"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");

    fs::write(clients.path(), "\n").unwrap();
    let error = with_flags(&[BIND, &of_services, &of_clients]).unwrap_err();
    assert!(error.is_about_a_file() && error.to_string().contains("no key in it"), "{error}");
    fs::write(clients.path(), "plugh").unwrap();
    assert!(with_flags(&[BIND, &of_services, &of_clients]).is_ok());
}

#[test]
fn settings_stand_in_a_table_and_what_is_printed_says_the_same() {
    let (file, _) = keys("service", "xyzzy");
    let text = format!(
        "[middleman]\nbind = \"127.0.0.1:1\"\nservice_keys_file = \"{}\"\nguid = false\n\
         request_timeout = \"5s\"\nmax_message = 65536",
        file.path().display()
    );
    let said = Said { file: &text, ..Said::default() };
    let config = said.config().unwrap();
    let door = config.middleman.as_ref().unwrap();
    assert_eq!((door.tells_guid, door.max_message), (false, 65_536));

    let printed = said.layers().unwrap().to_string();
    let again = Said { file: &printed, ..Said::default() }.config().unwrap();
    assert_eq!(again.middleman, config.middleman, "{printed}");
}

#[test]
fn reload_takes_over_keys_and_times() {
    let (services, of_services) = keys("service", "xyzzy");
    let (_clients, of_clients) = keys("client", "plugh");
    let loaded = |more: &[&str]| {
        let flags = [&[BIND, &*of_services], more].concat();
        Said { flags: &flags, ..Said::default() }.loaded()
    };
    let old = loaded(&[]);
    fs::write(services.path(), "xyzzy\nanother").unwrap();
    let new = loaded(&[
        &of_clients,
        "--middleman-guid=false",
        "--middleman-request-timeout=1s",
        "--middleman-max-message=8192",
    ]);
    let (in_force, difference) = old.updated(&new);
    let mut applied: Vec<_> = difference.applied.iter().map(|change| &*change.key).collect();
    applied.sort_unstable();
    assert_eq!(
        applied,
        [
            "middleman_client_keys_file",
            "middleman_guid",
            "middleman_request_timeout",
            "middleman_service_keys_file"
        ]
    );
    let waits: Vec<_> = difference.needs_restart.iter().map(|change| &*change.key).collect();
    assert_eq!(waits, ["middleman_max_message"]);
    let expected = Middleman { max_message: 1_048_576, ..new.config.middleman.unwrap() };
    assert_eq!(in_force.config.middleman, Some(expected));
}
