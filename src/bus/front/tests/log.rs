//! A log that relays of one process share: an embedded store, and a number that says which of them
//! may commit.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::bus::front::Log;
use crate::bus::{Bus, Durable, Parts, Settings, StartError};
use crate::cluster::testing::relay_id;
use crate::proto::bus::{Digest, Found, MailboxId, Millis, Reading, Recovered, Seq};
use crate::store::{
    AuditEntry, Commit, DeadLetter, Embedded, Handover, Leadership, Most, Outage, Space, Store,
    StoreError,
};

/// What all relays share.
pub(super) struct Shared {
    inner: Embedded,
    /// The epoch that may commit. Held by each commit.
    epoch: Mutex<u64>,
    _folder: TempDir,
}

/// The log, as one relay has it.
pub(super) struct Relay {
    shared: Arc<Shared>,
    leadership: watch::Sender<Leadership>,
    pub(super) outage: Mutex<Option<Outage>>,
}

impl Shared {
    pub(super) fn new() -> Arc<Self> {
        let folder = tempfile::tempdir().unwrap();
        let inner = Embedded::open(&folder.path().join("bus"), Handover::Process).unwrap();
        Arc::new(Self { inner, epoch: Mutex::new(0), _folder: folder })
    }

    pub(super) fn relay(self: &Arc<Self>) -> Arc<Relay> {
        let leadership = watch::Sender::new(Leadership::Nobody);
        Arc::new(Relay { shared: Arc::clone(self), leadership, outage: Mutex::default() })
    }

    /// Another epoch begins: whoever leads cannot commit any more, and does not know.
    pub(super) fn begin(&self) -> u64 {
        let mut epoch = self.epoch.lock();
        *epoch += 1;
        *epoch
    }
}

impl Relay {
    /// The relay hears that it leads, or which one does.
    pub(super) fn hears(&self, epoch: u64, leader: usize, own: usize) {
        let relay = relay_id(u8::try_from(leader).unwrap());
        self.leadership.send_replace(if leader == own {
            Leadership::Here { epoch }
        } else {
            Leadership::There { epoch, relay }
        });
    }
}

impl Log for Relay {
    fn may_serve(&self) -> bool {
        self.outage.lock().is_none()
    }

    fn outage(&self) -> Option<Outage> {
        self.outage.lock().clone()
    }

    fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.subscribe()
    }

    fn start(&self, epoch: u64) -> Result<Arc<Bus>, StartError> {
        let store = Arc::new(Tenure { shared: Arc::clone(&self.shared), epoch });
        let settings = Settings { durable: Durable::Never, ..Settings::default() };
        let key = SigningKey::from_bytes(&[7; 32]);
        Bus::start(Parts { store, settings, key, checkpoint_file: None })
    }
}

/// The store of an epoch.
pub(super) struct Tenure {
    pub(super) shared: Arc<Shared>,
    pub(super) epoch: u64,
}

impl Store for Tenure {
    fn recover(&self) -> Result<Recovered, StoreError> {
        self.shared.inner.recover()
    }

    fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        let epoch = self.shared.epoch.lock();
        if *epoch == self.epoch {
            self.shared.inner.commit(commit)
        } else {
            Err(StoreError::Fenced)
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn read(&self, mailbox: MailboxId, from: Seq, most: Most) -> Result<Reading, StoreError> {
        self.shared.inner.read(mailbox, from, most)
    }

    fn find(&self, mailbox: MailboxId, key: Digest) -> Result<Option<Found>, StoreError> {
        self.shared.inner.find(mailbox, key)
    }

    fn dead_letters(&self, mailbox: MailboxId, most: Most) -> Result<Vec<DeadLetter>, StoreError> {
        self.shared.inner.dead_letters(mailbox, most)
    }

    fn drop_dead_letters(&self, _: Millis) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn trim_dead_letters(&self, _: Most) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn audit(&self, from: u64, most: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.shared.inner.audit(from, most)
    }

    fn last_audit(&self) -> Result<Option<AuditEntry>, StoreError> {
        self.shared.inner.last_audit()
    }

    fn audit_bytes(&self) -> Result<u64, StoreError> {
        self.shared.inner.audit_bytes()
    }

    fn cut_audit(&self, _: u64, _: &[u8]) -> Result<(), StoreError> {
        Err(StoreError::Fenced)
    }

    fn audit_head(&self) -> Result<Option<Box<[u8]>>, StoreError> {
        self.shared.inner.audit_head()
    }

    fn space(&self) -> Result<Space, StoreError> {
        self.shared.inner.space()
    }
}
