//! One order at an authority: the account, the challenges, and the certificate that comes of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use parking_lot::Mutex;
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::http::{Http, RetryAfter};
use super::problem::{Outcome, Problem};
use super::store::{Store, Unusable};
use crate::config::{self, AcmeContact, AcmeName};
use crate::net::resolve::Resolver;
use crate::net::tls::{Answer, Challenges, TlsError, file_roots, system_roots};

/// Time for an authority to look at the challenges, or to make a certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// Time for an order in all, whatever hangs.
const LONGEST: Duration = Duration::from_secs(6 * 60);

/// An authority, and what it is known by.
pub(super) struct Authority {
    said: config::Acme,
    store: Store,
    challenges: Arc<Challenges>,
    resolver: Resolver,
    retry_after: RetryAfter,
}

impl Authority {
    pub(super) fn new(said: config::Acme, store: Store, challenges: Arc<Challenges>) -> Self {
        let (resolver, retry_after) = (Resolver::system(), Arc::new(Mutex::default()));
        Self { said, store, challenges, resolver, retry_after }
    }

    /// Gets a certificate for these names: its key and its chain, as PEM.
    pub(super) async fn order(&self, names: &[AcmeName]) -> Result<String, Problem> {
        *self.retry_after.lock() = None;
        let ordered = timeout(LONGEST, self.try_order(names)).await;
        let ordered = ordered.unwrap_or_else(|_| {
            Err(Problem::new(Outcome::Unreachable, format!("not done within {LONGEST:?}")))
        });
        ordered.map_err(|problem| problem.with_retry_after(*self.retry_after.lock()))
    }

    async fn try_order(&self, names: &[AcmeName]) -> Result<String, Problem> {
        let identifiers: Vec<_> =
            names.iter().map(|name| Identifier::Dns(name.as_str().to_owned())).collect();
        let new = NewOrder::new(&identifiers);
        let mut order = match self.account().await?.new_order(&new).await.map_err(Problem::from) {
            // An authority that has forgotten everything, or an account that was closed.
            Err(problem) if problem.is_of_account => {
                warn!(error = %problem, "the authority does not know the account: there will be a new one");
                let store = self.store.clone();
                blocking(move || store.forget_account())
                    .await
                    .map_err(|error| of_storage(&error))?;
                self.account().await?.new_order(&new).await?
            }
            ordered => ordered?,
        };
        let answers = self.answer(&mut order).await?;
        match order.poll_ready(&PATIENCE).await {
            Ok(OrderStatus::Invalid) => return Err(why_invalid(&mut order, None).await),
            Err(Error::Api(problem)) if order.state().status == OrderStatus::Invalid => {
                return Err(why_invalid(&mut order, Some(&problem)).await);
            }
            ready => drop(ready?),
        }
        drop(answers);
        let (key, request) = request(names)?;
        order.finalize_csr(&request).await?;
        let chain = order.poll_certificate(&PATIENCE).await?;
        Ok(key + &chain)
    }

    /// The account that is kept, or a new one.
    async fn account(&self) -> Result<Account, Problem> {
        let store = self.store.clone();
        let kept = blocking(move || store.account()).await;
        let contacts = self.contacts();
        match kept {
            Ok(kept) => {
                let account = self.builder().await?.from_credentials(kept.credentials).await?;
                if kept.contacts != contacts {
                    self.change_contacts(&account, contacts).await?;
                }
                Ok(account)
            }
            Err(Unusable { path, reason }) => {
                if let Some(reason) = reason {
                    let path = path.display();
                    warn!(%path, reason, "the ACME account is of no use: there will be a new one");
                }
                self.new_account(contacts).await
            }
        }
    }

    async fn new_account(&self, contacts: Vec<String>) -> Result<Account, Problem> {
        let contact: Vec<_> = contacts.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.said.directory.as_str().to_owned();
        let (account, credentials) =
            self.builder().await?.create(&new, directory.clone(), None).await?;
        let store = self.store.clone();
        blocking(move || store.save_account(contacts, credentials))
            .await
            .map_err(|error| of_storage(&error))?;
        info!(directory, "has an account at the authority, whose terms of service hold");
        Ok(account)
    }

    /// Tells the authority whom to write to from here on.
    async fn change_contacts(
        &self,
        account: &Account,
        contacts: Vec<String>,
    ) -> Result<(), Problem> {
        let contact: Vec<_> = contacts.iter().map(String::as_str).collect();
        account.update_contacts(&contact).await?;
        let store = self.store.clone();
        let saved = blocking(move || match store.account() {
            Ok(kept) => store.save_account(contacts, kept.credentials),
            // It was removed meanwhile: the next order makes another.
            Err(_) => Ok(()),
        });
        saved.await.map_err(|error| of_storage(&error))
    }

    fn contacts(&self) -> Vec<String> {
        self.said.contacts.iter().map(AcmeContact::as_str).map(str::to_owned).collect()
    }

    /// What makes requests; who is trusted is read anew, since such files change.
    async fn builder(&self) -> Result<instant_acme::AccountBuilder, Problem> {
        let directory_ca = self.said.directory_ca.clone();
        let roots = blocking(move || roots(directory_ca.as_deref())).await;
        let roots = roots.map_err(|error| {
            Problem::new(Outcome::Unreachable, format!("nobody to trust: {error}"))
        })?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Problem::new(Outcome::Unreachable, error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let retry_after = Arc::clone(&self.retry_after);
        let http = Http::new(Arc::new(config), self.resolver.clone(), retry_after);
        Ok(Account::builder_with_http(Box::new(http)))
    }

    /// Has listeners answer what the authority asks, and tells it that they do.
    async fn answer(&self, order: &mut Order) -> Result<Vec<Answer>, Problem> {
        let mut answers = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            let name = authorization.identifier().to_string();
            match authorization.status {
                AuthorizationStatus::Pending => {}
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Invalid
                | AuthorizationStatus::Revoked
                | AuthorizationStatus::Expired
                | AuthorizationStatus::Deactivated => {
                    let what = format!("the authorization is {:?}", authorization.status);
                    return Err(Problem::new(Outcome::Refused, what).of_name(&name));
                }
            }
            let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
                let what = "the authority does not offer tls-alpn-01, the only challenge that is answered here";
                return Err(Problem::new(Outcome::Refused, what).of_name(&name));
            };
            let digest = challenge.key_authorization().digest();
            let answer = self.challenges.answer(&name, digest.as_ref());
            answers.push(answer.map_err(|error| Problem::new(Outcome::Invalid, error))?);
            challenge.set_ready().await.map_err(|error| Problem::from(error).of_name(&name))?;
        }
        Ok(answers)
    }
}

/// Whom the authority's own TLS is trusted by: the system's authorities, those of the file, or
/// both.
fn roots(directory_ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let Some(path) = directory_ca else { return system_roots() };
    let mut roots = file_roots(path)?;
    // A machine of its own authority may have no others.
    if let Ok(of_system) = system_roots() {
        roots.extend(of_system.roots);
    }
    Ok(roots)
}

/// The key of a certificate, as PEM, and what is to be signed.
fn request(names: &[AcmeName]) -> Result<(String, Vec<u8>), Problem> {
    let made = || -> Result<_, rcgen::Error> {
        let names: Vec<_> = names.iter().map(|name| name.as_str().to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        let key = KeyPair::generate()?;
        let request = params.serialize_request(&key)?;
        Ok((key.serialize_pem(), request.der().to_vec()))
    };
    made().map_err(|error| Problem::new(Outcome::Invalid, format!("no key for it: {error}")))
}

/// What the authority found when it looked, at the first name that has a finding; else what it says
/// of the whole order.
async fn why_invalid(order: &mut Order, of_order: Option<&instant_acme::Problem>) -> Problem {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let Ok(mut authorization) = authorization else { continue };
        let name = authorization.identifier().to_string();
        let Ok(state) = authorization.refresh().await else { continue };
        let error = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(error) = error {
            return Problem::of_validation(error).of_name(&name);
        }
    }
    of_order.map_or_else(
        || Problem::new(Outcome::Validation, "the names could not be checked, nobody says why"),
        Problem::of_validation,
    )
}

fn of_storage(error: &std::io::Error) -> Problem {
    Problem::new(Outcome::Storage, format!("the state folder cannot be written: {error}"))
}

/// Runs what reads or writes files beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("reading and writing files does not panic")
}
