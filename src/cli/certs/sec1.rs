//! Private keys as SEC 1 has them (RFC 5915), in PEM: `EC PRIVATE KEY`.

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;

use super::Exit;

/// The private key in PKCS#8 stands behind this: an octet string of a structure, version 1, and an
/// octet string of 48 bytes.
const BEFORE_SCALAR: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 48];

/// Bytes of a private key of P-384.
const SCALAR: usize = 48;

/// Bytes of a public key of P-384, not compressed.
const POINT: usize = 97;

/// secp384r1, 1.3.132.0.34, as the parameters of the key.
const PARAMETERS: [u8; 9] = [0xa0, 0x07, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];

/// Characters of a line.
const LINE: usize = 64;

/// The key of P-384.
pub(super) fn pem(key: &KeyPair) -> Result<String, Exit> {
    let der = der(&key.serialize_der(), key.public_key_raw());
    let der = der.ok_or_else(|| anyhow!("the key has another form than expected"))?;
    let text = STANDARD.encode(der);
    let mut pem = "-----BEGIN EC PRIVATE KEY-----\n".to_owned();
    for line in text.as_bytes().chunks(LINE) {
        pem.push_str(str::from_utf8(line).expect("base64 is ASCII"));
        pem.push('\n');
    }
    pem.push_str("-----END EC PRIVATE KEY-----\n");
    Ok(pem)
}

fn der(pkcs8: &[u8], point: &[u8]) -> Option<Vec<u8>> {
    let at = pkcs8.windows(BEFORE_SCALAR.len()).position(|bytes| bytes == BEFORE_SCALAR)?;
    let scalar = pkcs8.get(at + BEFORE_SCALAR.len()..)?.get(..SCALAR)?;
    let point: &[u8; POINT] = point.try_into().ok()?;
    // [1], a bit string, no bits of whose last byte are unused.
    let public = [&[0xa1, 0x64, 0x03, 0x62, 0x00][..], point].concat();
    let inner = [&BEFORE_SCALAR[..], scalar, &PARAMETERS, &public].concat();
    // 164 bytes: the length has two.
    let mut der = vec![0x30, 0x81, u8::try_from(inner.len()).ok()?];
    der.extend(inner);
    Some(der)
}

#[cfg(test)]
mod tests {
    use rcgen::PKCS_ECDSA_P384_SHA384;
    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn key_is_read_again_and_is_the_same() {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
        let text = pem(&key).unwrap();
        let read = PrivateKeyDer::from_pem_slice(text.as_bytes()).unwrap();
        assert!(matches!(read, PrivateKeyDer::Sec1(_)));
        let again = KeyPair::try_from(&read).unwrap();
        assert_eq!(again.public_key_raw(), key.public_key_raw());
    }
}
