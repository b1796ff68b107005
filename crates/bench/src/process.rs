//! What the system says of a process: CPU time, memory, context switches (proc(5)).

use std::fs;
use std::io;
use std::ops::Add;
use std::time::Duration;

/// The numbers of a process at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// CPU time of all threads, user and system.
    pub cpu: Duration,
    /// Anonymous resident memory, in bytes.
    pub anonymous: u64,
    /// Context switches of all threads, voluntary and not.
    pub switches: u64,
}

impl Usage {
    /// The numbers of the process `id` now.
    ///
    /// # Errors
    /// The process is gone, or is not ours to look at.
    pub fn of(id: u32) -> io::Result<Self> {
        let mut usage = Self { anonymous: kibibytes(id, "RssAnon:")? * 1_024, ..Self::default() };
        for task in fs::read_dir(format!("/proc/{id}/task"))? {
            let path = task?.path();
            // A thread may end between the two; its time is then missing, which is little.
            let Ok(times) = fs::read_to_string(path.join("schedstat")) else { continue };
            // In nanoseconds, where `stat` counts ticks of 10 ms.
            let ns = times.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or_default();
            usage.cpu += Duration::from_nanos(ns);
            let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
            for line in status.lines().filter(|line| line.contains("ctxt_switches")) {
                usage.switches += number(line).unwrap_or_default();
            }
        }
        Ok(usage)
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            anonymous: self.anonymous + other.anonymous,
            switches: self.switches + other.switches,
        }
    }
}

fn kibibytes(id: u32, field: &str) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field));
    line.and_then(number).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn number(line: &str) -> Option<u64> {
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Memory that TCP sockets of the whole machine hold in the kernel, in bytes.
pub(crate) fn kernel_tcp_memory() -> io::Result<u64> {
    /// The kernel counts in pages.
    const PAGE: u64 = 4_096;
    let sockets = fs::read_to_string("/proc/net/sockstat")?;
    let line = sockets.lines().find(|line| line.starts_with("TCP:"));
    let pages = line.and_then(|line| line.split("mem ").nth(1)?.trim().parse::<u64>().ok());
    pages.map(|pages| pages * PAGE).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
