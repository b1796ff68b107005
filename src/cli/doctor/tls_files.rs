//! Certificates in the files of this machine's settings: those that listeners show, the authorities of
//! their clients, and what is shown to other hubs. How long is each good, for which names, and who
//! signed it?
//!
//! Peers of mutual TLS all have a certificate of one authority, and trust that one: what a relay shows
//! them has to be of it as well. That a file can be read and a key fits, the settings were checked for.

use std::fmt::Display;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};

use super::certificate::{DAY, SOON, date};
use super::report::Report;
use crate::config::{ClientTrust, Config, KEYOP, KeyopHub, Listener, TlsPair, TrustedAuthorities};
use crate::session::one_line;
use crate::wire::certificate::{Certificate, Purpose, RevocationList};

const CHECK: &str = "tls-files";

/// Nobody renews the certificates of mutual TLS automatically: they are told of as early as hubs of
/// keyop-messenger warn (`tls.expiry_warn_days`).
const SOON_BY_HAND: u64 = 30 * DAY;

const RENEW: &str = "renew it: the relay takes a changed file without a restart";

/// Looks at the files of all listeners, and of other hubs.
pub(super) fn check(config: &Config, report: &mut Report) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let hub_name = config.keyop.as_ref().and_then(|_| config.keyop_hub_name().ok());
    for listener in config.all_listeners(false) {
        let trusted = listener.client_trust.as_ref().map(|trust| check_trust(trust, now, report));
        for pair in &listener.tls {
            let Some(shown) = Shown::load(pair, report) else { continue };
            let mut file = File::new(&pair.cert, report);
            match &listener.client_trust {
                Some(trust) => {
                    shown.check_mutual(now, &mut file);
                    let name = hub_name.as_deref().filter(|_| is_keyop(&listener));
                    if let Some(name) = name {
                        shown.check_name(name, &mut file);
                        let trusted = trusted.as_ref().and_then(Option::as_ref);
                        shown.check_authority(trusted, &trust.ca, now, &mut file);
                    }
                }
                None => check_term(shown.term(), now, SOON, &mut file),
            }
            file.end(&shown.told(now));
        }
    }
    for hub in config.keyop.iter().flat_map(|keyop| &keyop.hubs) {
        check_hub(config, hub, now, report);
    }
}

fn is_keyop(listener: &Listener) -> bool {
    listener.doors.contains(&&KEYOP)
}

/// What this relay shows to a hub that it is a client of, and whom it trusts there.
fn check_hub(config: &Config, hub: &KeyopHub, now: u64, report: &mut Report) {
    let Ok(files) = config.keyop_hub_files(hub) else { return };
    if let Some(shown) = Shown::load(&files.pair, report) {
        let mut file = File::new(&files.pair.cert, report);
        if !shown.is_for(Purpose::Client) {
            let found = format!("not for clients of TLS: the hub {} refuses it", hub.name);
            file.fail(found, "make another: beacon-relay certs instance --name NAME");
        }
        if hub.pair.is_some() {
            check_term(shown.term(), now, SOON_BY_HAND, &mut file);
            file.end(&shown.told(now));
        }
    }
    if hub.authorities.is_some() {
        check_trust(&ClientTrust { ca: files.authorities, crl: None }, now, report);
    }
}

/// Looks at authorities, and at what they have revoked.
fn check_trust(trust: &ClientTrust, now: u64, report: &mut Report) -> Option<TrustedAuthorities> {
    let trusted = match trust.load() {
        Ok(trusted) => trusted,
        Err(error) => {
            report.fail(CHECK, error.to_string(), "correct the file");
            return None;
        }
    };
    for der in &trusted.certificates {
        let mut file = File::new(&trust.ca, report);
        let Ok(authority) = Certificate::parse(der) else {
            file.fail("a certificate that cannot be read", "correct the file");
            continue;
        };
        let name = authority.common_name().map_or_else(|_| "an authority".to_owned(), one_line);
        if !authority.is_authority {
            let found = format!("{name} must not sign others: peers refuse what it signed");
            file.fail(found, "name the authority's certificate: beacon-relay certs inspect FILE");
        }
        let term = Term::of([&authority]);
        check_term(term, now, SOON_BY_HAND, &mut file);
        file.end(&format!("{name}, {}", until(term, now)));
    }
    if let Some(path) = &trust.crl {
        check_lists(&trusted, path, now, report);
    }
    Some(trusted)
}

/// Looks at lists of revocations: an old one is used on, and does not have what was revoked since.
fn check_lists(trusted: &TrustedAuthorities, path: &Path, now: u64, report: &mut Report) {
    let mut file = File::new(path, report);
    let lists = trusted.revoked.iter().filter_map(|der| RevocationList::parse(der).ok());
    let lists: Vec<_> = lists.collect();
    for der in &trusted.certificates {
        let Ok(authority) = Certificate::parse(der) else { continue };
        if !lists.iter().any(|list| list.issuer == authority.subject) {
            let name = authority.common_name().map_or_else(|_| "an authority".to_owned(), one_line);
            let found = format!("no list of {name}: each certificate that it signed is refused");
            file.fail(found, "add its list to the file");
        }
    }
    let next = lists.iter().filter_map(|list| list.next_update).map(seconds).min();
    if let Some(next) = next.filter(|next| *next < now) {
        let found =
            format!("a newer list was to come by {}: who was revoked since comes in", date(next));
        file.warn(found, "put the newer one there: the relay takes it without a restart");
    }
    let next =
        next.map_or_else(|| "with no end".to_owned(), |next| format!("until {}", date(next)));
    file.end(&format!("{} lists of revocations, {next}", lists.len()));
}

/// From when to when certificates are good, in Unix seconds.
#[derive(Clone, Copy)]
struct Term {
    begin: u64,
    end: u64,
}

impl Term {
    /// That of a chain: all of them have to be good.
    fn of<'a>(chain: impl IntoIterator<Item = &'a Certificate<'a>>) -> Self {
        let all = Self { begin: 0, end: u64::MAX };
        chain.into_iter().fold(all, |term, of| Self {
            begin: term.begin.max(seconds(of.not_before)),
            end: term.end.min(seconds(of.not_after)),
        })
    }
}

/// Times before 1970 are over, whichever they are.
fn seconds(unix: i64) -> u64 {
    u64::try_from(unix).unwrap_or(0)
}

fn check_term(term: Term, now: u64, soon: u64, file: &mut File<'_>) {
    if term.end < now {
        file.fail(format!("it ended on {}", date(term.end)), RENEW);
    } else if term.begin > now {
        let found = format!("it begins on {}", date(term.begin));
        file.fail(found, "is the clock of this machine right?");
    } else if term.end - now < soon {
        file.warn(until(term, now), RENEW);
    }
}

fn until(term: Term, now: u64) -> String {
    format!("until {} ({} days)", date(term.end), term.end.saturating_sub(now) / DAY)
}

/// A certificate that is shown, with its chain.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
}

impl Shown {
    fn load(pair: &TlsPair, report: &mut Report) -> Option<Self> {
        let fail = |report: &mut Report, found: String| {
            report.fail(CHECK, found, "correct the file; the relay goes on with what it has read");
        };
        match pair.load() {
            Ok(loaded) => {
                let shown = Self { chain: loaded.cert.clone() };
                let is_read = shown.chain.iter().all(|der| Certificate::parse(der).is_ok());
                if !is_read {
                    let file = pair.cert.display();
                    fail(report, format!("{file}: a certificate that cannot be read"));
                }
                is_read.then_some(shown)
            }
            Err(error) => {
                fail(report, error.to_string());
                None
            }
        }
    }

    fn read(&self) -> Vec<Certificate<'_>> {
        let read = self.chain.iter().map(|der| Certificate::parse(der));
        read.collect::<Result<_, _>>().expect("each was read when it was loaded")
    }

    /// What it says of itself, without those between it and the authority.
    fn leaf(&self) -> Certificate<'_> {
        self.read().swap_remove(0)
    }

    fn term(&self) -> Term {
        Term::of(&self.read())
    }

    fn is_for(&self, purpose: Purpose) -> bool {
        let purposes = self.leaf().purposes;
        purposes.is_empty() || purposes.contains(&purpose)
    }

    /// The names that it is for.
    fn names(&self) -> Vec<String> {
        let leaf = self.leaf();
        let dns = leaf.dns_names.iter().map(|name| one_line(name));
        dns.chain(leaf.addresses.iter().map(ToString::to_string)).collect()
    }

    fn told(&self, now: u64) -> String {
        format!("for {}, {}", self.names().join(", "), until(self.term(), now))
    }

    /// What clients of mutual TLS look at.
    fn check_mutual(&self, now: u64, file: &mut File<'_>) {
        let make = "make another: beacon-relay certs instance --name HOST";
        check_term(self.term(), now, SOON_BY_HAND, file);
        if self.leaf().is_authority {
            file.fail("it is an authority's own: clients refuse it", make);
        }
        if !self.is_for(Purpose::Server) {
            file.fail("not for servers of TLS: clients refuse it", make);
        }
        if self.names().is_empty() {
            file.warn(
                "it is for no name, and clients over WebSocket check that they dial one",
                make,
            );
        }
    }

    /// A relay that is a client of this hub knows it in routes and in its certificate by one name.
    fn check_name(&self, hub: &str, file: &mut File<'_>) {
        let names = self.names();
        if !names.is_empty() && !names.iter().any(|name| name.eq_ignore_ascii_case(hub)) {
            let names = names.join(", ");
            let found = format!("it is for {names}, and this hub is {} in routes", one_line(hub));
            file.warn(found, "relays that are its clients need one name for both: keyop_name");
        }
    }

    /// Clients that have one authority for all trust no other.
    fn check_authority(
        &self,
        trusted: Option<&TrustedAuthorities>,
        ca: &Path,
        now: u64,
        file: &mut File<'_>,
    ) {
        let Some(trusted) = trusted else { return };
        let Some((leaf, between)) = self.chain.split_first() else { return };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.certificates.iter().cloned());
        let term = self.term();
        // That it has ended is said elsewhere.
        let at = now.max(term.begin).min(term.end);
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms.all;
        let verified = ParsedCertificate::try_from(leaf).and_then(|leaf| {
            verify_server_cert_signed_by_trust_anchor(&leaf, &roots, between, at, algorithms)
        });
        if let Err(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        )) = verified
        {
            let found = format!(
                "it is not signed by the authority of the clients in {}, and they may trust no other",
                ca.display()
            );
            file.warn(
                found,
                "have that authority sign it, and put those between the two behind it",
            );
        }
    }
}

/// What is found of a file, which is good until something is.
struct File<'a> {
    path: &'a Path,
    report: &'a mut Report,
    is_good: bool,
}

impl<'a> File<'a> {
    const fn new(path: &'a Path, report: &'a mut Report) -> Self {
        Self { path, report, is_good: true }
    }

    fn fail(&mut self, found: impl Display, remedy: &str) {
        self.is_good = false;
        self.report.fail(CHECK, format!("{}: {found}", self.path.display()), remedy);
    }

    fn warn(&mut self, found: impl Display, remedy: &str) {
        self.is_good = false;
        self.report.warn(CHECK, format!("{}: {found}", self.path.display()), remedy);
    }

    /// Says what is in a file that is good.
    fn end(self, found: &str) {
        if self.is_good {
            self.report.ok(CHECK, format!("{}: {found}", self.path.display()));
        }
    }
}
