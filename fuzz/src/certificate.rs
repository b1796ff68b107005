//! Certificates and lists of revocations: who a certificate names does not depend on how its subject is
//! looked at, and nothing that is read lies outside of it.

use beacon_wire::certificate::{Certificate, MAX_COMMON_NAME, RevocationList};

/// The last second of the year 9999.
const FAR: i64 = 253_402_300_799;

/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Takes one input: a certificate, or a list.
///
/// # Panics
/// A certificate names somebody in one way and not in another.
pub fn run(input: &[u8]) {
    if let Ok(certificate) = Certificate::parse(input) {
        of_a_certificate(&certificate, input.len());
    }
    if let Ok(list) = RevocationList::parse(input) {
        assert!(list.issuer.len() < input.len());
        assert!(list.this_update <= FAR && list.next_update.is_none_or(|next| next <= FAR));
    }
}

fn of_a_certificate(certificate: &Certificate<'_>, length: usize) {
    let parts = [certificate.serial, certificate.issuer, certificate.subject];
    assert!(parts.iter().map(|part| part.len()).sum::<usize>() < length);
    for time in [certificate.not_before, certificate.not_after] {
        assert!(time <= FAR, "{time}");
    }
    if let Ok(attributes) = certificate.attributes() {
        let names = attributes.iter().filter(|attribute| attribute.kind == COMMON_NAME);
        let texts: Option<Vec<_>> = names.map(|name| Some(name.text?.1)).collect();
        match texts {
            Some(texts) => assert_eq!(
                (texts, true),
                (certificate.common_names.clone(), certificate.names_are_text)
            ),
            None => assert!(!certificate.names_are_text),
        }
    }
    if let Ok(name) = certificate.common_name() {
        assert_eq!(certificate.common_names, [name]);
        assert!((1..=MAX_COMMON_NAME).contains(&name.len()));
        assert!(!name.chars().any(char::is_control));
    }
}
