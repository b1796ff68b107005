//! The directory as a whole, without a registry.

use std::fs;

use super::*;

fn node(number: u32) -> NodeId {
    NodeId::new(number).unwrap()
}

fn embedded(state_dir: &Path) -> Directory {
    let state_dir = state_dir.to_owned();
    Directory::open(Settings { keys: None, registry: None, state_dir }).unwrap()
}

#[tokio::test]
async fn embedded_directory_starts_empty_and_takes_what_is_enrolled() {
    let state_dir = tempfile::tempdir().unwrap();
    let directory = embedded(state_dir.path());
    assert_eq!(directory.lookup(node(7)).await, Lookup::Unknown);
    assert_eq!(directory.known(node(7)), None);

    let shutdown = CancellationToken::new();
    let running = tokio::spawn(directory.clone().run(shutdown.clone()));
    let key = PublicKey([7; 32]);
    enroll(state_dir.path(), node(7), key).unwrap();
    assert_eq!(directory.next_change().await, Change::Node(node(7)));
    assert_eq!(directory.lookup(node(7)).await, Lookup::Key(key));
    assert_eq!(directory.known(node(7)), Some(key));

    shutdown.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn session_of_a_key_that_is_cached_is_not_looked_at_again() {
    let state_dir = tempfile::tempdir().unwrap();
    let key = PublicKey([7; 32]);
    let other = PublicKey([8; 32]);
    enroll(state_dir.path(), node(7), key).unwrap();
    let directory = embedded(state_dir.path());

    directory.session_began(node(7), key);
    directory.session_began(node(8), key);
    directory.session_began(node(7), other);

    assert_eq!(directory.next_change().await, Change::Node(node(8)), "it has no key");
    assert_eq!(directory.next_change().await, Change::Node(node(7)), "it has another key");
}

#[tokio::test]
async fn key_file_takes_the_place_of_the_embedded_directory() {
    let state_dir = tempfile::tempdir().unwrap();
    let key = PublicKey([7; 32]);
    enroll(state_dir.path(), node(7), key).unwrap();
    assert_eq!(embedded(state_dir.path()).lookup(node(7)).await, Lookup::Key(key));
    let path = state_dir.path().join("others.json");
    fs::write(&path, format!("{{\"8\": \"{key}\"}}")).unwrap();
    let state_dir = state_dir.path().to_owned();
    let settings = Settings { keys: Some(path), registry: None, state_dir };
    let directory = Directory::open(settings).unwrap();
    assert_eq!(directory.lookup(node(7)).await, Lookup::Unknown);
    assert_eq!(directory.lookup(node(8)).await, Lookup::Key(key));
}

#[test]
fn unusable_settings_are_refused_with_the_reason() {
    let state_dir = tempfile::tempdir().unwrap();
    let keys = state_dir.path().join("keys.json");
    fs::write(&keys, "{\n\"7\": 7}").unwrap();
    let open = |settings: Settings| Directory::open(settings).unwrap_err().to_string();
    let settings =
        Settings { keys: Some(keys), registry: None, state_dir: state_dir.path().to_owned() };
    let error = open(settings.clone());
    assert!(error.contains("keys.json, line 2, column 7: invalid type"), "{error}");

    let registry = |address: &str, tls| {
        let (address, admin_token) = (address.to_owned(), Some("secret".to_owned()));
        let registry =
            Some(RegistrySettings { tls, admin_token, ..RegistrySettings::new(address) });
        Settings { keys: None, registry, ..settings.clone() }
    };
    let error = open(registry("nowhere", None));
    assert!(error.contains("`nowhere`") && error.contains("host:port"), "{error}");
    let ca = crate::net::tls::Trust::CaFile(state_dir.path().join("ca.pem"));
    let error = open(registry("localhost:9000", Some(ca)));
    assert!(error.contains("ca.pem"), "{error}");
}

#[test]
fn token_is_not_in_the_debug_text() {
    let settings = RegistrySettings {
        admin_token: Some("hunter2".to_owned()),
        ..RegistrySettings::new("localhost:9000".to_owned())
    };
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[tokio::test]
async fn without_a_registry_there_are_no_beacons() {
    let state_dir = tempfile::tempdir().unwrap();
    let directory = embedded(state_dir.path());
    assert_eq!(directory.beacons().await, Err(RegistryError::NoRegistry));
    let registered = directory.register_beacon(BeaconId(1), "h:1").await;
    assert_eq!(registered, Err(RegistryError::NoRegistry));
    assert_eq!(directory.reload(false).unwrap(), Reload::default());
}
