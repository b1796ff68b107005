//! The settings of the peerbus door, and the files of its tokens and its secret.

use std::path::PathBuf;

use super::doors::PEERBUS;
use super::flag_binds::PEERBUS_BIND;
use super::table::settings;
use super::tokens::Tokens;
use super::{Config, Error, FlagListener, Layers, ListenerTable, Secret, WssBind};

/// Shortest secret that messages are signed with, in bytes: what the original demands.
const LEAST_HMAC_SECRET: usize = 32;

settings! {
    /// What the door's flags say, each for itself.
    #[derive(Debug)]
    pub(super) struct PeerbusFlags {
        "peerbus" {
            /// For adapters of peerbus, IP:PORT or unix:/PATH; then --wss-bind has no listener unless set
            peerbus_bind: Option<WssBind> ["ADDRESS"];
            /// File with the tokens of peers, one a line: TOKEN, LABEL TOKEN or LABEL=NAMES TOKEN
            peerbus_tokens_file: Option<PathBuf> ["FILE"; live];
            /// File with the secret that peers sign with, 32 bytes or more: forgeries are then dropped
            peerbus_hmac_secret_file: Option<PathBuf> ["FILE"; live];
        }
    }
}

/// What the peerbus door is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peerbus {
    /// Who may log in, one token at least.
    pub tokens: Tokens,
    /// What messages are signed with, where the relay checks that.
    pub hmac: Option<Secret>,
    /// The listener of `peerbus_bind`, where there is one.
    pub listener: Option<FlagListener>,
}

/// The settings whose files hold what is not shown, and whether it is another.
pub(super) type NewSecrets = Vec<&'static str>;

impl Peerbus {
    /// Reads the door's settings, and the files that they name.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, Error> {
        let PeerbusFlags { peerbus_bind, peerbus_tokens_file, peerbus_hmac_secret_file } =
            PeerbusFlags::read(layers)?;
        let Some(path) = peerbus_tokens_file else {
            let reason = "needs --peerbus-tokens-file as well";
            let idle = [
                ("peerbus_bind", peerbus_bind.is_some()),
                ("peerbus_hmac_secret_file", peerbus_hmac_secret_file.is_some()),
            ];
            return match idle.into_iter().find(|(_, is_set)| *is_set) {
                Some((key, _)) => Err(layers.refuse(key, reason)),
                None => Ok(None),
            };
        };
        let listener = peerbus_bind
            .map(|bind| FlagListener::read(&PEERBUS_BIND, bind, (Vec::new(), Vec::new()), layers));
        let tokens = Tokens::read(&path)
            .map_err(|reason| layers.refuse_file("peerbus_tokens_file", &path, reason))?;
        let hmac = peerbus_hmac_secret_file.map(|path| {
            Secret::read_of_least(&path, LEAST_HMAC_SECRET)
                .map_err(|reason| layers.refuse_file("peerbus_hmac_secret_file", &path, reason))
        });
        Ok(Some(Self { tokens, hmac: hmac.transpose()?, listener: listener.transpose()? }))
    }
}

impl Config {
    /// Takes over what a running relay can, where both have the door; the files whose contents
    /// are others.
    pub(super) fn take_peerbus(&mut self, new: &Self) -> NewSecrets {
        let (Some(ours), Some(new)) = (&mut self.peerbus, &new.peerbus) else { return Vec::new() };
        if let (Some(listener), Some(new)) = (&mut ours.listener, &new.listener) {
            listener.take_live(new);
        }
        let files = [
            ("peerbus_tokens_file", ours.tokens != new.tokens),
            ("peerbus_hmac_secret_file", ours.hmac != new.hmac),
        ];
        ours.tokens.clone_from(&new.tokens);
        ours.hmac.clone_from(&new.hmac);
        files.into_iter().filter(|(_, are_others)| *are_others).map(|(key, _)| key).collect()
    }

    /// What does not go together with the door, and why.
    pub(super) fn peerbus_contradiction(&self) -> Option<(&'static str, String)> {
        let of_flag = self.peerbus.as_ref().and_then(|peerbus| peerbus.listener.as_ref());
        let names_it = |table: &ListenerTable| table.doors.contains(&&PEERBUS);
        let is_named = of_flag.is_some() || self.listeners.iter().any(names_it);
        let reason = match (&self.peerbus, is_named) {
            (None, false) => return None,
            (None, true) => "the peerbus door of a [[listener]] needs it: who may log in",
            (Some(_), false) => {
                "no listener has the peerbus door; add --peerbus-bind, or write doors = \
                 [\"peerbus\"] in a [[listener]]"
            }
            (Some(_), true) if self.cluster.is_some() && self.bus_nats.is_none() => {
                "a relay of a cluster keeps messages in NATS, or peers at another relay would not get \
                 them: add --bus-nats, or run the door on a relay of its own, without \
                 --cluster-bind and --cluster-nats"
            }
            (Some(_), true) => return None,
        };
        Some(("peerbus_tokens_file", reason.to_owned()))
    }
}
