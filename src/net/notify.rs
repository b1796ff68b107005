//! Words to the service manager, as sd_notify(3) has them: ready, reloading, stopping, alive.

use std::env;
use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};

/// The service manager that waits for words of this process.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Socket,
    address: SockAddr,
    /// The time within which it wants to hear that we are alive; `None` where it does not.
    pub watchdog: Option<Duration>,
}

impl ServiceManager {
    /// The one that the environment names; `None` where nobody waits.
    ///
    /// # Errors
    /// An address that is none, or no descriptor for a socket.
    pub fn of_this_process() -> io::Result<Option<Self>> {
        let variable = |name| env::var(name).ok();
        let Some(name) = variable("NOTIFY_SOCKET") else { return Ok(None) };
        // An at sign stands for the zero of a name that is no file.
        let name = name.strip_prefix('@').map_or_else(|| name.clone(), |name| format!("\0{name}"));
        let address = SockAddr::unix(name)?;
        let watchdog = watchdog(
            variable("WATCHDOG_PID").as_deref(),
            variable("WATCHDOG_USEC").as_deref(),
            std::process::id(),
        );
        Ok(Some(Self { socket: socket()?, address, watchdog }))
    }

    /// Everything is in place; `status` is for people.
    pub fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The start goes on for `time` more, for the reason that people are shown.
    pub fn starting(&self, status: &str, time: Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}\nSTATUS={status}", time.as_micros()));
    }

    /// What people are shown.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// A reload begins; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// The end begins, and takes `time` at most.
    pub fn stopping(&self, time: Duration) {
        let microseconds = time.as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={microseconds}\nSTATUS=Draining"));
    }

    /// The process does what it is there for.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, words: &str) {
        if let Err(error) = self.socket.send_to(words.as_bytes(), &self.address) {
            tracing::debug!(%error, "the service manager does not listen");
        }
    }
}

fn socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    // One that does not listen must not stop us.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The watchdog's time, where it is meant for the process `id`.
fn watchdog(whose: Option<&str>, microseconds: Option<&str>, id: u32) -> Option<Duration> {
    let is_ours = whose.is_none_or(|whose| whose.parse() == Ok(id));
    let time = microseconds?.parse().ok().map(Duration::from_micros);
    time.filter(|time| is_ours && !time.is_zero())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn watchdog_is_that_of_this_process() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(None, Some("1000000"), 7), second);
        assert_eq!(watchdog(Some("7"), Some("1000000"), 7), second);
        assert_eq!(watchdog(Some("8"), Some("1000000"), 7), None);
        for microseconds in [None, Some("0"), Some("x")] {
            assert_eq!(watchdog(None, microseconds, 7), None);
        }
    }

    #[test]
    fn words_reach_who_waits_and_stop_nobody_when_he_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let waiting = UnixDatagram::bind(&path).unwrap();
        let (socket, address) = (socket().unwrap(), SockAddr::unix(&path).unwrap());
        let manager = ServiceManager { socket, address, watchdog: None };
        let heard = || {
            let mut buffer = [0; 256];
            let length = waiting.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        manager.ready("2 peers");
        assert_eq!(heard(), "READY=1\nSTATUS=2 peers");
        manager.reloading();
        let reloading = heard();
        let microseconds = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(microseconds.parse::<u64>().unwrap() > 0);
        manager.stopping(Duration::from_secs(5));
        assert!(heard().starts_with("STOPPING=1\nEXTEND_TIMEOUT_USEC=5000000\n"));
        drop(waiting);
        manager.alive();
    }
}
