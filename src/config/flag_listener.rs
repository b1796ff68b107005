//! Listeners that a flag of a door's own makes, next to that of `wss_bind`.

use super::doors::Routes;
use super::flag_binds::{FLAG_BINDS, FlagBind};
use super::value::PathPrefixes;
use super::{
    AcmeName, AllowOrigins, ClientTrust, Config, Error, IpNet, Layers, Listener, TlsPair, WssBind,
};

/// A listener that a flag makes, beyond what it has in common with that of `wss_bind`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FlagListener {
    /// Where it listens.
    pub bind: WssBind,
    /// Its certificate, where it has one from files.
    pub tls: Vec<TlsPair>,
    /// Names that it gets and renews a certificate for.
    pub acme: Vec<AcmeName>,
    /// What the certificates of its clients are judged by, where they need one.
    pub client_trust: Option<ClientTrust>,
    /// Proxies whose X-Forwarded-For counts there.
    pub trusted_proxies: Vec<IpNet>,
}

impl FlagListener {
    /// The listener of a setting that says where it is, with these certificates.
    ///
    /// # Errors
    /// Others than this machine reach it without TLS, and nobody allowed that.
    pub(super) fn read(
        of: &FlagBind,
        bind: WssBind,
        (tls, acme): (Vec<TlsPair>, Vec<AcmeName>),
        layers: &Layers,
    ) -> Result<Self, Error> {
        let is_public: bool = layers.read("public_plaintext")?;
        if !bind.is_local() && !is_public && tls.is_empty() && acme.is_empty() {
            let danger = "it is open to others than this machine, without TLS";
            return Err(layers.refuse(of.key, format!("{danger}; {}", of.way_out)));
        }
        let trusted_proxies = trusted_proxies(&bind, layers)?;
        Ok(Self { bind, tls, acme, client_trust: None, trusted_proxies })
    }

    /// The listener, with the settings that it has in common with that of `wss_bind`.
    fn listener(&self, of: &FlagBind, config: &Config) -> Listener {
        Listener {
            setting: of.key.replace('_', "-"),
            name: Some(of.door.name.to_owned()),
            bind: self.bind.clone(),
            doors: vec![of.door],
            routes: Routes::new(&[of.door], &PathPrefixes::Unset)
                .expect("one door has no conflict"),
            tls: self.tls.clone(),
            acme: self.acme.clone(),
            client_trust: self.client_trust.clone(),
            public_plaintext: config.public_plaintext,
            trusted_proxies: self.trusted_proxies.clone(),
            allow_origins: AllowOrigins::DoorsAnd(config.allow_origins.clone()),
        }
    }

    /// Takes over what a running relay can, of a listener at the same address.
    pub(super) fn take_live(&mut self, new: &Self) {
        if self.bind == new.bind {
            self.trusted_proxies.clone_from(&new.trusted_proxies);
        }
    }
}

/// Those of `trusted_proxy`, if somebody has said any; else loopback for a local address.
fn trusted_proxies(bind: &WssBind, layers: &Layers) -> Result<Vec<IpNet>, Error> {
    if !layers.is_default("trusted_proxy") {
        return layers.read("trusted_proxy");
    }
    Ok(if bind.is_local() { IpNet::LOOPBACK.to_vec() } else { Vec::new() })
}

impl Config {
    /// The listeners that flags make, each with its setting.
    pub(super) fn flag_listeners(
        &self,
    ) -> impl Iterator<Item = (&'static FlagBind, &FlagListener)> {
        let of_netbird = self.netbird.as_ref().and_then(|netbird| netbird.listener.as_ref());
        let of_peerbus = self.peerbus.as_ref().and_then(|peerbus| peerbus.listener.as_ref());
        let of_middleman = self.middleman.as_ref().and_then(|door| door.listener.as_ref());
        let of_keyop = self.keyop.as_ref().and_then(|door| door.listener.as_ref());
        let of_doors = [of_netbird, of_peerbus, of_middleman, of_keyop];
        let each = FLAG_BINDS.into_iter().zip(of_doors);
        each.filter_map(|(of, listener)| Some((of, listener?)))
    }

    /// The same, as listeners.
    pub(super) fn listeners_of_flags(&self) -> impl Iterator<Item = Listener> {
        self.flag_listeners().map(|(of, listener)| listener.listener(of, self))
    }

    /// The names of sockets that systemd hands over for them.
    pub fn names_of_flag_listeners(&self) -> impl Iterator<Item = &str> {
        self.flag_listeners().map(|(of, _)| of.door.name)
    }
}
