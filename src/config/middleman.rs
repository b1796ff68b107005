//! The settings of the middleman door, and the files of its keys.

use std::path::PathBuf;
use std::time::Duration;

use super::doors::MIDDLEMAN;
use super::flag_binds::MIDDLEMAN_BIND;
use super::keys::Keys;
use super::table::settings;
use super::{Config, DAY, Error, FlagListener, Layers, ListenerTable, MOMENT, WssBind};

/// Smallest bound of a message, in bytes: twice what the relay may add to one.
const LEAST_MESSAGE: usize = 4_096;

/// Largest bound of a message, in bytes: what sessions take.
const MOST_MESSAGE: usize = 1_048_576;

settings! {
    /// What the door's flags say, each for itself.
    #[derive(Debug)]
    pub(super) struct MiddlemanFlags {
        "middleman" {
            /// For clients and services of middleman, IP:PORT or unix:/PATH; then --wss-bind has no listener unless set
            middleman_bind: Option<WssBind> ["ADDRESS"];
            /// File with the keys of services, one a line: they may do everything
            middleman_service_keys_file: Option<PathBuf> ["FILE"; live];
            /// File with the keys of clients, one a line: they may do what a service has allowed
            middleman_client_keys_file: Option<PathBuf> ["FILE"; live];
            /// Tell each connection its GUID behind MM OK: the Python clients need it, the Go service ends over it
            middleman_guid: bool ["BOOL"; live] or "true";
            /// Time for a responder to answer a request; then the requester is told that it failed
            middleman_request_timeout: Duration ["TIME"; live] or "30s" in MOMENT..=DAY;
            /// Longest message, in bytes, as it is delivered: as it comes, up to 2048 less
            middleman_max_message: usize ["BYTES"] or "1048576" in LEAST_MESSAGE..=MOST_MESSAGE;
        }
    }
}

/// What the middleman door is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Middleman {
    /// The keys of services, one at least.
    pub service_keys: Keys,
    /// The keys of clients, none of which is a service's; nobody is a client where there is none.
    pub client_keys: Keys,
    /// Whether a connection is told its GUID.
    pub tells_guid: bool,
    /// Time for the answer to a request.
    pub request_timeout: Duration,
    /// Longest message, in bytes.
    pub max_message: usize,
    /// The listener of `middleman_bind`, where there is one.
    pub listener: Option<FlagListener>,
}

impl Middleman {
    /// Reads the door's settings, and the files that they name.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, Error> {
        let flags = MiddlemanFlags::read(layers)?;
        let Some(service_keys) = flags.middleman_service_keys_file else {
            let idle = [
                ("middleman_bind", flags.middleman_bind.is_some()),
                ("middleman_client_keys_file", flags.middleman_client_keys_file.is_some()),
            ];
            return match idle.into_iter().find(|(_, is_set)| *is_set) {
                Some((key, _)) => {
                    Err(layers.refuse(key, "needs --middleman-service-keys-file as well"))
                }
                None => Ok(None),
            };
        };
        let listener = flags
            .middleman_bind
            .map(|bind| FlagListener::read(&MIDDLEMAN_BIND, bind, (Vec::new(), Vec::new()), layers))
            .transpose()?;
        let keys = |key, path: PathBuf| {
            Keys::read(&path).map_err(|reason| layers.refuse_file(key, &path, reason))
        };
        let service_keys = keys("middleman_service_keys_file", service_keys)?;
        let client_keys = flags
            .middleman_client_keys_file
            .map(|path| keys("middleman_client_keys_file", path))
            .transpose()?
            .unwrap_or_default();
        if client_keys.meets(&service_keys) {
            let reason = "a key of this file is in the file of --middleman-service-keys-file as \
                          well: whoever has it would be a service; write another for clients";
            return Err(layers.refuse("middleman_client_keys_file", reason));
        }
        Ok(Some(Self {
            service_keys,
            client_keys,
            tells_guid: flags.middleman_guid,
            request_timeout: flags.middleman_request_timeout,
            max_message: flags.middleman_max_message,
            listener,
        }))
    }
}

impl Config {
    /// Takes over what a running relay can, where both have the door; the files whose contents
    /// are others.
    pub(super) fn take_middleman(&mut self, new: &Self) -> Vec<&'static str> {
        let (Some(ours), Some(new)) = (&mut self.middleman, &new.middleman) else {
            return Vec::new();
        };
        if let (Some(listener), Some(new)) = (&mut ours.listener, &new.listener) {
            listener.take_live(new);
        }
        let files = [
            ("middleman_service_keys_file", ours.service_keys != new.service_keys),
            ("middleman_client_keys_file", ours.client_keys != new.client_keys),
        ];
        ours.service_keys.clone_from(&new.service_keys);
        ours.client_keys.clone_from(&new.client_keys);
        ours.tells_guid = new.tells_guid;
        ours.request_timeout = new.request_timeout;
        files.into_iter().filter(|(_, are_others)| *are_others).map(|(key, _)| key).collect()
    }

    /// What does not go together with the door, and why.
    pub(super) fn middleman_contradiction(&self) -> Option<(&'static str, String)> {
        let of_flag = self.middleman.as_ref().and_then(|middleman| middleman.listener.as_ref());
        let names_it = |table: &ListenerTable| table.doors.contains(&&MIDDLEMAN);
        let is_named = of_flag.is_some() || self.listeners.iter().any(names_it);
        let reason = match (&self.middleman, is_named) {
            (None, true) => "the middleman door of a [[listener]] needs it: who may log in",
            (Some(_), false) => {
                "no listener has the middleman door; add --middleman-bind, or write doors = \
                 [\"middleman\"] in a [[listener]]"
            }
            (None, false) | (Some(_), true) => return None,
        };
        Some(("middleman_service_keys_file", reason.to_owned()))
    }
}
