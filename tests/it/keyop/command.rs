//! `certs`: keys and certificates as the original makes them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::wording::assert_names_a_way_out;

fn certs(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_beacon-relay"));
    command.current_dir(folder).arg("certs").args(arguments).output().unwrap()
}

fn made(folder: &Path, arguments: &[&str]) -> String {
    let output = certs(folder, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = certs(folder, arguments);
    assert!(!output.status.success());
    let line = String::from_utf8(output.stderr).unwrap();
    assert_names_a_way_out(&line);
    line
}

/// What another program says of the files; nothing where the machine does not have it.
fn openssl(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("openssl").current_dir(folder).args(arguments).output().ok()?;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn certificates_are_those_that_the_original_makes_and_no_file_is_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert_eq!(made(folder, &["ca"]), "ca.crt\nca.key\n");
    assert_eq!(made(folder, &["instance", "--name", "hub.test"]), "hub.test.crt\nhub.test.key\n");

    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    assert!(read("hub.test.key").starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    for key in ["ca.key", "hub.test.key"] {
        assert_eq!(folder.join(key).metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    let shown = made(folder, &["inspect", "hub.test.crt"]);
    for line in [
        "common name  hub.test\n",
        "names        hub.test\n",
        "purposes     server, client\n",
        "authority    no\n",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(made(folder, &["inspect", "ca.crt"]).contains("authority    yes\n"));

    let again = refused(folder, &["instance", "--name", "hub.test"]);
    assert!(again.contains("it exists already, and stays; add --force"), "{again}");
    let before = read("hub.test.key");
    made(folder, &["instance", "--name", "hub.test", "--force"]);
    assert_ne!(read("hub.test.key"), before);

    let Some(verified) = openssl(folder, &["verify", "-CAfile", "ca.crt", "hub.test.crt"]) else {
        return;
    };
    assert_eq!(verified, "hub.test.crt: OK\n");
    let text = openssl(folder, &["x509", "-in", "hub.test.crt", "-noout", "-text"]).unwrap();
    for part in [
        "Subject: CN = hub.test",
        "DNS:hub.test",
        "NIST CURVE: P-384",
        "TLS Web Client Authentication",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    openssl(folder, &["ec", "-in", "hub.test.key", "-check", "-noout"]).unwrap();
}

#[test]
fn authority_of_another_program_signs_and_what_is_none_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    made(folder, &["ca"]);
    made(folder, &["ca", "--out-cert", "other.crt", "--out-key", "other.key"]);
    made(folder, &["instance", "--name", "alpha"]);
    for (arguments, part) in [
        (&["--ca", "alpha.crt", "--ca-key", "alpha.key"][..], "no authority"),
        (&["--ca", "ca.crt", "--ca-key", "other.key"], "other.key is not its key"),
        (&["--ca", "none.crt"], "cannot be read"),
        (&["--ca", "ca.key"], "no certificate"),
        (&["--name", "../x"], "without a slash"),
    ] {
        let arguments = [&["instance", "--name", "beta"][..], arguments].concat();
        let arguments = if arguments.contains(&"../x") {
            vec!["instance", "--name", "../x"]
        } else {
            arguments
        };
        let error = refused(folder, &arguments);
        assert!(error.contains(part) && error.lines().count() == 1, "{error}");
    }
    let subject = "/C=CH/O=Example & Sons/CN=Another CA";
    let made_by_openssl = openssl(
        folder,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-384",
            "-nodes",
            "-subj",
            subject,
            "-keyout",
            "foreign.key",
            "-out",
            "foreign.crt",
            "-addext",
            "basicConstraints=critical,CA:TRUE",
        ],
    );
    if made_by_openssl.is_some() {
        let foreign = ["--ca", "foreign.crt", "--ca-key", "foreign.key"];
        made(folder, &[&["instance", "--name", "gamma"][..], &foreign].concat());
        let verified = openssl(folder, &["verify", "-CAfile", "foreign.crt", "gamma.crt"]);
        assert_eq!(verified.unwrap(), "gamma.crt: OK\n");
    }
}
