//! `certs`: the keys and certificates that peers of mutual TLS know each other by, as the original's
//! `keygen` makes them.

mod files;
mod inspect;
mod issue;
mod sec1;

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Subcommand;
use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

pub(in crate::cli) use self::files::Pair;
use self::files::read;
pub(in crate::cli) use self::issue::{authority, instance};
use super::way_out::completed;
use super::{Exit, output};
use crate::wire::certificate::{Certificate, TextKind};

/// What is asked of certificates.
#[derive(Debug, Subcommand)]
pub(super) enum Certs {
    /// Make an authority, which signs the certificates of hubs and their clients
    Ca(Ca),
    /// Make the certificate and the key of a hub or a client, by whose name others know it
    Instance(Instance),
    /// Print what a certificate says
    Inspect(inspect::Inspect),
}

/// What `certs ca` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Ca {
    /// New file for the certificate
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, default_value = "ca.crt")]
    out_cert: PathBuf,
    /// New file for the private key
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, default_value = "ca.key")]
    out_key: PathBuf,
    /// Common name of the authority
    #[arg(long, value_name = "NAME", default_value = "beacon-relay CA")]
    name: String,
    /// Days until it ends
    #[arg(long, value_name = "N", default_value = "3650", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

/// What `certs instance` is asked.
#[derive(clap::Args, Debug)]
pub(super) struct Instance {
    /// Certificate of the authority
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, default_value = "ca.crt")]
    ca: PathBuf,
    /// Private key of the authority
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, default_value = "ca.key")]
    ca_key: PathBuf,
    /// Common name, and DNS name; of a hub the host name that its clients dial
    #[arg(long, value_name = "NAME")]
    name: String,
    /// New file for the certificate [default: NAME.crt]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out_cert: Option<PathBuf>,
    /// New file for the private key [default: NAME.key]
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    out_key: Option<PathBuf>,
    /// Days until it ends
    #[arg(long, value_name = "N", default_value = "730", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Replace files that are there
    #[arg(long)]
    force: bool,
}

impl Certs {
    /// Does it.
    pub(super) fn run(self) -> Result<(), Exit> {
        match self {
            Self::Ca(ca) => ca.run(),
            Self::Instance(instance) => instance.run(),
            Self::Inspect(inspect) => inspect.run(),
        }
    }
}

impl Ca {
    fn run(self) -> Result<(), Exit> {
        let (made, _issuer) = authority(&self.name, self.days)?;
        let pair = Pair { cert: self.out_cert, key: self.out_key };
        pair.write(&made, self.force)?;
        output::print(&pair.shown())
    }
}

impl Instance {
    fn run(self) -> Result<(), Exit> {
        let issuer = issuer(&self.ca, &self.ca_key)?;
        let made = instance(&self.name, self.days, &issuer)?;
        let beside = |ending: &str| PathBuf::from(format!("{}.{ending}", self.name));
        let pair = Pair {
            cert: self.out_cert.unwrap_or_else(|| beside("crt")),
            key: self.out_key.unwrap_or_else(|| beside("key")),
        };
        pair.write(&made, self.force)?;
        output::print(&pair.shown())
    }
}

/// Who signs, by the files of an authority.
fn issuer(
    ca: &std::path::Path,
    ca_key: &std::path::Path,
) -> Result<Issuer<'static, KeyPair>, Exit> {
    let text = read("--ca-key", ca_key)?;
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes());
    let key = key.map_err(|error| {
        anyhow!("--ca-key = {ca_key:?}: no private key: {error}; name the key's PEM file")
    })?;
    let key = KeyPair::try_from(&key);
    let key = key.map_err(|error| {
        anyhow!("--ca-key = {ca_key:?}: of no use: {error}; make a pair with `certs ca`")
    })?;

    let der = files::certificate("--ca", ca)?;
    let refused = |reason: &str| {
        anyhow!("{}", completed(&format!("--ca = {ca:?}: {reason}"), "name that of an authority"))
    };
    let authority = Certificate::parse(&der).map_err(|error| refused(&error.to_string()))?;
    if !authority.is_authority {
        return Err(refused("no authority: it must not sign others").into());
    }
    let is_key = key.public_key_raw();
    if !der.windows(is_key.len()).any(|bytes| bytes == is_key) {
        let ca_key = ca_key.display();
        return Err(refused(&format!("{ca_key} is not its key; name that one")).into());
    }
    let mut params = CertificateParams::default();
    params.distinguished_name = name_of(&authority).ok_or_else(|| {
        refused("its subject has parts that are no plain text; make another with `certs ca`")
    })?;
    Ok(Issuer::new(params, key))
}

/// The subject of an authority, as the certificates that it signs name it.
fn name_of(authority: &Certificate<'_>) -> Option<DistinguishedName> {
    let mut name = DistinguishedName::new();
    for attribute in authority.attributes().ok()? {
        let (kind, text) = attribute.text?;
        let value = match kind {
            TextKind::Utf8 => DnValue::Utf8String(text.to_owned()),
            TextKind::Printable => DnValue::PrintableString(text.try_into().ok()?),
            TextKind::Ia5 => DnValue::Ia5String(text.try_into().ok()?),
        };
        name.push(DnType::from_oid(&numbers(attribute.kind)?), value);
    }
    Some(name)
}

/// The numbers of an object identifier (X.690 §8.19).
fn numbers(kind: &[u8]) -> Option<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in kind {
        number = number.checked_mul(128)? | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.extend([first, number - 40 * first]);
            } else {
                numbers.push(number);
            }
            number = 0;
        }
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_identifiers_are_read_as_numbers() {
        assert_eq!(numbers(&[0x55, 0x04, 0x03]).unwrap(), [2, 5, 4, 3]);
        assert_eq!(numbers(&[0x2b, 0x81, 0x04, 0x00, 0x22]).unwrap(), [1, 3, 132, 0, 34]);
        assert!(numbers(&[0xff; 12]).is_none(), "no number is that long");
    }
}
