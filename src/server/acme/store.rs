//! What ACME keeps in the state folder: the account, certificates with their keys, and the orders
//! that have failed of late. Everything blocks.
//!
//! A file is there whole or not at all, for its owner alone. One that holds something else is
//! replaced by the next that is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use instant_acme::AccountCredentials;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::config::AcmeName;
use crate::net::tls::Term;

/// More than any of the files has, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Longest part of the first name in the name of a file, in bytes.
const MAX_SHOWN: usize = 64;

/// The folder of an authority's things.
#[derive(Clone, Debug)]
pub(super) struct Store {
    folder: PathBuf,
    directory: String,
}

/// An account at an authority.
#[derive(Deserialize, Serialize)]
pub(super) struct Account {
    /// The authority's directory.
    directory: String,
    /// Where it was told to write to.
    pub(super) contacts: Vec<String>,
    pub(super) credentials: AccountCredentials,
}

/// A certificate that can be shown.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) certified: CertifiedKey,
    pub(super) term: Term,
}

/// Why a file is of no use; without a reason where there is none.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) path: PathBuf,
    pub(super) reason: Option<String>,
}

impl Store {
    /// In this state folder, of the authority of this directory.
    pub(super) fn new(state_dir: &Path, directory: &str) -> Self {
        Self { folder: state_dir.join("acme"), directory: directory.to_owned() }
    }

    /// What stands for the certificate of these names, in any order, by this authority.
    pub(super) fn key(&self, names: &[AcmeName]) -> String {
        let mut sorted: Vec<_> = names.iter().map(AcmeName::as_str).collect();
        sorted.sort_unstable();
        let digest = Sha256::digest(format!("{}\n{}", self.directory, sorted.join("\n")));
        let mut key: String = sorted.first().unwrap_or(&"").chars().take(MAX_SHOWN).collect();
        key.push('-');
        for byte in digest.iter().take(8) {
            let _infallible = write!(key, "{byte:02x}");
        }
        key
    }

    /// Where the certificate is.
    pub(super) fn certificate_file(&self, key: &str) -> PathBuf {
        self.folder.join(format!("{key}.pem"))
    }

    /// The certificate for these names, if it is good now.
    pub(super) fn certificate(&self, names: &[AcmeName], now: u64) -> Result<Held, Unusable> {
        let path = self.certificate_file(&self.key(names));
        let refuse = |reason| Unusable { path: path.clone(), reason };
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(refuse(None)),
            Err(error) => return Err(refuse(Some(format!("cannot be read: {error}")))),
        };
        let held = parse(&text, names).map_err(|reason| refuse(Some(reason)))?;
        if held.term.not_after <= now {
            return Err(refuse(Some("it has expired".to_owned())));
        }
        Ok(held)
    }

    /// Keeps the certificate for these names.
    pub(super) fn save_certificate(&self, names: &[AcmeName], text: &str) -> io::Result<()> {
        self.write(&self.certificate_file(&self.key(names)), text)
    }

    /// The account, unless it is of another authority.
    pub(super) fn account(&self) -> Result<Account, Unusable> {
        let path = self.account_file();
        let refuse = |reason| Unusable { path: path.clone(), reason };
        let text = match read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(refuse(None)),
            Err(error) => return Err(refuse(Some(format!("cannot be read: {error}")))),
        };
        // What the parser says may have a part of the key in it.
        let account: Account = serde_json::from_str(&text)
            .map_err(|error| refuse(Some(format!("no account: line {}", error.line()))))?;
        if account.directory == self.directory { Ok(account) } else { Err(refuse(None)) }
    }

    /// Keeps the account.
    pub(super) fn save_account(
        &self,
        contacts: Vec<String>,
        credentials: AccountCredentials,
    ) -> io::Result<()> {
        let account = Account { directory: self.directory.clone(), contacts, credentials };
        self.write(&self.account_file(), &serde_json::to_string_pretty(&account)?)
    }

    /// Forgets the account.
    pub(super) fn forget_account(&self) -> io::Result<()> {
        fs::remove_file(self.account_file())
    }

    /// When orders failed, in Unix time, by the keys of their names. Nothing where nothing is known.
    pub(super) fn failed(&self) -> BTreeMap<String, Vec<u64>> {
        let text = read(&self.failed_file()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Keeps when the orders of a key failed.
    pub(super) fn save_failed(&self, key: &str, times: Vec<u64>) -> io::Result<()> {
        let mut all = self.failed();
        all.insert(key.to_owned(), times);
        all.retain(|_, times| !times.is_empty());
        self.write(&self.failed_file(), &serde_json::to_string(&all)?)
    }

    fn account_file(&self) -> PathBuf {
        self.folder.join("account.json")
    }

    fn failed_file(&self) -> PathBuf {
        self.folder.join("failed.json")
    }

    fn write(&self, path: &Path, text: &str) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        // One task writes here: a draft of a crash is overwritten.
        let draft = path.with_added_extension("new");
        let _gone = fs::remove_file(&draft);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&draft, path)?;
        // The rename itself is on disk only when its folder is.
        File::open(&self.folder)?.sync_all()
    }
}

/// A chain with its key, which has to be for these names.
pub(super) fn parse(text: &str, names: &[AcmeName]) -> Result<Held, String> {
    let chain: Result<Vec<_>, pem::Error> =
        CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let chain = chain.map_err(|error| format!("not a PEM file: {error}"))?;
    // The library's text may have a part of the key in it.
    let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| "no private key in it")?;
    if chain.is_empty() {
        return Err("no certificate in it".to_owned());
    }
    let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|error| format!("the certificate and its key are of no use: {error}"))?;
    let term = Term::of(&certified).ok_or("a certificate that cannot be read")?;
    let is_missing =
        |name: &&AcmeName| !term.names.iter().any(|has| has.eq_ignore_ascii_case(name.as_str()));
    match names.iter().find(is_missing) {
        Some(missing) => Err(format!("the certificate is not for {missing}")),
        None => Ok(Held { certified, term }),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn names(names: &[&str]) -> Vec<AcmeName> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    /// A certificate for these names, until long after [`NOW`], and its key.
    fn certificate(names: &[&str]) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn what_is_kept_is_its_owners_alone_and_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "https://ca.test/dir");
        let both = names(&["a.test", "b.test"]);
        assert_eq!(store.certificate(&both, NOW).unwrap_err().reason, None);
        let (cert, key) = certificate(&["b.test", "a.test"]);
        store.save_certificate(&both, &format!("{key}{cert}")).unwrap();
        let held = store.certificate(&both, NOW).unwrap();
        assert_eq!(held.term.names, ["b.test", "a.test"]);
        assert!(held.term.not_before < NOW && held.term.not_after > NOW);

        store.save_failed("a", vec![1, 2]).unwrap();
        store.save_failed("b", vec![3]).unwrap();
        store.save_failed("a", vec![]).unwrap();
        assert_eq!(store.failed(), BTreeMap::from([("b".to_owned(), vec![3])]));
        for file in fs::read_dir(folder.path().join("acme")).unwrap() {
            let mode = file.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn other_names_and_another_authority_have_other_files() {
        let store = Store::new(Path::new("/x"), "https://ca.test/dir");
        let key = store.key(&names(&["a.test", "b.test"]));
        assert!(key.starts_with("a.test-") && key.len() == "a.test-".len() + 16, "{key}");
        assert_ne!(key, store.key(&names(&["a.test"])));
        assert_ne!(
            key,
            Store::new(Path::new("/x"), "https://b.test/").key(&names(&["a.test", "b.test"]))
        );
        let long = format!("{}.test", "a.".repeat(60).trim_end_matches('.'));
        assert!(store.key(&names(&[&long])).len() < 100);
    }

    #[test]
    fn file_that_is_of_no_use_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path(), "https://ca.test/dir");
        let one = names(&["a.test"]);
        let (cert, key) = certificate(&["a.test"]);
        let (other, _) = certificate(&["b.test"]);
        for (text, reason) in [
            (String::new(), "no private key"),
            (cert.clone(), "no private key"),
            (key.clone(), "no certificate"),
            (format!("{key}{other}"), "of no use"),
            (format!("{key}{}", cert.replace("CERTIFICATE", "X")), "no certificate"),
        ] {
            store.save_certificate(&one, &text).unwrap();
            let refused = store.certificate(&one, NOW).unwrap_err().reason.unwrap();
            assert!(refused.contains(reason), "{refused}");
        }
        store.save_certificate(&one, &format!("{key}{cert}")).unwrap();
        assert_eq!(
            store.certificate(&one, u64::MAX).unwrap_err().reason.unwrap(),
            "it has expired"
        );
        fs::write(store.account_file(), "{\"credentials\":{\"key_pkcs8\":\"secret\"").unwrap();
        let refused = store.account().err().unwrap().reason.unwrap();
        assert!(refused.starts_with("no account") && !refused.contains("secret"), "{refused}");
    }
}
