//! What to do about a command that has failed: each message says so, or is completed here.
//!
//! In a message the way out stands behind a semicolon.

use std::io::{self, ErrorKind};

use crate::cluster::IdentityError;
use crate::control::client::AskError;
use crate::doors::pilot::directory::EnrollError;
use crate::key_file::KeyFileError;
use crate::store::{self, StoreError};
use crate::{bus, config};

/// The message with this way out, unless it names one itself.
pub(super) fn completed(message: &str, way_out: &str) -> String {
    if message.contains("; ") { message.to_owned() } else { format!("{message}; {way_out}") }
}

/// What to do about a failure, by the first of its causes that says enough.
pub(super) fn of_failure(error: &anyhow::Error) -> Option<&'static str> {
    error.chain().find_map(|cause| {
        if let Some(error) = cause.downcast_ref() {
            return Some(of_store(error));
        }
        if let Some(error) = cause.downcast_ref() {
            return Some(of_nats(error));
        }
        if let Some(error) = cause.downcast_ref() {
            return of_key_file(error);
        }
        if let Some(error) = cause.downcast_ref() {
            return of_enrolment(error);
        }
        let of_system = |error: &&io::Error| error.kind() != ErrorKind::Other;
        cause.downcast_ref::<io::Error>().filter(of_system).map(config::remedy)
    })
}

/// What to do about a store of messages.
const fn of_store(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) => {
            "look at its disk: has it room, and may this user write there?"
        }
        StoreError::Damaged(_) => "look at its disk (dmesg), and restore a backup: docs/PEERBUS.md",
        StoreError::Locked => "stop the relay that runs there first",
        StoreError::Fenced => "run this at the relay that leads, which `beacon-relay status` names",
    }
}

/// What to do about a message bus that does not start.
pub(super) fn of_bus(error: &bus::StartError) -> &'static str {
    match error {
        bus::StartError::Store(error) => of_store(error),
        bus::StartError::Thread(error) => config::remedy(error),
    }
}

/// What to do about the NATS of messages.
pub(super) const fn of_nats(error: &store::OpenError) -> &'static str {
    match error {
        store::OpenError::Settings(_) => {
            "--bus-nats nats://… or tls://…, --bus-nats-credentials FILE"
        }
        store::OpenError::Payload { .. } => {
            "max_payload as in deploy/nats/messages.conf, then reload it"
        }
        store::OpenError::NoJetStream(_) => {
            "`jetstream { store_dir: … }` in nats-server's configuration, and `jetstream: enabled` of \
             the account; deploy/nats/messages.conf"
        }
        store::OpenError::Unreachable(_) => {
            "is nats-server up, is its port open to this machine, do the user and the password of \
             --bus-nats, or --bus-nats-credentials, fit? Until then messages wait"
        }
        store::OpenError::Store(error) => of_store(error),
        store::OpenError::Thread(_) => {
            "raise the limit of threads or memory (ulimit, its control group)"
        }
    }
}

/// What to do about a file with a key, where the system does not say it.
const fn of_key_file(error: &KeyFileError) -> Option<&'static str> {
    match error {
        KeyFileError::NotAKey { .. } => {
            Some("name a file that `beacon-relay keygen --out` has written")
        }
        KeyFileError::Read { .. } | _ => None,
    }
}

/// What to do about this relay's key.
pub(super) fn of_identity(error: &IdentityError) -> &'static str {
    match error {
        IdentityError::File(KeyFileError::Read { source, .. })
        | IdentityError::Write { source, .. } => config::remedy(source),
        IdentityError::Random(_) => "start this once the system has randomness",
        IdentityError::File(_) => {
            "restore it from a backup, or remove it: then the relay gets another id, which the others \
             of a cluster have to know"
        }
    }
}

/// What to do about the embedded directory, where the system does not say it.
const fn of_enrolment(error: &EnrollError) -> Option<&'static str> {
    match error {
        EnrollError::Locked { .. } => Some("try again in a moment"),
        EnrollError::File(_) | EnrollError::Write { .. } => None,
    }
}

/// What to do about a relay that cannot be asked.
pub(super) fn of_asking(error: &AskError) -> &'static str {
    match error {
        AskError::NoRelay { source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            "run this as the relay's user or as root"
        }
        AskError::NoRelay { .. } | AskError::Refused(_) => {
            "start one, or name its state folder with --state-dir"
        }
        AskError::Silent { .. } | AskError::NoAnswer { .. } => {
            "look at its log, and restart it if it stays like this"
        }
    }
}
