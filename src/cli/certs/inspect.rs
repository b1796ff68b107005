//! `certs inspect`: what a certificate says.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::anyhow;
use sha2::{Digest as _, Sha256};

use super::{Exit, files};
use crate::cli::output;
use crate::session::one_line;
use crate::wire::certificate::{Certificate, Purpose};
use crate::wire::keyop::timestamp;

/// What `certs inspect` is asked.
#[derive(clap::Args, Debug)]
pub(in crate::cli) struct Inspect {
    /// The certificate, as PEM
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Inspect {
    pub(super) fn run(self) -> Result<(), Exit> {
        let der = files::certificate("FILE", &self.file)?;
        let read = Certificate::parse(&der);
        let read = read.map_err(|error| {
            anyhow!("FILE = {:?}: {error}; name a certificate that X.509 allows", self.file)
        })?;
        output::print(&shown(&read, &Sha256::digest(&der)))
    }
}

fn shown(read: &Certificate<'_>, fingerprint: &[u8]) -> String {
    let name = match read.common_name() {
        Ok(name) => one_line(name),
        Err(error) => format!("none that is an identity: {error}"),
    };
    let dns = read.dns_names.iter().map(|name| one_line(name));
    let names: Vec<_> = dns.chain(read.addresses.iter().map(ToString::to_string)).collect();
    let purposes = read.purposes.iter().map(|purpose| match purpose {
        Purpose::Server => "server",
        Purpose::Client => "client",
        Purpose::Other => "other",
    });
    let purposes: Vec<_> = purposes.collect();
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").expect("a string takes all");
            hex
        })
    };
    let time = |seconds: i64| {
        u64::try_from(seconds)
            .map_or_else(|_| "before 1970".to_owned(), |seconds| timestamp(seconds, 0))
    };
    let lines = [
        ("common name", name),
        ("names", listed(&names)),
        ("purposes", if purposes.is_empty() { "any".to_owned() } else { purposes.join(", ") }),
        ("authority", if read.is_authority { "yes" } else { "no" }.to_owned()),
        ("not before", time(read.not_before)),
        ("not after", time(read.not_after)),
        ("serial", hex(read.serial)),
        ("sha256", hex(fingerprint)),
    ];
    lines.iter().map(|(what, said)| format!("{what:<12} {said}\n")).collect()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
