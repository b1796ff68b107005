//! Certificates of X.509 (RFC 5280), read as far as identities and operators need it.
//!
//! It reads what a TLS library has verified, or what an operator wants to see, and verifies nothing
//! itself: signatures, chains and validity are the library's.

mod der;
mod list;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use der::{
    BOOLEAN, Der, IA5_STRING, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, PRINTABLE_STRING, SEQUENCE,
    SET, UTF8_STRING, time,
};
pub use list::RevocationList;

/// Longest common name that is taken for an identity, in bytes.
pub const MAX_COMMON_NAME: usize = 255;

const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;

/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// id-ce-subjectAltName, 2.5.29.17.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

/// id-ce-basicConstraints, 2.5.29.19.
const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];

/// id-ce-extKeyUsage, 2.5.29.37.
const KEY_PURPOSES: &[u8] = &[0x55, 0x1d, 0x25];

/// id-kp-serverAuth, 1.3.6.1.5.5.7.3.1.
const SERVER: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];

/// id-kp-clientAuth, 1.3.6.1.5.5.7.3.2.
const CLIENT: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Why bytes are no certificate, or name nobody.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// They are no DER, or another structure.
    #[error("not a certificate")]
    Malformed,
    /// A time is none.
    #[error("a time that does not exist")]
    Time,
    /// The subject has no common name.
    #[error("no common name")]
    NoCommonName,
    /// The subject has several, and each could be the peer's.
    #[error("more than one common name")]
    SeveralCommonNames,
    /// It is empty, too long, or has characters that do not show.
    #[error("a common name that is empty, longer than {MAX_COMMON_NAME} bytes, or no plain text")]
    UnusableCommonName,
}

/// What its key may be used for (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// For servers of TLS.
    Server,
    /// For clients of TLS.
    Client,
    /// For something else.
    Other,
}

/// What a certificate says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate<'a> {
    /// Its number among those of its issuer, big-endian.
    pub serial: &'a [u8],
    /// Who signed it, as DER.
    pub issuer: &'a [u8],
    /// Whom it is of, as DER.
    pub subject: &'a [u8],
    /// The common names of its subject, where they are text.
    pub common_names: Vec<&'a str>,
    /// Whether each of them is text: UTF-8, printable, or IA5.
    pub names_are_text: bool,
    /// Unix time from which it is good, in seconds.
    pub not_before: i64,
    /// Unix time until which it is, in seconds.
    pub not_after: i64,
    /// The DNS names that it is for.
    pub dns_names: Vec<&'a str>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// What its key may be used for; everything where it says nothing.
    pub purposes: Vec<Purpose>,
    /// Whether it may sign others.
    pub is_authority: bool,
}

impl<'a> Certificate<'a> {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(der: &'a [u8]) -> Result<Self, CertificateError> {
        let mut outer = Der(Der(der).take(SEQUENCE)?);
        let mut signed = Der(outer.take(SEQUENCE)?);
        signed.optional(VERSION)?;
        let serial = signed.take(INTEGER)?;
        signed.take(SEQUENCE)?;
        let issuer = signed.take(SEQUENCE)?;
        let mut validity = Der(signed.take(SEQUENCE)?);
        let not_before = time(validity.next()?)?;
        let not_after = time(validity.next()?)?;
        let subject = signed.take(SEQUENCE)?;
        let mut certificate = Self {
            serial,
            issuer,
            subject,
            common_names: Vec::new(),
            names_are_text: true,
            not_before,
            not_after,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            purposes: Vec::new(),
            is_authority: false,
        };
        certificate.take_subject(subject)?;
        // The key.
        signed.take(SEQUENCE)?;
        while !signed.is_empty() {
            if let (EXTENSIONS, extensions) = signed.next()? {
                let mut extensions = Der(Der(extensions).take(SEQUENCE)?);
                while !extensions.is_empty() {
                    certificate.take_extension(extensions.take(SEQUENCE)?)?;
                }
            }
        }
        Ok(certificate)
    }

    /// The one common name of its subject, which is who has it.
    ///
    /// # Errors
    /// There is none, there are several, or it is of no use as a name.
    pub fn common_name(&self) -> Result<&'a str, CertificateError> {
        if !self.names_are_text {
            return Err(CertificateError::UnusableCommonName);
        }
        let name = match *self.common_names {
            [] => return Err(CertificateError::NoCommonName),
            [name] => name,
            _ => return Err(CertificateError::SeveralCommonNames),
        };
        let is_usable = !name.is_empty()
            && name.len() <= MAX_COMMON_NAME
            && !name.chars().any(char::is_control);
        is_usable.then_some(name).ok_or(CertificateError::UnusableCommonName)
    }

    /// What its subject is made of, in order: of each part the object identifier, the kind of the
    /// text, and the text.
    ///
    /// # Errors
    /// It is none, or has parts of several attributes, which hardly any authority makes.
    pub fn attributes(&self) -> Result<Vec<Attribute<'a>>, CertificateError> {
        let mut subject = Der(self.subject);
        let mut attributes = Vec::new();
        while !subject.is_empty() {
            let mut set = Der(subject.take(SET)?);
            attributes.push(Attribute::take(&mut set)?);
            if !set.is_empty() {
                return Err(CertificateError::Malformed);
            }
        }
        Ok(attributes)
    }

    fn take_subject(&mut self, subject: &'a [u8]) -> Result<(), CertificateError> {
        let mut subject = Der(subject);
        while !subject.is_empty() {
            let mut set = Der(subject.take(SET)?);
            while !set.is_empty() {
                let attribute = Attribute::take(&mut set)?;
                if attribute.kind != COMMON_NAME {
                    continue;
                }
                match attribute.text {
                    Some((_, name)) => self.common_names.push(name),
                    None => self.names_are_text = false,
                }
            }
        }
        Ok(())
    }

    fn take_extension(&mut self, extension: &'a [u8]) -> Result<(), CertificateError> {
        let mut extension = Der(extension);
        let kind = extension.take(OBJECT_IDENTIFIER)?;
        extension.optional(BOOLEAN)?;
        let mut value = Der(extension.take(OCTET_STRING)?);
        if kind == BASIC_CONSTRAINTS {
            let mut constraints = Der(value.take(SEQUENCE)?);
            let is_authority = constraints.optional(BOOLEAN)?;
            self.is_authority = is_authority.is_some_and(|truth| truth != [0]);
        } else if kind == KEY_PURPOSES {
            let mut purposes = Der(value.take(SEQUENCE)?);
            while !purposes.is_empty() {
                self.purposes.push(match purposes.take(OBJECT_IDENTIFIER)? {
                    SERVER => Purpose::Server,
                    CLIENT => Purpose::Client,
                    _ => Purpose::Other,
                });
            }
        } else if kind == ALTERNATIVE_NAMES {
            let mut names = Der(value.take(SEQUENCE)?);
            while !names.is_empty() {
                match names.next()? {
                    (DNS_NAME, name) => {
                        let name = str::from_utf8(name);
                        self.dns_names.push(name.map_err(|_| CertificateError::Malformed)?);
                    }
                    (IP_ADDRESS, address) => {
                        self.addresses.push(ip(address).ok_or(CertificateError::Malformed)?);
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

/// A part of a subject.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Attribute<'a> {
    /// Its object identifier, as DER without the head.
    pub kind: &'a [u8],
    /// What it says; none where that is no text of the kinds that are read.
    pub text: Option<(TextKind, &'a str)>,
}

/// How a text is encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TextKind {
    /// UTF8String.
    Utf8,
    /// PrintableString.
    Printable,
    /// IA5String.
    Ia5,
}

impl<'a> Attribute<'a> {
    fn take(set: &mut Der<'a>) -> Result<Self, CertificateError> {
        let mut attribute = Der(set.take(SEQUENCE)?);
        let kind = attribute.take(OBJECT_IDENTIFIER)?;
        let (tag, value) = attribute.next()?;
        let text_kind = match tag {
            UTF8_STRING => Some(TextKind::Utf8),
            PRINTABLE_STRING => Some(TextKind::Printable),
            IA5_STRING => Some(TextKind::Ia5),
            _ => None,
        };
        let text = text_kind.zip(str::from_utf8(value).ok());
        Ok(Self { kind, text })
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(|octets| Ipv4Addr::from(octets).into());
    let v6 = || <[u8; 16]>::try_from(bytes).map(|octets| Ipv6Addr::from(octets).into());
    v4.or_else(|_| v6()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::der::{GENERALIZED_TIME, UTC_TIME};
    use super::*;

    /// An element of DER.
    pub(super) fn element(tag: u8, inner: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        match u8::try_from(inner.len()) {
            Ok(length @ 0..0x80) => bytes.push(length),
            _ => {
                bytes.push(0x82);
                bytes.extend(u16::try_from(inner.len()).unwrap().to_be_bytes());
            }
        }
        bytes.extend(inner);
        bytes
    }

    fn common_name(tag: u8, name: &[u8]) -> Vec<u8> {
        let kind = element(OBJECT_IDENTIFIER, COMMON_NAME);
        let attribute = element(SEQUENCE, &[kind, element(tag, name)].concat());
        element(SET, &attribute)
    }

    /// A certificate of this subject, without extensions and signature.
    fn certificate(subject: &[u8]) -> Vec<u8> {
        let nothing = element(SEQUENCE, &[]);
        let times =
            [element(UTC_TIME, b"260102030405Z"), element(GENERALIZED_TIME, b"20500102030405Z")];
        let signed = [
            element(INTEGER, &[7]),
            nothing.clone(),
            nothing.clone(),
            element(SEQUENCE, &times.concat()),
            element(SEQUENCE, subject),
            nothing,
        ];
        element(SEQUENCE, &element(SEQUENCE, &signed.concat()))
    }

    fn name_of(subject: &[u8]) -> Result<String, CertificateError> {
        let der = certificate(subject);
        let certificate = Certificate::parse(&der)?;
        assert_eq!(certificate.not_before, 1_767_323_045);
        assert_eq!(certificate.not_after, 2_524_705_445);
        certificate.common_name().map(str::to_owned)
    }

    #[test]
    fn identity_is_the_one_common_name_that_is_text() {
        let several = [common_name(UTF8_STRING, b"a"), common_name(UTF8_STRING, b"b")].concat();
        let longest = [b'x'; MAX_COMMON_NAME];
        let bmp_string = 0x1e;
        for (subject, expected) in [
            (common_name(UTF8_STRING, b"alpha"), Ok("alpha")),
            (common_name(PRINTABLE_STRING, b"alpha"), Ok("alpha")),
            (common_name(IA5_STRING, b"alpha"), Ok("alpha")),
            (common_name(UTF8_STRING, &longest), Ok(str::from_utf8(&longest).unwrap())),
            (Vec::new(), Err(CertificateError::NoCommonName)),
            (several, Err(CertificateError::SeveralCommonNames)),
            (common_name(UTF8_STRING, b""), Err(CertificateError::UnusableCommonName)),
            (common_name(UTF8_STRING, &[b'x'; 256]), Err(CertificateError::UnusableCommonName)),
            (common_name(UTF8_STRING, b"a\0b"), Err(CertificateError::UnusableCommonName)),
            (common_name(UTF8_STRING, &[0xff]), Err(CertificateError::UnusableCommonName)),
            (common_name(bmp_string, b"\0a"), Err(CertificateError::UnusableCommonName)),
        ] {
            assert_eq!(name_of(&subject).as_deref(), expected.as_ref().map(|name| *name));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Certificate::parse(&bytes);
        }

        #[test]
        fn damaged_certificate_is_read_or_refused(at in 0..120_usize, to in any::<u8>()) {
            let mut der = certificate(&common_name(UTF8_STRING, b"alpha"));
            let at = at % der.len();
            der[at] = to;
            let _ = Certificate::parse(&der);
        }
    }
}
