//! What the relay has of the machine, and how much there is: descriptors and memory.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::admin::{Condition, Part};

/// Share of a limit, in percent, from which a part is degraded.
const DEGRADED: u64 = 90;

/// Share of a limit, in percent, from which a part has failed.
const FAILED: u64 = 97;

/// Where the kernel shows the limits of a group of processes.
const GROUPS: &str = "/sys/fs/cgroup";

/// A part of what there is; nothing where the system does not tell.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Share {
    used: u64,
    limit: u64,
}

/// What the relay had of the machine at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Machine {
    descriptors: Share,
    memory: Share,
}

impl Machine {
    /// Looks. Blocks.
    pub(super) fn look() -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        // The folder itself is open while it is read.
        let used = fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() - 1) as u64;
        let group = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let machine = kilobytes("/proc/meminfo", "MemTotal:");
        Self {
            descriptors: Share { used, limit },
            memory: Share {
                used: kilobytes("/proc/self/status", "VmRSS:").unwrap_or_default(),
                limit: group_limit(Path::new(GROUPS), &group).or(machine).unwrap_or(u64::MAX),
            },
        }
    }

    pub(super) fn descriptors(&self) -> Part {
        let Share { used, limit } = self.descriptors;
        self.descriptors.part(format!("{used} of {limit}"))
    }

    pub(super) fn memory(&self) -> Part {
        let mebibytes = |bytes: u64| bytes >> 20;
        let Share { used, limit } = self.memory;
        self.memory.part(format!("{} MiB of {} MiB", mebibytes(used), mebibytes(limit)))
    }
}

impl Share {
    fn part(self, reason: String) -> Part {
        let beyond = |percent: u64| self.used > self.limit / 100 * percent;
        let condition = if beyond(FAILED) {
            Condition::Failed
        } else if beyond(DEGRADED) {
            Condition::Degraded
        } else {
            Condition::Ok
        };
        Part::new(condition, reason)
    }
}

/// A number of kB of a file of the kernel's, in bytes.
fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// The smallest limit of the group that the process is in (its line of /proc/self/cgroup) and
/// of those around it; `None` where none of them has one.
fn group_limit(root: &Path, groups: &str) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let limit = |group: &Path| {
        let text = fs::read_to_string(root.join(group).join("memory.max")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Path::new(group).ancestors().filter_map(limit).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_a_limit_degrades_before_it_fails() {
        for (used, condition) in [
            (0, Condition::Ok),
            (900, Condition::Ok),
            (901, Condition::Degraded),
            (970, Condition::Degraded),
            (971, Condition::Failed),
        ] {
            let share = Share { used, limit: 1_000 };
            assert_eq!(share.part(String::new()).condition, condition, "{used}");
        }
        let unlimited = Share { used: 1 << 40, limit: u64::MAX };
        assert_eq!(unlimited.part(String::new()).condition, Condition::Ok);
    }

    #[test]
    fn smallest_limit_around_a_process_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |group: &str, text: &str| {
            fs::create_dir_all(root.path().join(group)).unwrap();
            fs::write(root.path().join(group).join("memory.max"), text).unwrap();
        };
        write("a/b", "max\n");
        write("a", "5000\n");
        assert_eq!(group_limit(root.path(), "0::/a/b\n"), Some(5_000));
        write("a/b", "4000\n");
        assert_eq!(group_limit(root.path(), "3:cpu:/x\n0::/a/b\n"), Some(4_000));
        assert_eq!(group_limit(root.path(), "0::/\n"), None);
        assert_eq!(group_limit(root.path(), ""), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_descriptors_and_memory() {
        let Machine { descriptors, memory } = Machine::look();
        assert!((1..descriptors.limit).contains(&descriptors.used), "{descriptors:?}");
        assert!((1 << 20..memory.limit).contains(&memory.used), "{memory:?}");
    }
}
