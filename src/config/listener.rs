//! The listeners for streams of peers: that of `wss_bind` and today's keys, and those of
//! `[[listener]]` tables, and what is wrong among them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::doors::{Conflict, KEYOP, Routes};
use super::error::Mistakes;
use super::flag_binds::{FLAG_BINDS, FlagBind, TABLE_WAY_OUT, WSS_WAY_OUT};
use super::given::Scope;
use super::table::settings;
use super::{
    AcmeContact, AcmeName, AllowOrigins, ClientTrust, Config, DoorKind, Error, IpNet, Layers,
    ListenerName, PILOT, PathPrefixes, TlsPair, WssBind, acme, certificate,
};

/// The flag of the listener for nodes, without its dashes.
const WSS_BIND: &str = "wss-bind";

settings! {
    /// One `[[listener]]` table.
    #[derive(Clone, Debug, Eq, PartialEq)]
    pub struct ListenerTable {
        "Listener" {
            /// Name in the log, and of the socket that systemd hands over for it
            name: Option<ListenerName> ["NAME"];
            /// Where to listen: IP:PORT or unix:/PATH
            bind: WssBind ["ADDRESS"];
            /// Protocols that peers speak there
            doors: Vec<&'static DoorKind> ["NAME"];
            /// Prefix of the paths of a door that accepts any, or one for each such door
            path: PathPrefixes ["PREFIX"];
            /// Certificates with their keys: the relay then speaks TLS there
            tls: Vec<TlsPair> ["TABLES"];
            /// Authorities, as PEM, that the certificates of clients are of: each has to have one there
            tls_client_ca: Option<PathBuf> ["FILE"];
            /// What these authorities have revoked, as PEM: a list of each
            tls_client_crl: Option<PathBuf> ["FILE"];
            /// Names to get and renew a certificate for, by ACME
            acme: Vec<AcmeName> ["NAME"];
            /// Where the authority may write to, as mailto:NAME@HOST
            acme_contact: Vec<AcmeContact> ["MAILTO"];
            /// Allow an address without TLS that others than this machine can reach
            public_plaintext: bool ["BOOL"] or "false";
            /// Proxies whose X-Forwarded-For counts [default: loopback for a local address]
            trusted_proxies: Vec<IpNet> ["IP[/N]"; live];
            /// Origins of web pages that may connect, and no others; * is all
            allow_origins: AllowOrigins ["ORIGIN"; live];
        }
    }
    made of several {
        /// The doors, by their paths.
        routes: Routes = routes;
        /// What the certificates of clients are judged by, where they need one.
        client_trust: Option<ClientTrust> = client_trust;
    }
}

/// A listener for streams of peers, whoever said it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The setting that says where it listens: `wss-bind`, or `listener[1].bind` and so on.
    pub setting: String,
    /// What a socket is called that systemd hands over for it: `wss`, or the table's name.
    pub name: Option<String>,
    /// Where it listens.
    pub bind: WssBind,
    /// The doors.
    pub doors: Vec<&'static DoorKind>,
    /// The doors, by their paths.
    pub routes: Routes,
    /// Its certificates, where it speaks TLS itself; the first is for clients that name no server.
    pub tls: Vec<TlsPair>,
    /// Names that it gets and renews a certificate for; then it speaks TLS as well.
    pub acme: Vec<AcmeName>,
    /// What the certificates of clients are judged by, where they need one.
    pub client_trust: Option<ClientTrust>,
    /// Whether others than this machine may reach it without TLS.
    pub public_plaintext: bool,
    /// Proxies whose X-Forwarded-For counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Origins of web pages that may connect.
    pub allow_origins: AllowOrigins,
}

impl Config {
    /// The listeners in the order in which they are served: that of `wss_bind` first, which is
    /// there where the configuration [says so](Self::serves_wss_bind) or a socket is open for it,
    /// then those of other doors' flags.
    #[must_use]
    pub fn all_listeners(&self, has_wss_socket: bool) -> Vec<Listener> {
        let of_wss_bind = Listener {
            setting: WSS_BIND.to_owned(),
            name: Some("wss".to_owned()),
            bind: self.wss_bind.clone(),
            doors: vec![&PILOT],
            routes: Routes::default(),
            tls: self.tls.clone(),
            acme: self.acme.clone(),
            client_trust: None,
            public_plaintext: self.public_plaintext,
            trusted_proxies: self.trusted_proxies.clone(),
            allow_origins: AllowOrigins::DoorsAnd(self.allow_origins.clone()),
        };
        let of_tables = self.listeners.iter().enumerate().map(|(index, table)| Listener {
            setting: format!("{}bind", Scope::prefix_of_listener(index)),
            name: table.name.as_ref().map(|name| name.as_str().to_owned()),
            bind: table.bind.clone(),
            doors: table.doors.clone(),
            routes: table.routes.clone(),
            tls: table.tls.clone(),
            acme: table.acme.clone(),
            client_trust: table.client_trust.clone(),
            public_plaintext: table.public_plaintext,
            trusted_proxies: table.trusted_proxies.clone(),
            allow_origins: table.allow_origins.clone(),
        });
        let serves_wss_bind = self.serves_wss_bind || has_wss_socket;
        let of_wss_bind = serves_wss_bind.then_some(of_wss_bind).into_iter();
        of_wss_bind.chain(self.listeners_of_flags()).chain(of_tables).collect()
    }
}

impl Listener {
    /// What the log calls it: its name, or `listener[1]` and so on.
    #[must_use]
    pub fn label(&self) -> &str {
        self.name.as_deref().unwrap_or_else(|| self.setting.trim_end_matches(".bind"))
    }

    /// Whether it speaks TLS itself.
    #[must_use]
    pub const fn speaks_tls(&self) -> bool {
        !self.tls.is_empty() || !self.acme.is_empty()
    }

    /// Whether the flag of one door makes it, such as `--netbird-bind`.
    #[must_use]
    pub fn is_of_one_door(&self) -> bool {
        self.flag().is_some()
    }

    /// What to do where others than this machine reach it without TLS, and nobody allowed that.
    #[must_use]
    pub fn way_out(&self) -> &'static str {
        match self.flag() {
            Some(of) => of.way_out,
            None if self.setting == WSS_BIND => WSS_WAY_OUT,
            None => TABLE_WAY_OUT,
        }
    }

    fn flag(&self) -> Option<&'static FlagBind> {
        FLAG_BINDS.into_iter().find(|of| of.flag.strip_prefix("--") == Some(&self.setting))
    }

    /// What its clients ask for over QUIC, which is only with TLS.
    #[must_use]
    pub fn quic_protocols(&self) -> Vec<&'static str> {
        let doors = self.doors.iter().filter(|_| self.speaks_tls());
        doors.filter_map(|door| door.quic).collect()
    }
}

/// Reads all tables, and checks each for itself.
pub(super) fn tables(layers: &Layers) -> Result<Vec<ListenerTable>, Error> {
    let mut mistakes = Mistakes::default();
    let tables: Vec<_> =
        layers.listeners().iter().filter_map(|text| mistakes.take(table(text))).collect();
    mistakes.end().map(|()| tables)
}

fn table(layers: &Layers) -> Result<ListenerTable, Error> {
    for (key, wanted) in [
        ("bind", "where to listen: IP:PORT or unix:/PATH"),
        ("doors", "what is spoken there, as in doors = [\"pilot\"]"),
    ] {
        if layers.is_default(key) {
            return Err(layers.refuse(key, format!("missing; write {wanted}")));
        }
    }
    let table = ListenerTable::read(layers)?;
    certificate::check(&table.tls, layers)?;
    acme::check(&table.acme, &table.tls, layers)?;
    let speaks_tls = !table.tls.is_empty() || !table.acme.is_empty();
    if table.client_trust.is_some() && table.tls.is_empty() {
        let reason = "the relay has to speak TLS there itself, with a certificate that the clients \
                      know: write tls = [{ cert = \"FILE\", key = \"FILE\" }]";
        return Err(layers.refuse("tls_client_ca", reason));
    }
    if table.client_trust.is_none() && table.doors.contains(&&KEYOP) {
        let reason = "the keyop door knows its peers by their certificates: write tls_client_ca = \
                      \"FILE\" as well";
        return Err(layers.refuse("doors", reason));
    }
    if !table.bind.is_local() && !table.public_plaintext && !speaks_tls {
        let danger = "it is open to others than this machine, without TLS";
        return Err(layers.refuse("bind", format!("{danger}; {TABLE_WAY_OUT}")));
    }
    Ok(table)
}

/// The doors of a table, by their paths.
fn routes(layers: &Layers) -> Result<Routes, Error> {
    let doors: Vec<&'static DoorKind> = layers.read("doors")?;
    let path: PathPrefixes = layers.read("path")?;
    Routes::new(&doors, &path).map_err(|conflict| match conflict {
        Conflict::Doors(reason) => layers.refuse("doors", reason),
        Conflict::Path(reason) => layers.refuse("path", reason),
    })
}

/// What a table says of its clients' certificates.
fn client_trust(layers: &Layers) -> Result<Option<ClientTrust>, Error> {
    let (ca_key, crl_key) = ("tls_client_ca", "tls_client_crl");
    ClientTrust::of(layers, (ca_key, &layers.read(ca_key)?), (crl_key, &layers.read(crl_key)?))
}

/// Refuses two listeners of one address or one name.
pub(super) fn check_all(config: &Config, layers: &Layers) -> Result<(), Error> {
    let mut of_flags: Vec<(&str, &WssBind)> = Vec::new();
    of_flags.extend(config.serves_wss_bind.then_some(("--wss-bind", &config.wss_bind)));
    for (of, listener) in config.flag_listeners() {
        if let Some((other, _)) = of_flags.iter().find(|(_, bind)| is_same(&listener.bind, bind)) {
            let reason = format!("that is the address of {other}; choose another for one of both");
            return Err(layers.refuse(of.key, reason));
        }
        of_flags.push((of.flag, &listener.bind));
    }
    let tables = layers.listeners().iter().zip(&config.listeners);
    for (index, (text, table)) in tables.enumerate() {
        if let Some((flag, _)) = of_flags.iter().find(|(_, bind)| is_same(&table.bind, bind)) {
            let more = if *flag == "--wss-bind" { ", or set one of both" } else { "" };
            let reason = format!("that is the address of {flag}; choose another{more}");
            return Err(text.refuse("bind", reason));
        }
        let before = config.listeners.iter().take(index).enumerate();
        for (other_index, other) in before {
            let other_prefix = Scope::prefix_of_listener(other_index);
            if is_same(&table.bind, &other.bind) {
                let reason = format!("that is {other_prefix}bind already; choose another address");
                return Err(text.refuse("bind", reason));
            }
            if table.name.is_some() && table.name == other.name {
                let reason = format!("that is {other_prefix}name already; choose another name");
                return Err(text.refuse("name", reason));
            }
        }
    }
    Ok(())
}

/// Whether two listeners cannot both have their addresses; port 0 is another one each time.
fn is_same(one: &WssBind, other: &WssBind) -> bool {
    let canonical = |address: &SocketAddr| (address.ip().to_canonical(), address.port());
    match (one, other) {
        (WssBind::Tcp(one), WssBind::Tcp(other)) => {
            one.port() != 0 && canonical(one) == canonical(other)
        }
        (WssBind::Unix(one), WssBind::Unix(other)) => one == other,
        (WssBind::Tcp(_), WssBind::Unix(_)) | (WssBind::Unix(_), WssBind::Tcp(_)) => false,
    }
}
