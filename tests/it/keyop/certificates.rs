//! Who is let in by a certificate, and who is not.

use std::fs;
use std::io::{self, Read as _};
use std::net::TcpStream;

use rcgen::{
    BasicConstraints, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, date_time_ymd,
};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConnection, StreamOwned};

use super::pki::{Authority, Identity, params};
use super::{HUB, Site, record};
use crate::harness::PATIENCE;

/// The alert that ends a handshake of a client with this certificate.
fn alert(
    site: &Site,
    identity: Option<&Identity>,
    version: &'static rustls::SupportedProtocolVersion,
) -> AlertDescription {
    let config = site.authority.client(identity, version, &["h2"]);
    let name = ServerName::try_from(HUB).unwrap();
    let connection = ClientConnection::new(config, name).unwrap();
    let socket = TcpStream::connect(site.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let error = StreamOwned::new(connection, socket).read(&mut [0; 16]).unwrap_err();
    match error.get_ref().and_then(|error| error.downcast_ref()) {
        Some(rustls::Error::AlertReceived(alert)) => *alert,
        other => panic!("{other:?} of {error}"),
    }
}

#[test]
fn client_is_refused_for_each_reason_with_the_alert_that_says_it() {
    let site = Site::start(&[]);
    let good = site.authority.issue("alpha");
    let by = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = params("alpha");
        change(&mut params);
        site.authority.issue_by(params)
    };
    let ended = by(&|params| params.not_after = date_time_ymd(2020, 1, 1));
    let to_come = by(&|params| params.not_before = date_time_ymd(2099, 1, 1));
    let authority = by(&|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    let server =
        by(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let nameless = by(&|params| params.distinguished_name = DistinguishedName::new());
    let empty = by(&|params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "");
    });
    let stranger = Authority::new("another CA").issue("alpha");

    for (what, identity, expected) in [
        ("no certificate", None, AlertDescription::CertificateRequired),
        ("another authority", Some(&stranger), AlertDescription::UnknownCA),
        ("ended", Some(&ended), AlertDescription::CertificateExpired),
        ("not begun", Some(&to_come), AlertDescription::CertificateExpired),
        ("an authority itself", Some(&authority), AlertDescription::CertificateUnknown),
        ("for servers", Some(&server), AlertDescription::UnsupportedCertificate),
        ("no name", Some(&nameless), AlertDescription::CertificateUnknown),
        ("an empty name", Some(&empty), AlertDescription::CertificateUnknown),
    ] {
        assert_eq!(alert(&site, identity, &TLS13), expected, "{what}");
    }
    assert_eq!(alert(&site, Some(&good), &TLS12), AlertDescription::ProtocolVersion);
    let mut peer = site.ws("alpha");
    peer.hello("alpha", &[], false);
}

#[test]
fn who_is_revoked_is_sent_away_and_new_authorities_disconnect_nobody() {
    let more = tempfile::tempdir().unwrap();
    let crl = more.path().join("revoked.pem");
    let authority = Authority::new("test CA");
    fs::write(&crl, authority.revocations(&[])).unwrap();
    let site = Site::of(authority, &[&format!("--keyop-client-crl={}", crl.display())]);
    let (alpha, beta) = (site.authority.issue("alpha"), site.authority.issue("beta"));
    let mut first = site.ws_of(&alpha);
    first.hello("alpha", &[], false);
    let mut second = site.ws_of(&beta);
    second.hello("beta", &[], false);

    fs::write(&crl, site.authority.revocations(&[&alpha])).unwrap();

    assert_eq!(first.close().0, 4403);
    assert_eq!(alert(&site, Some(&alpha), &TLS13), AlertDescription::CertificateRevoked);
    assert_eq!(second.publish(&[record("r1", "orders")]), "r1");

    // Its authority is taken no more, and who is connected stays.
    let other = Authority::new("another CA");
    fs::write(&crl, other.revocations(&[])).unwrap();
    other.write(&site.folder.path().join("ca.crt"));
    site.relay.wait_for_metric("beacon_relay_tls_reloads_total{result=\"ok\"}", 2.0);
    assert_eq!(alert(&site, Some(&beta), &TLS13), AlertDescription::UnknownCA);
    assert_eq!(second.publish(&[record("r2", "orders")]), "r2");
    let stranger = other.issue("gamma");
    let mut third = site.ws_of(&stranger);
    third.hello("gamma", &[], false);
}

#[test]
fn lists_that_are_of_no_use_leave_everything_as_it_was() {
    let site = Site::start(&[]);
    let ca = site.folder.path().join("ca.crt");
    fs::write(&ca, "nonsense").unwrap();
    site.relay.wait_for_metric("beacon_relay_tls_reloads_total{result=\"failed\"}", 1.0);
    let mut peer = site.ws("alpha");
    peer.hello("alpha", &[], false);
}

#[test]
fn client_of_plain_http_hears_that_the_port_speaks_tls() -> io::Result<()> {
    use std::io::Write as _;

    let site = Site::start(&[]);
    let mut socket = TcpStream::connect(site.address)?;
    socket.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    Ok(())
}
