//! Names for certificates: where the relay listens then, and what does not go with them.

use super::*;

const TABLE: &str = "[[listener]]\nbind = \"[::]:444\"\ndoors = [\"pilot\"]\nacme = [\"b.test\"]\n\
                     acme_contact = [\"mailto:b@b.test\"]\n";

fn said(flags: &[&str], file: &str) -> Config {
    Said { flags, file, ..Said::default() }.config().unwrap()
}

fn refusal(flags: &[&str], file: &str) -> String {
    Said { flags, file, ..Said::default() }.config().unwrap_err().to_string()
}

#[test]
fn name_alone_is_a_public_listener_with_tls() {
    let config = said(&["--acme=A.test,b.test", "--acme-contact=mailto:a@a.test"], "");
    let [listener] = &*config.all_listeners(false) else { panic!("one") };
    assert_eq!(listener.bind.to_string(), "[::]:443");
    assert_eq!(
        listener.acme.iter().map(AcmeName::as_str).collect::<Vec<_>>(),
        ["a.test", "b.test"]
    );
    assert!(listener.speaks_tls() && listener.trusted_proxies.is_empty());
    assert_eq!(config.warnings, []);
    let acme = config.acme().unwrap();
    assert_eq!(acme.directory.as_str(), "https://acme-v02.api.letsencrypt.org/directory");
    assert_eq!(acme.contacts[0].as_str(), "mailto:a@a.test");
    let bound = said(&["--acme=a.test", "--wss-bind=127.0.0.1:7"], "");
    assert_eq!(bound.wss_bind.to_string(), "127.0.0.1:7");
    for none in [said(&[], ""), said(&["--acme="], "")] {
        assert_eq!(none.wss_bind.to_string(), "127.0.0.1:8443");
        assert_eq!(none.acme(), None);
    }
}

#[test]
fn tables_have_names_of_their_own_and_one_account() {
    let config = said(&[], TABLE);
    let binds: Vec<_> = config.all_listeners(false).iter().map(|l| l.bind.to_string()).collect();
    assert_eq!(binds, ["[::]:444"]);
    // Whoever names names for wss_bind wants it.
    let flags = ["--acme=a.test", "--acme-contact=mailto:a@a.test,mailto:b@b.test"];
    let config = said(&flags, TABLE);
    let binds: Vec<_> = config.all_listeners(false).iter().map(|l| l.bind.to_string()).collect();
    assert_eq!(binds, ["[::]:443", "[::]:444"]);
    let contacts = config.acme().unwrap().contacts;
    let contacts: Vec<_> = contacts.iter().map(AcmeContact::as_str).collect();
    assert_eq!(contacts, ["mailto:a@a.test", "mailto:b@b.test"]);
}

#[test]
fn what_no_certificate_can_come_of_is_refused() {
    for (flags, reason) in [
        (&["--acme=*.a.test"][..], "--acme = \"*.a.test\": `*.a.test` is a wildcard"),
        (&["--acme=192.0.2.1"], "`192.0.2.1` is an IP address"),
        (&["--acme=a.test,a.test"], "a.test comes twice"),
        (&["--acme=a.test", "--acme-contact=a@a.test"], "write mailto:"),
        (&["--acme=a.test", "--acme-directory=http://ca.test/"], "with https://"),
        (&["--acme=a.test", "--acme-directory-ca=/none.pem"], "cannot be read"),
    ] {
        let refusal = refusal(flags, "");
        assert!(refusal.contains(reason), "{refusal}");
    }
    let many: Vec<_> = (0..101).map(|number| format!("a{number}.test")).collect();
    let refused = refusal(&[&format!("--acme={}", many.join(","))], "");
    assert!(refused.contains("more than 100 names"), "{refused}");
}

#[test]
fn setting_of_certificates_that_nobody_orders_is_a_warning() {
    let flags = ["--acme-contact=mailto:a@a.test", "--acme-directory=https://ca.test/"];
    let warnings = said(&flags, "").warnings;
    let warnings: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("--acme-contact does nothing without --acme"), "{warnings:?}");
    assert_eq!(said(&flags, TABLE).warnings, []);
}
