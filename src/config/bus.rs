//! The settings of the bus: how messages are kept, how many, and how long.

use std::path::PathBuf;
use std::time::Duration;

use super::table::settings;
use super::value::BusDurability;

/// Fewest bytes that may wait for a peer: one message of the longest kind finds room.
const LEAST_QUOTA_BYTES: u64 = 2_097_152;

/// Most messages and most bytes that may wait for a peer: 1 billion, 1 TB.
const MOST_QUOTA_MESSAGES: u64 = 1_000_000_000;
const MOST_QUOTA_BYTES: u64 = 1_000_000_000_000;

/// Most messages that a peer may have without an acknowledgement: as many ids as the original's
/// clients remember, so that each of them knows a message that comes again.
const MOST_WINDOW: usize = 4_096;

/// Fewest and most bytes of the audit log: 128 MiB, more than a segment of the longest entries, and
/// 1 TB.
const LEAST_AUDIT_BYTES: u64 = 134_217_728;
const MOST_AUDIT_BYTES: u64 = 1_000_000_000_000;

const HOUR: Duration = Duration::from_secs(60 * 60);

const TEN_YEARS: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

settings! {
    /// What the bus is told, where a door has messages.
    #[derive(Clone, Debug, Eq, PartialEq)]
    pub struct Bus {
        "Bus" {
            /// When a message is safe: always (on disk), interval (on disk within 200 ms) or none
            bus_durability: BusDurability ["WHEN"] or "interval";
            /// Most messages that wait for a peer; more are refused
            bus_quota_messages: u64 ["N"] or "100000" in 1..=MOST_QUOTA_MESSAGES;
            /// Most bytes of messages that wait for a peer, 2 MiB or more
            bus_quota_bytes: u64 ["BYTES"] or "268435456" in LEAST_QUOTA_BYTES..=MOST_QUOTA_BYTES;
            /// Longest time that a message waits for its peer; then it is removed
            bus_retention: Duration ["TIME"; live] or "7d" in HOUR..=TEN_YEARS;
            /// Most messages that a peer has without an acknowledgement
            bus_window: usize ["N"] or "256" in 1..=MOST_WINDOW;
            /// File that each checkpoint of the audit chain is appended to, as well as to the log
            audit_checkpoint_file: Option<PathBuf> ["FILE"];
            /// Longest time that entries of the audit chain are kept
            audit_retention: Duration ["TIME"; live] or "90d" in HOUR..=TEN_YEARS;
            /// Most bytes of the audit chain, 128 MiB or more; then its oldest entries are removed
            audit_max_bytes: u64 ["BYTES"; live] or "1073741824" in LEAST_AUDIT_BYTES..=MOST_AUDIT_BYTES;
        }
    }
}
