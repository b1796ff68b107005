//! What the relay has of the machine, and how much there is: descriptors and memory.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use crate::admin::{Condition, Part};

/// Share of a limit, in percent, from which a part is degraded.
const DEGRADED: u64 = 90;

/// Share of a limit, in percent, from which a part has failed.
const FAILED: u64 = 97;

/// What the first version of control groups shows where there is no limit, at least: the
/// largest number of pages in an i64.
const NO_LIMIT: u64 = i64::MAX as u64 & !0xffff;

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
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let (mounts, groups) = (read("/proc/self/mountinfo"), read("/proc/self/cgroup"));
        let machine = kilobytes("/proc/meminfo", "MemTotal:");
        Self {
            descriptors: Share { used, limit },
            memory: Share {
                used: kilobytes("/proc/self/status", "VmRSS:").unwrap_or_default(),
                limit: group_limit(&mounts, &groups).or(machine).unwrap_or(u64::MAX),
            },
        }
    }

    pub(super) fn descriptors(&self) -> Part {
        let Share { used, limit } = self.descriptors;
        let remedy = "raise LimitNOFILE= (ulimit -n) and restart the relay, or add a relay";
        self.descriptors.part(format!("{used} of {limit}"), remedy)
    }

    pub(super) fn memory(&self) -> Part {
        let mebibytes = |bytes: u64| bytes >> 20;
        let Share { used, limit } = self.memory;
        let remedy = "raise the limit of its control group, lower --max-peers or --outbox-bytes, or \
                      add a relay";
        let reason = format!("{} MiB of {} MiB", mebibytes(used), mebibytes(limit));
        self.memory.part(reason, remedy)
    }
}

impl Share {
    fn part(self, reason: String, remedy: &str) -> Part {
        let beyond = |percent: u64| self.used > self.limit / 100 * percent;
        let condition = if beyond(FAILED) {
            Condition::Failed
        } else if beyond(DEGRADED) {
            Condition::Degraded
        } else {
            Condition::Ok
        };
        Part::judged(condition, reason, remedy)
    }
}

/// A number of kB of a file of the kernel's, in bytes.
fn kilobytes(path: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// The smallest limit of the groups that the process is in (/proc/self/cgroup) and of those
/// around them, in both versions of control groups, wherever those are mounted
/// (/proc/self/mountinfo); `None` where none of them has one.
fn group_limit(mounts: &str, groups: &str) -> Option<u64> {
    let limits = mounts.lines().filter_map(Hierarchy::of).filter_map(|hierarchy| {
        let group = groups.lines().find_map(|line| hierarchy.group(line))?;
        hierarchy.limit(&group)
    });
    limits.min()
}

/// A mount that shows limits of memory.
struct Hierarchy<'a> {
    is_second_version: bool,
    /// Which of its groups is at the mount point.
    root: &'a str,
    point: &'a str,
}

impl<'a> Hierarchy<'a> {
    /// The one of a line of mountinfo (proc_pid_mountinfo(5)).
    fn of(line: &'a str) -> Option<Self> {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut kind = kind.split(' ');
        let is_second_version = match kind.next()? {
            "cgroup2" => true,
            "cgroup" if kind.nth(1)?.split(',').any(|option| option == "memory") => false,
            _ => return None,
        };
        Some(Self { is_second_version, root, point })
    }

    /// The group of the process here, below the mount point, if a line of /proc/self/cgroup
    /// has it.
    fn group(&self, line: &str) -> Option<String> {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, group) = (fields.next()?, fields.next()?, fields.next()?);
        let is_here = if self.is_second_version {
            number == "0" && controllers.is_empty()
        } else {
            controllers.split(',').any(|controller| controller == "memory")
        };
        // In a container the mount may begin at its own group, and the name at the machine's.
        let below = group.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(group);
        is_here.then(|| below.trim_start_matches('/').to_owned())
    }

    fn limit(&self, group: &str) -> Option<u64> {
        let file = if self.is_second_version { "memory.max" } else { "memory.limit_in_bytes" };
        let limit = |group: &Path| {
            let text = fs::read_to_string(Path::new(self.point).join(group).join(file)).ok()?;
            text.trim().parse::<u64>().ok().filter(|limit| *limit < NO_LIMIT)
        };
        Path::new(group).ancestors().filter_map(limit).min()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

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
            assert_eq!(share.part(String::new(), "").condition, condition, "{used}");
        }
        let unlimited = Share { used: 1 << 40, limit: u64::MAX };
        assert_eq!(unlimited.part(String::new(), "").condition, Condition::Ok);
    }

    /// A folder of groups, and the line of mountinfo that has it.
    fn mounted(kind: &str, root: &str, groups: &[(&str, &str, &str)]) -> (TempDir, String) {
        let point = tempfile::tempdir().unwrap();
        for (group, file, text) in groups {
            fs::create_dir_all(point.path().join(group)).unwrap();
            fs::write(point.path().join(group).join(file), text).unwrap();
        }
        let at = point.path().display();
        let line = format!("31 24 0:27 {root} {at} rw,nosuid - {kind}\n");
        (point, line)
    }

    #[test]
    fn smallest_limit_around_a_process_counts() {
        let file = "memory.max";
        let groups = [("a/b", file, "max\n"), ("a", file, "5000\n"), ("c", file, "4000\n")];
        let (_point, mounts) = mounted("cgroup2 cgroup2 rw", "/", &groups);
        assert_eq!(group_limit(&mounts, "0::/a/b\n"), Some(5_000));
        assert_eq!(group_limit(&mounts, "3:cpu:/x\n0::/c\n"), Some(4_000));
        assert_eq!(group_limit(&mounts, "0::/\n"), None);
        assert_eq!(group_limit(&mounts, ""), None);
        assert_eq!(group_limit("", "0::/a\n"), None);
    }

    #[test]
    fn limit_of_the_first_version_of_control_groups_was_invisible() {
        let (file, none) = ("memory.limit_in_bytes", "9223372036854771712\n");
        let groups = [("", file, none), ("a/b", file, "7000\n"), ("a", file, "6000\n")];
        let (_first, first) = mounted("cgroup cgroup rw,memory", "/", &groups);
        let names = "9:cpu,cpuacct:/x\n4:memory:/a/b\n0::/a/b\n";
        assert_eq!(group_limit(&first, names), Some(6_000));
        assert_eq!(group_limit(&first, "4:memory:/\n"), None, "no limit");

        // Both at once: the smaller counts.
        let (_second, second) =
            mounted("cgroup2 cgroup2 rw", "/", &[("a/b", "memory.max", "5000\n")]);
        assert_eq!(group_limit(&format!("{first}{second}"), names), Some(5_000));

        // A container sees its own group at the mount point.
        let (_own, own) = mounted("cgroup cgroup rw,memory", "/docker/1", &[("", file, "8000\n")]);
        assert_eq!(group_limit(&own, "4:memory:/docker/1\n"), Some(8_000));
        let (_other, other) = mounted("cgroup cgroup rw,cpu", "/", &groups);
        assert_eq!(group_limit(&other, names), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_descriptors_and_memory() {
        let Machine { descriptors, memory } = Machine::look();
        assert!((1..descriptors.limit).contains(&descriptors.used), "{descriptors:?}");
        assert!((1 << 20..memory.limit).contains(&memory.used), "{memory:?}");
    }
}
