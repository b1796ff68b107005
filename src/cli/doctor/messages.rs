//! Where a relay with a message bus keeps messages: does the disk keep them, has it room, and who
//! can read them?

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::jetstream;
use super::report::Report;
use crate::config::Config;
use crate::store::{bus_folder, replica_folder};

/// Free space below which it is worth a look, in bytes.
const ROOM: u64 = 1 << 30;

/// File systems in memory, by their numbers of statfs(2): what is stored there is gone with it.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// Those of other machines: NFS, SMB and CIFS, 9P, FUSE. Locks and syncs are what they make of them.
const REMOTE: [i64; 5] = [0x6969, 0x517b, 0xff53_4d42, 0x0102_1997, 0x6573_5546];

/// Checks the state folder of these settings, where a listener has messages.
pub(super) async fn check(config: &Config, report: &mut Report) {
    if config.peerbus.is_none() {
        return;
    }
    if let Some(nats) = &config.bus_nats {
        jetstream::check(nats, report).await;
        jetstream::check_leader(config, report).await;
        check_owner(&replica_folder(&config.state_dir), report);
        return;
    }
    let folder = bus_folder(&config.state_dir);
    check_disk(&existing(&folder), report);
    check_owner(&folder, report);
}

/// The folder, or the nearest around it that is there already.
fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|folder| folder.exists());
    found.unwrap_or_else(|| Path::new("/")).to_owned()
}

fn check_disk(folder: &Path, report: &mut Report) {
    let name = folder.display();
    let looked = rustix::fs::statfs(folder);
    let (Ok(kind), Ok(space)) = (looked, rustix::fs::statvfs(folder)) else {
        let remedy = "run the doctor as the user of the relay";
        report.warn("messages", format!("cannot look at the disk of {name}"), remedy);
        return;
    };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    if IN_MEMORY.contains(&kind.f_type) {
        let found = format!("{name} is in memory: what waits is gone when the machine restarts");
        report.warn("messages", found, "a --state-dir on a disk");
    } else if REMOTE.contains(&kind.f_type) {
        let found = format!("{name} is of another machine, or in user space");
        report.warn("messages", found, "a --state-dir on a disk of this machine");
    } else if free >= ROOM {
        report.ok("messages", format!("kept at {name}, where {} MB are free", free / 1_000_000));
    }
    if free < ROOM {
        let found = format!("{} MB are free at {name}", free / 1_000_000);
        report.warn("messages", found, "make room: with a full disk, new messages are not taken");
    }
}

/// Whether others than its owner can read what waits.
fn check_owner(folder: &Path, report: &mut Report) {
    let Ok(found) = fs::metadata(folder) else { return };
    if found.permissions().mode() & 0o077 != 0 {
        let found = format!("others can read {}", folder.display());
        report.warn("messages", found, format!("chmod -R go= {}", folder.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_of_a_folder_is_looked_at_before_the_folder_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let deep = bus_folder(&folder.path().join("not/yet"));
        assert_eq!(existing(&deep), folder.path());
        let mut report = Report::default();
        check_disk(&existing(&deep), &mut report);
        assert!(report.to_string().contains("messages"), "{report}");
    }

    #[test]
    fn folder_that_others_can_read_and_one_in_memory_are_worth_a_look() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::default();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        check_owner(folder.path(), &mut report);
        assert!(report.to_string().contains("others can read"), "{report}");

        let memory = Path::new("/dev/shm");
        if rustix::fs::statfs(memory).is_ok_and(|kind| IN_MEMORY.contains(&kind.f_type)) {
            check_disk(memory, &mut report);
            assert!(report.to_string().contains("is in memory"), "{report}");
        }
    }
}
