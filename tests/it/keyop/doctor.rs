//! What `doctor` says of the certificates of a keyop listener, its authority, and other hubs.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, date_time_ymd};

use super::pki::{Authority, Identity, params};
use crate::doctor::{Diagnosis, doctor};

/// Makes a certificate another than a good one.
type Change = fn(&mut CertificateParams);

/// The files of a hub, in the order in which they are made.
struct Files {
    folder: tempfile::TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        Self::of(Authority::new("test CA"))
    }

    fn of(authority: Authority) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap(), authority };
        files.authority.write(&files.path("ca.crt"));
        files.show(&files.authority.issue("localhost"));
        files
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn show(&self, hub: &Identity) {
        hub.write(self.folder.path(), "hub");
    }

    /// Shows another certificate than a good one.
    fn show_changed(&self, change: Change) {
        let mut params = params("localhost");
        change(&mut params);
        self.show(&self.authority.issue_by(params));
    }

    fn examine(&self, more: &[&str]) -> Diagnosis {
        let file = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let mut arguments = vec!["--keyop-bind=127.0.0.1:0".to_owned()];
        for (flag, name) in [
            ("--state-dir", "state"),
            ("--keyop-cert", "hub.crt"),
            ("--keyop-key", "hub.key"),
            ("--keyop-client-ca", "ca.crt"),
        ] {
            arguments.push(format!("{flag}={}", file(name)));
        }
        arguments.extend(more.iter().map(|flag| (*flag).to_owned()));
        doctor(arguments)
    }
}

/// Has a certificate end in so many days, or so many ago.
fn end_in(days: i64, params: &mut CertificateParams) {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let end = now.as_secs().checked_add_signed(days * 86_400).unwrap();
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
}

#[test]
fn certificates_that_are_good_are_said_to_be_with_their_names_and_ends() {
    let files = Files::new();
    let lists = files.path("revoked.pem");
    fs::write(&lists, files.authority.revocations(&[])).unwrap();

    let diagnosis = files.examine(&[&format!("--keyop-client-crl={}", lists.display())]);

    // The last of those that are equally bad.
    diagnosis.assert("tls-files", "ok", "hub.crt: for localhost, until ");
}

#[test]
fn each_fault_of_a_hubs_certificate_is_found() {
    let files = Files::new();
    let faults: [(Change, &str, &str); 6] = [
        (|of| end_in(-2, of), "failed", "hub.crt: it ended on 20"),
        (|of| of.not_before = date_time_ymd(2099, 1, 1), "failed", "it begins on 2099-01-01"),
        (|of| end_in(20, of), "warning", "hub.crt: until 20"),
        (|of| of.subject_alt_names.clear(), "warning", "for no name"),
        (
            |of| of.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "failed",
            "it is an authority's own",
        ),
        (
            |of| of.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "failed",
            "not for servers of TLS",
        ),
    ];
    for (change, verdict, part) in faults {
        files.show_changed(change);
        files.examine(&[]).assert("tls-files", verdict, part);
    }
    files.show(&files.authority.issue("other.test"));
    let named = files.examine(&["--keyop-name=localhost"]);
    named.assert("tls-files", "warning", "for other.test, and this hub is localhost in routes");
    files.show(&Authority::new("another CA").issue("localhost"));
    files.examine(&[]).assert("tls-files", "warning", "not signed by the authority of the clients");
}

#[test]
fn authority_and_its_list_are_looked_at() {
    let ended = Authority::by("old CA", |params| end_in(-1, params));
    Files::of(ended).examine(&[]).assert("tls-files", "failed", "ca.crt: it ended on 20");

    let files = Files::new();
    let lists = files.path("revoked.pem");
    let with_list = format!("--keyop-client-crl={}", lists.display());
    fs::write(&lists, files.authority.revocations_until(&[], 2025)).unwrap();
    files.examine(&[&with_list]).assert("tls-files", "warning", "by 2025-01-01");
    fs::write(&lists, Authority::new("another CA").revocations(&[])).unwrap();
    files.examine(&[&with_list]).assert("tls-files", "failed", "no list of test CA");
}

#[test]
fn certificate_that_another_hub_would_refuse_is_found() {
    let files = Files::new();
    let hub = files.path("relay.toml");
    let write = |path: &Path, more: &str| {
        let text = format!(
            "[[keyop.hub]]\nname = \"up.test\"\naddress = \"127.0.0.1:1\"\nsubscribe = [\"a\"]\n{more}"
        );
        fs::write(path, text).unwrap();
    };
    write(&hub, "");
    let with_hub = format!("--config={}", hub.display());
    files.show_changed(|of| of.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    files.examine(&[&with_hub]).assert(
        "tls-files",
        "failed",
        "not for clients of TLS: the hub up.test",
    );

    let (soon, old) = (files.path("up.crt"), files.path("up.key"));
    let mut params = params("client");
    end_in(3, &mut params);
    files.authority.issue_by(params).write(files.folder.path(), "up");
    files.show(&files.authority.issue("localhost"));
    write(&hub, &format!("cert = {soon:?}\nkey = {old:?}\n"));
    files.examine(&[&with_hub]).assert("tls-files", "warning", "up.crt: until 20");
}
