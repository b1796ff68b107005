//! The registry, and this beacon in it.

use std::fs;

use tempfile::NamedTempFile;

use super::super::*;
use super::{Said, refusal, with_flags};

#[test]
fn registering_beacon_needs_an_address() {
    let flags = &["--beacon-id", "7", "--registry", "r:9000"];
    assert!(refusal(flags).starts_with("--beacon-id = \"7\": "));
    assert!(with_flags(&["--beacon-id", "7"]).is_ok());
    assert!(
        with_flags(&["--advertise-addr", "b:9001", "--beacon-id", "7", "--registry", "r:9"])
            .is_ok()
    );
}

#[test]
fn registry_is_believed_as_its_flags_say() {
    let hex = "ab".repeat(32);
    for (flags, tls) in [
        (&[] as &[_], None),
        (&["--registry-tls"], Some(RegistryTrust::System)),
        (
            &["--registry-fingerprint", &hex],
            Some(RegistryTrust::Fingerprint(Fingerprint([0xab; 32]))),
        ),
    ] {
        let flags: Vec<_> = ["--registry", "r:9000"].iter().chain(flags).copied().collect();
        let registry = with_flags(&flags).unwrap().registry.unwrap();
        assert_eq!((registry.address.to_string().as_str(), registry.tls), ("r:9000", tls));
    }
}

#[test]
fn registry_flags_mean_nothing_without_a_registry() {
    let hex = "ab".repeat(32);
    for flags in [
        &["--registry-tls"] as &[_],
        &["--registry-ca", "/ca.pem"],
        &["--registry-fingerprint", &hex],
        &["--registry-admin-token-file", "/token"],
    ] {
        let refused = refusal(flags);
        assert!(refused.ends_with("needs --registry as well"), "{refused}");
    }
    let both = &["--registry", "r:1", "--registry-ca", "/c", "--registry-fingerprint", &hex];
    assert!(refusal(both).contains("cannot be combined"));
}

#[test]
fn authorities_are_a_pem_file_with_a_certificate() {
    let file = NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let flags = &["--registry", "r:9000", "--registry-ca", path];
    let pem = rcgen::generate_simple_self_signed(["r".to_owned()]).unwrap().cert.pem();
    fs::write(&file, &pem).unwrap();
    let registry = with_flags(flags).unwrap().registry.unwrap();
    assert_eq!(registry.tls, Some(RegistryTrust::CaFile(path.into())));

    let broken = pem.replace("MII", "???");
    assert_ne!(broken, pem);
    for (text, reason) in [("nothing", "no certificate"), (&broken, "not a PEM file")] {
        fs::write(&file, text).unwrap();
        let error = with_flags(flags).unwrap_err();
        assert!(error.is_about_a_file() && error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn token_is_read_trimmed_hidden_and_warned_about() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), "  hunter2\n").unwrap();
    let path = file.path().to_str().unwrap();
    let flags = &["--registry", "r:9000", "--registry-admin-token-file", path];

    let said = Said { flags, ..Said::default() };
    let config = said.config().unwrap();
    let token = config.registry.as_ref().unwrap().admin_token.as_ref().unwrap();
    assert_eq!(token.expose(), "hunter2");
    assert_eq!(config.warnings, []);
    assert!(!format!("{config:?} {}", said.layers().unwrap()).contains("hunter2"));

    // A byte order mark is no part of it.
    fs::write(file.path(), "\u{feff}hunter3\n").unwrap();
    let config = said.config().unwrap();
    let token = config.registry.as_ref().unwrap().admin_token.as_ref().unwrap();
    assert_eq!(token.expose(), "hunter3");

    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(said.config().unwrap().warnings.len(), 1);

    fs::write(file.path(), " \n").unwrap();
    let error = said.config().unwrap_err();
    assert!(error.is_about_a_file());
    assert!(error.to_string().contains(": the file is empty; write"), "{error}");
}
