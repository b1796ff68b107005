//! Other hubs of keyop-messenger that this relay is a client of.

use std::collections::BTreeSet;
use std::path::PathBuf;

use rustls::pki_types::ServerName;

use super::value::{Kind, Text as _, Value, split};
use super::{Config, HostPort, HubName, Invalid, TlsPair};
use crate::wire::keyop::channel::{is_dead_letter, is_name};

/// A hub that this relay is a client of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyopHub {
    /// The name that its certificate has, and that it adds to routes.
    pub name: String,
    /// Where it listens, `host:port`.
    pub address: String,
    /// What it speaks.
    pub transport: KeyopTransport,
    /// The channels of it whose records are taken.
    pub subscribe: BTreeSet<String>,
    /// The channels whose records it gets.
    pub publish: BTreeSet<String>,
    /// What this relay shows; where nothing is said, what the door shows to its peers.
    pub pair: Option<TlsPair>,
    /// The authorities of its certificate; where nothing is said, those of the door's peers.
    pub authorities: Option<PathBuf>,
}

/// How a hub is spoken to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyopTransport {
    /// As from v1.5.0 on.
    Grpc,
    /// As up to v1.4.1.
    WebSocket,
}

/// How hubs are written.
const HOW: &str = "no hub; write [[keyop.hub]] with name = \"NAME OF ITS CERTIFICATE\", address = \
                   \"HOST:PORT\", and subscribe or publish = [\"CHANNEL\"]";

/// Port of a hub where its address has none, as in the original's examples.
const PORT: u16 = 7_740;

impl Value for Vec<KeyopHub> {
    const KIND: Kind = Kind::Tables;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        let mut hubs = Self::new();
        for item in items.iter().filter(|item| !item.is_empty()) {
            let hub = KeyopHub::read(item)?;
            if hubs.iter().any(|known| known.name == hub.name) {
                return Err(format!("{} stands there twice; once is enough", hub.name).into());
            }
            hubs.push(hub);
        }
        Ok(hubs)
    }
}

impl KeyopHub {
    fn read(item: &str) -> Result<Self, Invalid> {
        let (mut name, mut address) = (None, None);
        let (mut cert, mut key, mut authorities) = (None, None, None);
        let (mut subscribe, mut publish) = (BTreeSet::new(), BTreeSet::new());
        let mut transport = KeyopTransport::Grpc;
        for line in item.lines() {
            match line.split_once('=') {
                Some(("name", text)) => name = Some(HubName::parse(text)?.as_str().to_owned()),
                Some(("address", text)) => address = Some(text.to_owned()),
                Some(("transport", text)) => transport = text.parse()?,
                Some(("subscribe", list)) => subscribe = channels(list)?,
                Some(("publish", list)) => publish = channels(list)?,
                Some(("cert", path)) => cert = Some(PathBuf::from(path)),
                Some(("key", path)) => key = Some(PathBuf::from(path)),
                Some(("ca", path)) => authorities = Some(PathBuf::from(path)),
                _ => return Err(HOW.into()),
            }
        }
        let name = name.ok_or(HOW)?;
        if ServerName::try_from(name.as_str()).is_err() {
            let reason = format!(
                "`{name}` is no DNS name, which certificates are checked for; write the one in its \
                 certificate"
            );
            return Err(reason.into());
        }
        let address = address.ok_or(HOW)?;
        let has_port =
            address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let address = if has_port { address } else { format!("{address}:{PORT}") };
        let wrong = |error| format!("`{address}`, the address of {name}, is {error}");
        let address = address.parse::<HostPort>().map_err(wrong)?.to_string();
        if subscribe.is_empty() && publish.is_empty() {
            let reason =
                format!("{name} would get nothing and give nothing: add subscribe or publish");
            return Err(reason.into());
        }
        let pair = match (cert, key) {
            (Some(cert), Some(key)) => Some(TlsPair { cert, key }),
            (None, None) => None,
            _ => return Err(format!("{name} needs cert and key, or neither").into()),
        };
        Ok(Self { name, address, transport, subscribe, publish, pair, authorities })
    }
}

/// The files that a hub is dialled with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HubFiles {
    /// What this relay shows.
    pub pair: TlsPair,
    /// The authorities of its certificate.
    pub authorities: PathBuf,
}

impl Config {
    /// The files of a hub: its own, or else those of the door.
    ///
    /// # Errors
    /// Neither has some.
    pub fn keyop_hub_files(&self, hub: &KeyopHub) -> Result<HubFiles, String> {
        let pair = hub.pair.as_ref().or_else(|| self.keyop_pair());
        let authorities = hub.authorities.as_deref().or_else(|| self.keyop_authorities());
        match (pair, authorities) {
            (Some(pair), Some(authorities)) => {
                Ok(HubFiles { pair: pair.clone(), authorities: authorities.to_owned() })
            }
            (None, _) => Err(format!("{} needs cert and key: the door has none", hub.name)),
            (_, None) => Err(format!("{} needs ca: the door has none", hub.name)),
        }
    }

    /// Why a hub cannot be dialled, where that is so.
    pub(super) fn keyop_hub_without_files(&self) -> Option<String> {
        let hubs = self.keyop.iter().flat_map(|keyop| &keyop.hubs);
        hubs.filter_map(|hub| self.keyop_hub_files(hub).err()).next()
    }
}

fn channels(list: &str) -> Result<BTreeSet<String>, Invalid> {
    let items = [list.to_owned()];
    let channels: BTreeSet<_> = split(&items).map(str::to_owned).collect();
    match channels.iter().find(|name| !is_name(name) || is_dead_letter(name)) {
        Some(wrong) => {
            let reason = format!(
                "`{wrong}` is no channel that hubs tell each other of; write 1 to 255 of A-Z, a-z, 0-9, ., _ and -"
            );
            Err(reason.into())
        }
        None => Ok(channels),
    }
}

impl std::str::FromStr for KeyopTransport {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "grpc" => Ok(Self::Grpc),
            "websocket" => Ok(Self::WebSocket),
            _ => Err("not a transport; write grpc, or websocket for a hub up to v1.4.1".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<KeyopHub, String> {
        let items = [text.replace("; ", "\n")];
        let hubs = Vec::<KeyopHub>::read(&items).map_err(|Invalid(reason)| reason)?;
        let [hub] = <[KeyopHub; 1]>::try_from(hubs).unwrap();
        Ok(hub)
    }

    #[test]
    fn hub_is_what_its_table_says() {
        let hub = read("name=b; address=b.test; publish=orders,alerts; transport=websocket");
        let hub = hub.unwrap();
        assert_eq!((&*hub.name, &*hub.address), ("b", "b.test:7740"));
        assert_eq!(hub.transport, KeyopTransport::WebSocket);
        assert!(hub.subscribe.is_empty() && hub.pair.is_none() && hub.authorities.is_none());
        assert!(hub.publish.iter().eq(["alerts", "orders"]));

        let hub = read("name=b; address=[::1]:1; subscribe=a; cert=c; key=k; ca=d").unwrap();
        assert_eq!((&*hub.address, hub.transport), ("[::1]:1", KeyopTransport::Grpc));
        assert_eq!(hub.pair, Some(TlsPair { cert: "c".into(), key: "k".into() }));
        assert_eq!(hub.authorities, Some("d".into()));
    }

    #[test]
    fn tables_that_are_no_hub_are_refused_with_the_reason() {
        for (text, reason) in [
            ("address=b.test; publish=a", "[[keyop.hub]]"),
            ("name=a b; address=b.test; publish=a", "`a b`"),
            ("name=b; publish=a", "[[keyop.hub]]"),
            ("name=b; address=b.test; publish=a; more=1", "[[keyop.hub]]"),
            ("name=b; address=b.test", "add subscribe or publish"),
            ("name=b; address=b.test; publish=a/b", "`a/b`"),
            ("name=b; address=b.test; subscribe=a.dead-letter", "`a.dead-letter`"),
            ("name=b; address=wss://b.test; publish=a", "the address of b"),
            ("name=b; address=b.test/x; publish=a", "the address of b"),
            ("name=b; address=b.test; publish=a; cert=c", "cert and key"),
            ("name=b; address=b.test; publish=a; transport=http", "grpc"),
        ] {
            let refused = read(text).unwrap_err();
            assert!(refused.contains(reason), "{text}: {refused}");
        }
        let twice =
            ["name=b\naddress=b\npublish=a".to_owned(), "name=b\naddress=c\npublish=a".to_owned()];
        Vec::<KeyopHub>::read(&twice).unwrap_err();
    }
}
