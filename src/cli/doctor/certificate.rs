//! TLS: is the certificate good for this name, and for how long?
//!
//! The handshake goes on with a bad certificate as well, so that one run finds all that is
//! wrong; nothing secret is sent over such a connection, and nobody logs in.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, ProtocolVersion, RootCertStore,
    SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::PATIENCE;
use super::report::Report;
use crate::client::Target;
use crate::net::tls::{file_roots, system_roots};
use crate::net::words::{of_handshake, of_tls};

pub(super) const DAY: u64 = 24 * 60 * 60;

/// A proxy that renews by itself has done so long before: Caddy at a third of the time, which
/// for 90 days is 30.
pub(super) const SOON: u64 = 14 * DAY;

/// Certificates of a CA of one's own may be meant to live for hours: those of Caddy's own CA
/// for 12, of which 4 are left when they are renewed.
const SOON_OF_ONES_OWN: u64 = 60 * 60;

/// The last second of the year 9999, the last that a certificate can name.
const FAR: u64 = 253_402_300_799;

/// Most certificates of a chain that are asked for their end.
const LONGEST_CHAIN: usize = 8;

/// Shakes hands; the connection, and whether the certificate is to be trusted.
pub(super) async fn check<S: AsyncRead + AsyncWrite + Unpin>(
    target: &Target,
    ca: Option<&Path>,
    stream: S,
    report: &mut Report,
) -> Option<(TlsStream<S>, bool)> {
    let judge = match ca.map_or_else(system_roots, file_roots).map_err(|error| error.to_string()) {
        Ok(roots) => Judge::new(roots),
        Err(error) => Err(error),
    };
    let judge = match judge {
        Ok(judge) => Arc::new(judge),
        Err(error) => {
            report.fail("tls", format!("nobody to trust: {error}"), "name a good --ca FILE");
            return None;
        }
    };
    let Ok(name) = ServerName::try_from(target.host.clone()) else {
        report.fail("tls", "the host is no name of a certificate", "correct the URL");
        return None;
    };
    let shaken = timeout(PATIENCE, judge.connector().connect(name, stream)).await;
    let tls = match shaken {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => {
            let remedy = "is this the proxy's TLS port? Its log says what it thinks; a listener \
                          without TLS is ws://";
            let found = format!("the handshake failed: {}", of_handshake(&error));
            report.fail("tls", found, remedy);
            return None;
        }
        Err(_late) => {
            let remedy = "is this the proxy's TLS port?";
            report.fail("tls", "the handshake takes over 10 s", remedy);
            return None;
        }
    };
    let version = match tls.get_ref().1.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    let trusted = judge.verdict.lock().take().is_some_and(|verdict| match verdict {
        Ok(end) => {
            let soon = if ca.is_some() { SOON_OF_ONES_OWN } else { SOON };
            tell_end(end, UnixTime::now(), soon, version, report);
            true
        }
        Err(error) => {
            let (found, remedy) = explain(&error, &target.host);
            report.fail("tls", found, remedy);
            false
        }
    });
    Some((tls, trusted))
}

fn tell_end(end: UnixTime, now: UnixTime, soon: u64, version: &str, report: &mut Report) {
    let left = end.as_secs().saturating_sub(now.as_secs());
    let found = format!(
        "{version}, a trusted certificate until {} ({} days)",
        date(end.as_secs()),
        left / DAY
    );
    if left < soon {
        let remedy = "does whatever renews it still run? Its log tells; ACME needs port 80 or 443";
        report.warn("tls", found, remedy);
    } else {
        report.ok("tls", found);
    }
}

/// What is wrong with a certificate, and what helps.
fn explain(error: &Error, host: &str) -> (String, String) {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest says itself what it is")]
    match error {
        Error::InvalidCertificate(CertificateError::ExpiredContext { not_after, .. }) => (
            format!(
                "the certificate, or one of its chain, expired on {}",
                date(not_after.as_secs())
            ),
            "renew it, and reload the proxy; its log says why it did not".to_owned(),
        ),
        Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }) => (
            format!("the certificate begins on {}", date(not_before.as_secs())),
            "is the clock of this machine right?".to_owned(),
        ),
        Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented, ..
        }) => (
            format!("the certificate is for {}, not for {host}", names(presented)),
            format!("give the proxy a certificate for {host}, or use a name that it has"),
        ),
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => (
            "the certificate is signed by nobody whom this machine trusts".to_owned(),
            "serve the whole chain (fullchain.pem); for a CA of your own: --ca FILE".to_owned(),
        ),
        other => (of_tls(other), "give the proxy another certificate".to_owned()),
    }
}

/// The names in a certificate, which rustls shows as `DnsName("relay.example.org")`.
fn names(presented: &[String]) -> String {
    let plain = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    presented.iter().map(plain).collect::<Vec<_>>().join(", ")
}

/// Judges the certificate as a client would, remembers the verdict, and lets it pass.
#[derive(Debug)]
struct Judge {
    verifier: Arc<WebPkiServerVerifier>,
    /// When the first certificate of a good chain ends.
    verdict: Mutex<Option<Result<UnixTime, Error>>>,
}

impl Judge {
    fn new(roots: RootCertStore) -> Result<Self, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
        let verifier = verifier.map_err(|error| error.to_string())?;
        Ok(Self { verifier, verdict: Mutex::default() })
    }

    fn connector(self: &Arc<Self>) -> TlsConnector {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has what TLS 1.2 and 1.3 need")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(self) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let at = |time| {
            let judge = &self.verifier;
            judge.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, time)
        };
        *self.verdict.lock() = Some(at(now).map(|_| first_end(at)));
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// The first end of a chain: asked about a time when it is over, the verifier names the end of
/// the first certificate that it looks at; about that time, that of the next that ends earlier.
fn first_end(at: impl Fn(UnixTime) -> Result<ServerCertVerified, Error>) -> UnixTime {
    let mut end = UnixTime::since_unix_epoch(Duration::from_secs(FAR));
    for _ in 0..LONGEST_CHAIN {
        match at(end) {
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => end = not_after,
            Ok(_) | Err(_) => break,
        }
    }
    end
}

/// The day of a time in Unix seconds, in UTC: `2026-11-20`.
pub(super) fn date(seconds: u64) -> String {
    // The proleptic Gregorian calendar, from the 1st of March of a year 0 on: the day that
    // leap years add is then the last. 719,468 days lie between then and 1970.
    let days = seconds / DAY + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    format!("{:04}-{month:02}-{day:02}", era * 400 + year + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, day) in [
            (0, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_767_225_600, "2026-01-01"),
            (1_772_323_199, "2026-02-28"),
            (1_772_323_200, "2026-03-01"),
            (4_107_542_400, "2100-03-01"),
            (FAR, "9999-12-31"),
        ] {
            assert_eq!(date(seconds), day, "{seconds}");
        }
    }

    #[test]
    fn certificate_that_ends_soon_is_worth_a_look() {
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_767_225_600));
        for (days, code) in [(60, None), (14, None), (13, Some(1)), (0, Some(1))] {
            let end = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + days * DAY));
            let mut report = Report::default();
            tell_end(end, now, SOON, "TLS 1.3", &mut report);
            assert_eq!(report.end().err().map(|exit| exit.code()), code, "{days}: {report}");
        }
    }
}
