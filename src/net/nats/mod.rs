//! Where NATS is, and how we log in there: URLs and the credentials file, checked without
//! the network.

#[cfg(test)]
pub(crate) mod testing;

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions, ServerAddr};
use tokio::time;

use crate::net::resolve::Resolver;
use crate::net::tls::{self, TlsError, Trust};
use crate::wire::mark::without_mark;
use crate::wire::percent::percent_decoded;

/// How long a server's name may take to resolve.
const NAME: Duration = Duration::from_secs(5);

/// Where NATS is. It has no `Debug`, since the URL may hold a password.
pub struct Settings {
    /// `nats://` or `tls://`, `[user:password@]host[:port]`, several separated by commas. A
    /// user without a password is a token.
    pub url: String,
    /// A file with a user's JWT and the seed of its key, as NATS' own tools write it.
    pub credentials: Option<PathBuf>,
}

/// One server, and how to connect to it.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    /// Without user and password: the client would log them.
    pub(crate) address: ServerAddr,
    pub(crate) options: ConnectOptions,
}

impl Server {
    /// For people to read.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.address.host(), self.address.port())
    }

    /// Resolves its name, for who is about to connect.
    pub(crate) async fn resolve(&self) -> Result<(), ConnectError> {
        resolve(&self.address, &Resolver::shared()).await
    }
}

/// Resolves the name before the client does, which waits for it without a limit: a name that
/// hangs would keep us from the other servers.
async fn resolve(server: &ServerAddr, resolver: &Resolver) -> Result<(), ConnectError> {
    let dns = |error| ConnectError::with_source(ConnectErrorKind::Dns, error);
    let found = time::timeout(NAME, resolver.resolve(server.host(), server.port())).await;
    let late = |_| dns(io::Error::from(io::ErrorKind::TimedOut));
    found.map_err(late)?.map(drop).map_err(dns)
}

/// Reads the settings; there is one server at least. Blocks for the file.
pub(crate) fn servers(settings: &Settings) -> Result<Vec<Server>, SettingsError> {
    let options = options(settings)?;
    settings.url.split(',').map(|url| server(url.trim(), &options)).collect()
}

fn options(settings: &Settings) -> Result<ConnectOptions, SettingsError> {
    let options = ConnectOptions::new()
        .no_echo()
        // The list is the operator's: a server's own idea of its addresses drops `tls://`,
        // and may lead nowhere from here.
        .ignore_discovered_servers()
        // We connect anew ourselves. The client would keep what it holds, whatever its age;
        // it knows no 0 here.
        .max_reconnects(1);
    // A server may ask for TLS whatever the URL says. Only `tls://` fails without authorities.
    let options = match tls::client_config(&Trust::System) {
        Ok(config) => options.tls_client_config((*config).clone()),
        Err(error) if settings.url.contains("tls://") => return Err(error.into()),
        Err(_) => options,
    };
    let Some(path) = &settings.credentials else { return Ok(options) };
    fs::read_to_string(path)
        .and_then(|text| options.credentials(without_mark(&text)))
        .map_err(|source| SettingsError::Credentials { path: path.clone(), source })
}

fn server(url: &str, options: &ConnectOptions) -> Result<Server, SettingsError> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
    let (user, host) =
        rest.rsplit_once('@').map_or((None, rest), |(user, host)| (Some(user), host));
    let shown = format!("{scheme}://{}", host.trim_end_matches('/'));
    let invalid = |reason: String| SettingsError::Server { server: shown.clone(), reason };
    if !matches!(scheme, "nats" | "tls") {
        return Err(invalid("expected nats:// or tls://".to_owned()));
    }
    if host.trim_end_matches('/').contains(['/', '?', '#']) {
        return Err(invalid("expected nothing after the port".to_owned()));
    }
    let address: ServerAddr =
        shown.parse().map_err(|error: io::Error| invalid(error.to_string()))?;
    if address.host().is_empty() {
        return Err(invalid("expected a host".to_owned()));
    }
    let not_utf8 = || invalid("user and password are not UTF-8 when decoded".to_owned());
    let decoded = |text: &str| percent_decoded(text).ok_or_else(not_utf8);
    // The client leaves it to us what a URL says about the user.
    let options = match user.map(|user| user.split_once(':').ok_or(user)) {
        None => options.clone(),
        Some(Err(token)) => options.clone().token(decoded(token)?),
        Some(Ok((user, password))) => {
            options.clone().user_and_password(decoded(user)?, decoded(password)?)
        }
    };
    Ok(Server { address, options })
}

/// Why the settings are none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// An address that is none.
    #[error("{server} is no NATS server: {reason}")]
    Server {
        /// The address, without user and password.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The credentials file cannot be read, or holds something else.
    #[error("cannot use the NATS credentials of {}: {source}", path.display())]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// TLS is asked for, and there is nobody to trust.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    fn read(url: &str) -> Result<Vec<Server>, SettingsError> {
        servers(&Settings { url: url.to_owned(), credentials: None })
    }

    fn refusal(url: &str) -> String {
        read(url).unwrap_err().to_string()
    }

    #[test]
    fn url_may_list_servers() {
        let servers = read("nats://a, tls://b:7,[::1]:9/").unwrap();
        let names: Vec<_> = servers.iter().map(Server::name).collect();
        assert_eq!(names, ["a:4222", "b:7", "::1:9"]);
        let tls: Vec<_> = servers.iter().map(|server| server.address.tls_required()).collect();
        assert_eq!(tls, [false, true, false]);
    }

    #[test]
    fn password_is_shown_nowhere() {
        let servers = read("nats://relay:s%40cret@a:1").unwrap();
        assert!(!format!("{servers:?}").contains("cret"), "{servers:?}");
        for url in ["http://relay:secret@a", "nats://relay:secret@a:port", "tls://u:secret@"] {
            assert!(!refusal(url).contains("secret"), "{url}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused_with_the_reason() {
        for (url, reason) in [
            ("http://a", "http://a is no NATS server: expected nats:// or tls://"),
            ("nats://a/b", "nats://a/b is no NATS server: expected nothing after the port"),
            ("nats://", "nats:// is no NATS server: expected a host"),
            ("", "nats:// is no NATS server: expected a host"),
            ("nats://a,", "nats:// is no NATS server: expected a host"),
        ] {
            assert_eq!(refusal(url), reason);
        }
        assert!(refusal("nats://a:port").contains("invalid port"), "{}", refusal("nats://a:port"));
    }

    #[test]
    fn credentials_file_that_is_none_names_the_file_and_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("relay.creds");
        let refusal = || {
            let credentials = Some(path.clone());
            servers(&Settings { url: "nats://a".to_owned(), credentials }).unwrap_err().to_string()
        };

        assert!(refusal().contains("relay.creds: No such file"), "{}", refusal());
        fs::write(&path, "not a word of it").unwrap();
        assert!(refusal().contains("relay.creds: cannot parse user JWT"), "{}", refusal());
        let seedless =
            "-----BEGIN NATS USER JWT-----\neyJ0.eyJ1.c2ln\n------END NATS USER JWT------\n";
        fs::write(&path, seedless).unwrap();
        assert!(refusal().contains("relay.creds: cannot parse nkey"), "{}", refusal());
        let bad_seed = format!(
            "{seedless}\n-----BEGIN USER NKEY SEED-----\nSUSECRET\n------END USER NKEY SEED------\n"
        );
        fs::write(&path, bad_seed).unwrap();
        let refusal = refusal();
        assert!(refusal.contains("relay.creds: ") && !refusal.contains("SUSECRET"), "{refusal}");
    }

    #[tokio::test(start_paused = true)]
    async fn server_whose_name_hangs_is_given_up() {
        let (_release, hang) = mpsc::channel::<()>();
        let hang = Mutex::new(hang);
        let resolver = Resolver::new(1, move |_| {
            let _released = hang.lock().unwrap().recv();
            Ok(Vec::new())
        });
        let error = resolve(&"nats://dead.test".parse().unwrap(), &resolver).await.unwrap_err();
        assert_eq!(error.kind(), ConnectErrorKind::Dns);
        resolve(&"nats://[::1]:4222".parse().unwrap(), &resolver).await.unwrap();
    }
}
