//! Makes certificates and their keys: those of an authority, and those of hubs and clients, which it
//! signs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P384_SHA384, SerialNumber, date_time_ymd,
};

use super::{Exit, sec1};
use crate::wire::certificate::MAX_COMMON_NAME;

/// How far back a certificate begins, for machines whose clocks are behind.
const GRACE: Duration = Duration::from_secs(60 * 60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A certificate and its key, as PEM.
pub(in crate::cli) struct Made {
    pub(super) cert: String,
    pub(super) key: String,
}

/// Makes an authority, which is good for so many days; itself, and who signs by it.
///
/// # Errors
/// A name that is of no use.
pub(in crate::cli) fn authority(
    name: &str,
    days: u32,
) -> Result<(Made, Issuer<'static, KeyPair>), Exit> {
    let key = new_key()?;
    let mut params = params(name, days)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = params.self_signed(&key).context("the certificate cannot be made")?;
    let made = Made { cert: certificate.pem(), key: sec1::pem(&key)? };
    Ok((made, Issuer::new(params, key)))
}

/// Makes the certificate of a hub or a client of this name, which is good for so many days.
///
/// # Errors
/// A name that is of no use.
pub(in crate::cli) fn instance(
    name: &str,
    days: u32,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<Made, Exit> {
    let key = new_key()?;
    let mut params = params(name, days)?;
    params.subject_alt_names = CertificateParams::new([name.to_owned()])
        .with_context(|| format!("--name = {name:?}: no name of a host; write a DNS name"))?
        .subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer).context("the certificate cannot be made")?;
    Ok(Made { cert: certificate.pem(), key: sec1::pem(&key)? })
}

fn new_key() -> Result<KeyPair, Exit> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384);
    Ok(key.context("the key cannot be made")?)
}

/// What a certificate of this name says, which begins now.
fn params(name: &str, days: u32) -> Result<CertificateParams, Exit> {
    let is_name =
        !name.is_empty() && name.len() <= MAX_COMMON_NAME && !name.chars().any(char::is_control);
    if !is_name || name.contains('/') {
        return Err(Exit::Usage(format!(
            "--name = {name:?}: write 1 to {MAX_COMMON_NAME} bytes of plain text, without a slash"
        )));
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = date_time_ymd(1970, 1, 1) + now.saturating_sub(GRACE);
    params.not_after = date_time_ymd(1970, 1, 1) + now + DAY * days;
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).context("the system gives no random bytes")?;
    // A positive number of full length.
    serial[0] = serial[0] & 0x3f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}
