//! The settings of the keyop door: its listener, how long records are kept, and which peers may
//! publish and subscribe what.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::certificate::{PairOf, of_files};
use super::doors::KEYOP;
use super::flag_binds::KEYOP_BIND;
use super::keyop_hubs::KeyopHub;
use super::table::settings;
use super::value::{Kind, Value, split};
use super::{
    ClientTrust, Config, DAY, Error, FlagListener, HubName, Invalid, Layers, ListenerTable, MOMENT,
    TlsPair, WssBind,
};
use crate::wire::certificate::Certificate;

/// Fewest bytes that the longest record may have.
const LEAST_RECORD: usize = 1_024;

/// Most bytes that the longest record may have: relays of a cluster pass it on in one message.
pub const MOST_RECORD: usize = 8_388_608;

const HOUR: Duration = Duration::from_secs(60 * 60);

const TEN_YEARS: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

/// Most records of a channel, and most bytes: 1 billion, 1 TB.
const MOST_RECORDS: u64 = 1_000_000_000;
const MOST_BYTES: u64 = 1_000_000_000_000;

settings! {
    /// What the door's settings say, each for itself.
    #[derive(Debug)]
    pub(super) struct KeyopFlags {
        "keyop" {
            /// For peers of keyop-messenger, over TLS; then --wss-bind has no listener unless set
            keyop_bind: Option<WssBind> ["ADDRESS"];
            /// Certificate of --keyop-bind, with its chain, as PEM
            keyop_cert: Option<PathBuf> ["FILE"];
            /// Private key of --keyop-cert, as PEM
            keyop_key: Option<PathBuf> ["FILE"];
            /// Certificate authorities, as PEM, that sign the certificates of peers
            keyop_client_ca: Option<PathBuf> ["FILE"];
            /// Revocation lists of these authorities, as PEM: one of each
            keyop_client_crl: Option<PathBuf> ["FILE"];
            /// Name of this hub in routes [default: the common name of its certificate]
            keyop_name: Option<HubName> ["NAME"];
            /// Peers that may come in, and their channels; without one, each with a certificate
            keyop_peers as "keyop_peer": Vec<KeyopPeer> ["TABLES"; live];
            /// Other hubs that this relay is a client of
            keyop_hubs as "keyop_hub": Vec<KeyopHub> ["TABLES"];
            /// Longest record, in bytes
            keyop_max_record: usize ["BYTES"; live] or "4194304" in LEAST_RECORD..=MOST_RECORD;
            /// Time for a peer to acknowledge a batch; then it is delivered again
            keyop_ack_timeout: Duration ["TIME"; live] or "30s" in MOMENT..=DAY;
            /// Deliveries of a batch; then a record that is not acknowledged becomes a dead letter
            keyop_ack_attempts: u16 ["N"; live] or "16" in 1..=10_000;
            /// Records older than this are removed, also for peers that have not received them
            keyop_retention: Duration ["TIME"; live] or "7d" in HOUR..=TEN_YEARS;
            /// Most bytes of one channel; beyond them its oldest records are removed
            keyop_channel_bytes: u64 ["BYTES"; live] or "1073741824" in 1_048_576..=MOST_BYTES;
            /// Most records of one channel; beyond them its oldest are removed
            keyop_channel_records: u64 ["N"; live] or "10000000" in 1..=MOST_RECORDS;
            /// Dead letters older than this are removed
            keyop_dead_letter_retention: Duration ["TIME"; live] or "7d" in HOUR..=TEN_YEARS;
            /// Cursors of a peer that has been offline for this long are removed
            keyop_cursor_expiry: Duration ["TIME"; live] or "7d" in HOUR..=TEN_YEARS;
            /// File of audit events, as lines of JSON that tools of keyop-messenger read
            keyop_audit_file: Option<PathBuf> ["FILE"];
        }
    }
}

/// What the keyop door is told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keyop {
    /// Its name in routes, where somebody has said one.
    pub name: Option<HubName>,
    /// Who may come in; everybody with a certificate where there is none.
    pub peers: Vec<KeyopPeer>,
    /// Other hubs that this relay is a client of.
    pub hubs: Vec<KeyopHub>,
    /// Longest record, in bytes.
    pub max_record: usize,
    /// Time for the acknowledgement of a batch.
    pub ack_timeout: Duration,
    /// Times that a batch comes.
    pub ack_attempts: u16,
    /// Longest time that a record waits.
    pub retention: Duration,
    /// Most bytes of a channel.
    pub channel_bytes: u64,
    /// Most records of a channel.
    pub channel_records: u64,
    /// Longest time that dead letters are kept.
    pub dead_letter_retention: Duration,
    /// Cursors of a peer that has been offline for this long are removed.
    pub cursor_expiry: Duration,
    /// The file of audit events, where there is one.
    pub audit_file: Option<PathBuf>,
    /// The listener of `keyop_bind`, where there is one.
    pub listener: Option<FlagListener>,
}

/// A peer that may come in, and what it may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyopPeer {
    /// The common name of its certificate.
    pub name: String,
    /// The channels that it may subscribe; all where there is none.
    pub subscribe: BTreeSet<String>,
    /// The channels that it may publish to; all where there is none.
    pub publish: BTreeSet<String>,
}

/// How peers are written.
const HOW: &str = "no peer; write [[keyop.peer]] with name = \"COMMON NAME\", and subscribe and \
                   publish = [\"CHANNEL\"] where it may not do all";

impl Value for Vec<KeyopPeer> {
    const KIND: Kind = Kind::Tables;

    fn read(items: &[String]) -> Result<Self, Invalid> {
        let mut peers = Self::new();
        for item in items.iter().filter(|item| !item.is_empty()) {
            let peer = peer(item)?;
            if peers.iter().any(|known| known.name == peer.name) {
                return Err(format!("{} stands there twice; once is enough", peer.name).into());
            }
            peers.push(peer);
        }
        Ok(peers)
    }
}

fn peer(item: &str) -> Result<KeyopPeer, Invalid> {
    let (mut name, mut subscribe, mut publish) = (None, BTreeSet::new(), BTreeSet::new());
    let channels = |list: &str| {
        let items = [list.to_owned()];
        split(&items).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    for line in item.lines() {
        match line.split_once('=') {
            Some(("name", text)) => {
                name = Some(<HubName as super::value::Text>::parse(text)?.as_str().to_owned())
            }
            Some(("subscribe", list)) => subscribe = channels(list),
            Some(("publish", list)) => publish = channels(list),
            _ => return Err(HOW.into()),
        }
    }
    Ok(KeyopPeer { name: name.ok_or(HOW)?, subscribe, publish })
}

impl Keyop {
    /// Reads the door's settings, and the files that they name.
    pub(super) fn read(layers: &Layers) -> Result<Option<Self>, Error> {
        let flags = KeyopFlags::read(layers)?;
        let is_named = |table: &Layers| {
            let doors: Result<Vec<&super::DoorKind>, Error> = table.read("doors");
            doors.is_ok_and(|doors| doors.contains(&&KEYOP))
        };
        let Some(bind) = flags.keyop_bind else {
            let idle = [
                ("keyop_cert", flags.keyop_cert.is_some()),
                ("keyop_key", flags.keyop_key.is_some()),
                ("keyop_client_ca", flags.keyop_client_ca.is_some()),
                ("keyop_client_crl", flags.keyop_client_crl.is_some()),
            ];
            if let Some((key, _)) = idle.into_iter().find(|(_, is_set)| *is_set) {
                return Err(layers.refuse(key, "needs --keyop-bind as well"));
            }
            let is_there = layers.listeners().iter().any(is_named);
            return is_there.then(|| Self::of(layers, None)).transpose();
        };
        let tls = of_files(&PairOf::KEYOP_BIND, layers)?;
        let trust = ClientTrust::of(
            layers,
            ("keyop_client_ca", &flags.keyop_client_ca),
            ("keyop_client_crl", &flags.keyop_client_crl),
        )?;
        if tls.is_empty() {
            return Err(layers.refuse("keyop_bind", "needs --keyop-cert and --keyop-key as well"));
        }
        if trust.is_none() {
            return Err(layers.refuse("keyop_bind", "needs --keyop-client-ca as well"));
        }
        let listener = FlagListener::read(&KEYOP_BIND, bind, (tls, Vec::new()), layers)?;
        Self::of(layers, Some(FlagListener { client_trust: trust, ..listener })).map(Some)
    }

    fn of(layers: &Layers, listener: Option<FlagListener>) -> Result<Self, Error> {
        let flags = KeyopFlags::read(layers)?;
        Ok(Self {
            name: flags.keyop_name,
            peers: flags.keyop_peers,
            hubs: flags.keyop_hubs,
            max_record: flags.keyop_max_record,
            ack_timeout: flags.keyop_ack_timeout,
            ack_attempts: flags.keyop_ack_attempts,
            retention: flags.keyop_retention,
            channel_bytes: flags.keyop_channel_bytes,
            channel_records: flags.keyop_channel_records,
            dead_letter_retention: flags.keyop_dead_letter_retention,
            cursor_expiry: flags.keyop_cursor_expiry,
            audit_file: flags.keyop_audit_file,
            listener,
        })
    }
}

impl Config {
    /// Takes over what a running relay can, where both have the door.
    pub(super) fn take_keyop(&mut self, new: &Self) {
        let (Some(ours), Some(new)) = (&mut self.keyop, &new.keyop) else { return };
        if let (Some(listener), Some(new)) = (&mut ours.listener, &new.listener) {
            listener.take_live(new);
        }
        let (name, audit_file) = (ours.name.clone(), ours.audit_file.clone());
        let (listener, hubs) = (ours.listener.clone(), ours.hubs.clone());
        *ours = Keyop { name, audit_file, listener, hubs, ..new.clone() };
    }

    /// The name of this relay in routes: what somebody has said, else the common name of the
    /// certificate that it shows to keyop peers. Blocks.
    ///
    /// # Errors
    /// The certificate has none.
    pub fn keyop_hub_name(&self) -> Result<String, String> {
        let said = self.keyop.as_ref().and_then(|keyop| keyop.name.as_ref());
        if let Some(name) = said {
            return Ok(name.as_str().to_owned());
        }
        common_name(self.keyop_pair().ok_or("no listener has the door")?)
    }

    /// The certificate that the door shows first, with its key.
    pub(super) fn keyop_pair(&self) -> Option<&TlsPair> {
        let of_flag = self.keyop_flag_listener().and_then(|listener| listener.tls.first());
        of_flag.or_else(|| self.keyop_table()?.tls.first())
    }

    /// The authorities that the certificates of the door's peers are of.
    pub(super) fn keyop_authorities(&self) -> Option<&Path> {
        let of_flag =
            self.keyop_flag_listener().and_then(|listener| listener.client_trust.as_ref());
        let of_table = || self.keyop_table()?.client_trust.as_ref();
        of_flag.or_else(of_table).map(|trust| trust.ca.as_path())
    }

    fn keyop_flag_listener(&self) -> Option<&FlagListener> {
        self.keyop.as_ref()?.listener.as_ref()
    }

    fn keyop_table(&self) -> Option<&ListenerTable> {
        self.listeners.iter().find(|table| table.doors.contains(&&KEYOP))
    }

    /// What does not go together with the door, and why.
    pub(super) fn keyop_contradiction(&self) -> Option<(&'static str, String)> {
        self.keyop.as_ref()?;
        if let Err(reason) = self.keyop_hub_name() {
            let way_out = "write the name that other hubs know this one by";
            return Some(("keyop_name", format!("{reason}; {way_out}")));
        }
        if let Some(reason) = self.keyop_hub_without_files() {
            return Some(("keyop_hub", reason));
        }
        if self.cluster.is_some() && self.bus_nats.is_none() {
            let reason = "a relay of a cluster keeps records in NATS, or peers at another relay would \
                          not get them: add --bus-nats, or run the door on a relay of its own, \
                          without --cluster-bind and --cluster-nats";
            return Some(("keyop_bind", reason.to_owned()));
        }
        None
    }
}

fn common_name(pair: &TlsPair) -> Result<String, String> {
    let of = |reason: &dyn std::fmt::Display| format!("{}: {reason}", pair.cert.display());
    let loaded = pair.load().map_err(|error| error.to_string())?;
    let certificate = loaded.cert.first().ok_or_else(|| of(&"no certificate"))?;
    let read = Certificate::parse(certificate).and_then(|read| read.common_name());
    read.map(str::to_owned).map_err(|error| of(&error))
}
