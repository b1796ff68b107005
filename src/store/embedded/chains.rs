//! The chains of other relays that a replica has.

use super::codec::{chain_key, read_audit, read_chain_key, read_head};
use super::database::{Database, damaged, failure};
use super::replica::chain_head_row;
use super::{Embedded, key_value};
use crate::ids::{PublicKey, RelayId};
use crate::store::{AuditEntry, ChainPage, StoreError};

/// The first entry of a chain that counts, and what stands before it.
type Head = (u64, Box<[u8]>);

impl Embedded {
    /// The relays whose chains it has beside its own.
    pub(super) fn relays_of_chains(&self) -> Result<Vec<RelayId>, StoreError> {
        let database = self.shared.to_read()?;
        let mut found: Vec<RelayId> = Vec::new();
        loop {
            let next = match found.last() {
                None => database.chains.first_key_value(),
                Some(last) => {
                    let last = chain_key(&last.0.0, u64::MAX);
                    database.chains.range(&last[..]..).next()
                }
            };
            let Some(row) = next else { return Ok(found) };
            let key = row.key().map_err(failure)?;
            let (relay, _) = place_of(&database, &key)?;
            found.push(RelayId(PublicKey(relay)));
        }
    }

    /// Entries of a relay's chain from this number on, at most so many.
    pub(super) fn page_of_chain(
        &self,
        relay: RelayId,
        from: u64,
        most: usize,
    ) -> Result<ChainPage, StoreError> {
        let database = self.shared.to_read()?;
        let relay = relay.0.0;
        let head = head_of(&database, &relay)?;
        let from = from.max(head.as_ref().map_or(0, |(before, _)| *before));
        let of = |number| chain_key(&relay, number);
        let (first, up_to, end) = (of(0), of(from), of(u64::MAX));
        let last = match database.chains.range(&first[..]..=&end[..]).next_back() {
            Some(row) => {
                let (key, value) = key_value(row)?;
                entries_of(&database, &key, &value)?.last().map(|entry| entry.seq)
            }
            None => None,
        };
        let begin = match database.chains.range(&first[..]..=&up_to[..]).next_back() {
            Some(row) => row.key().map_err(failure)?.to_vec(),
            None => up_to.to_vec(),
        };
        let mut entries = Vec::new();
        for row in database.chains.range(&begin[..]..=&end[..]) {
            if entries.len() >= most {
                break;
            }
            let (key, value) = key_value(row)?;
            let read = entries_of(&database, &key, &value)?;
            let of_them = read.into_iter().filter(|entry| entry.seq >= from);
            entries.extend(of_them.take(most - entries.len()));
        }
        Ok(ChainPage { head: head.map(|(_, head)| head), last, entries })
    }
}

fn head_of(database: &Database, relay: &[u8; 32]) -> Result<Option<Head>, StoreError> {
    let row = chain_head_row(relay);
    let Some(value) = database.meta.get(&row).map_err(failure)? else { return Ok(None) };
    read_head(&value).map(Some).map_err(|error| damaged(&database.meta, &row, error))
}

fn place_of(database: &Database, key: &[u8]) -> Result<([u8; 32], u64), StoreError> {
    read_chain_key(key).map_err(|error| damaged(&database.chains, key, error))
}

fn entries_of(
    database: &Database,
    key: &[u8],
    value: &[u8],
) -> Result<Vec<AuditEntry>, StoreError> {
    let (_, first) = place_of(database, key)?;
    read_audit(&first.to_be_bytes(), value).map_err(|error| damaged(&database.chains, key, error))
}
