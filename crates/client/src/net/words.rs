//! What people are told of a failed TLS handshake, instead of the names that the library has for it.

use std::io;

use rustls::{CertificateError, Error};

/// An error of a handshake in words; anything but TLS says itself what it is.
#[must_use]
pub fn of_handshake(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.map_or_else(|| error.to_string(), of_tls)
}

/// An error of TLS in words.
#[must_use]
pub fn of_tls(error: &Error) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest says itself what it is")]
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => {
            format!("the other side refused: {}", words(&format!("{alert:?}")))
        }
        other => other.to_string(),
    }
}

/// What is wrong with the certificate of the other side.
#[must_use]
pub fn of_certificate(error: &CertificateError) -> String {
    #[expect(clippy::wildcard_enum_match_arm, reason = "the rest by its name")]
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate, or one of its chain, has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not good yet: is the clock of this machine right?".to_owned()
        }
        CertificateError::Revoked => "its certificate was revoked".to_owned(),
        CertificateError::UnknownIssuer => {
            "its certificate is signed by nobody whom this machine trusts".to_owned()
        }
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("its certificate is for {}, and not for this name", names(presented))
        }
        CertificateError::BadSignature => "its certificate is not its own".to_owned(),
        CertificateError::BadEncoding => "what it shows is no certificate".to_owned(),
        other => {
            let text = format!("{other:?}");
            // As for a certificate that an authority has signed for itself, and a server shows.
            if text.contains("CaUsedAsEndEntity") {
                return "its certificate is that of an authority, which nobody can show as its own"
                    .to_owned();
            }
            format!("its certificate is of no use: {}", words(&text))
        }
    }
}

/// A close of a WebSocket as people read it: its code, where it has one, and what the other side
/// said.
#[must_use]
pub fn of_close(code: Option<u16>, reason: &str) -> String {
    match code {
        Some(code) => format!("{code}, {reason:?}"),
        None => "without a code".to_owned(),
    }
}

/// The names in a certificate, which the library shows as `DnsName("relay.example.org")`.
fn names(presented: &[String]) -> String {
    let plain = |name: &String| name.split('"').nth(1).unwrap_or(name).to_owned();
    presented.iter().map(plain).collect::<Vec<_>>().join(", ")
}

/// The innermost name of a value that is shown as in the source, as words: of
/// `Other(OtherError(UnsupportedVersion))`, `unsupported version`.
fn words(shown: &str) -> String {
    let head = shown.split(['{', ' ']).next().unwrap_or_default();
    let mut names = head.split(['(', ')']).filter(|name| !name.is_empty());
    let name = names.next_back().unwrap_or_default();
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{AlertDescription, OtherError};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("-")]
    struct CaUsedAsEndEntity;

    #[derive(Debug, thiserror::Error)]
    #[error("-")]
    struct UnsupportedCertVersion;

    #[test]
    fn certificate_of_an_authority_was_shown_as_other_of_other_error() {
        let of = |error: Arc<dyn std::error::Error + Send + Sync>| {
            of_tls(&Error::InvalidCertificate(CertificateError::Other(OtherError(error))))
        };
        assert!(of(Arc::new(CaUsedAsEndEntity)).contains("is that of an authority"));
        let other = of(Arc::new(UnsupportedCertVersion));
        assert_eq!(other, "its certificate is of no use: unsupported cert version");
    }

    #[test]
    fn code_of_a_close_was_shown_as_some_number() {
        assert_eq!(of_close(Some(1008), "idle"), "1008, \"idle\"");
        assert_eq!(of_close(None, ""), "without a code");
    }

    #[test]
    fn no_debug_text_reaches_a_person() {
        let presented = vec!["DnsName(\"a.test\")".to_owned(), "DnsName(\"b.test\")".to_owned()];
        let expected = rustls::pki_types::ServerName::try_from("c.test").unwrap().to_owned();
        for error in [
            Error::InvalidCertificate(CertificateError::UnknownIssuer),
            Error::InvalidCertificate(CertificateError::Expired),
            Error::InvalidCertificate(CertificateError::NotValidForNameContext {
                expected,
                presented,
            }),
            Error::AlertReceived(AlertDescription::HandshakeFailure),
        ] {
            let text = of_handshake(&io::Error::new(io::ErrorKind::InvalidData, error));
            assert!(!text.contains(['(', '"', '{']), "{text}");
        }
        assert_eq!(of_handshake(&io::Error::other("late")), "late");
    }
}
