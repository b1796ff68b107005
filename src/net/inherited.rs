//! Listening sockets that were opened before this process began, as systemd hands them over
//! (sd_listen_fds(3)).
//!
//! They come as numbers, from 3 on, and the environment says how many there are and whom they
//! are for. This file makes owned sockets of the numbers, which needs unsafe code, and looks
//! at what they are; what each is for is not decided here.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_setfd};
use socket2::{Domain, Socket, Type};

/// The number of the first descriptor that is handed over.
const FIRST: RawFd = 3;

/// Most descriptors that are taken; more is a mistake.
const MOST: RawFd = 1_024;

/// Whether somebody has taken them.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// What kind of socket was inherited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// One that listens for TCP.
    Tcp,
    /// One that listens at a name of this machine.
    Unix,
    /// One for UDP.
    Udp,
}

/// A socket that was inherited.
#[derive(Debug)]
pub struct Inherited {
    /// What `FileDescriptorName=` calls it; the name of its unit otherwise.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// The socket, which no child inherits any more.
    pub socket: Socket,
}

/// Why the sockets cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// The environment contradicts itself.
    #[error("{variable} = {value:?}: {reason}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// What it says.
        value: String,
        /// Why that cannot be.
        reason: String,
    },
    /// A descriptor is not what it should be.
    #[error("the inherited descriptor {number}, {name:?}: {reason}")]
    Descriptor {
        /// Its number.
        number: RawFd,
        /// Its name.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Takes the sockets that are meant for this process: the first call gets them, a later one
/// none. To be called before the process opens anything.
///
/// # Errors
/// A descriptor that is no such socket, or an environment that contradicts itself.
pub fn take() -> Result<Vec<Inherited>, InheritError> {
    let announced = announced(|name| std::env::var(name).ok(), std::process::id())?;
    if announced.is_empty() || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    announced.into_iter().map(|(number, name)| adopt(number, name)).collect()
}

/// The numbers that the environment announces to the process `id`, each with its name.
fn announced(
    variable: impl Fn(&str) -> Option<String>,
    id: u32,
) -> Result<Vec<(RawFd, String)>, InheritError> {
    let (Some(whose), Some(count)) = (variable("LISTEN_PID"), variable("LISTEN_FDS")) else {
        return Ok(Vec::new());
    };
    // Those of a parent, who has passed its environment on.
    if whose.parse() != Ok(id) {
        return Ok(Vec::new());
    }
    let refuse = |variable, value: &str, reason: String| {
        Err(InheritError::Variable { variable, value: value.to_owned(), reason })
    };
    let Some(known) = count.parse().ok().filter(|count| (0..=MOST).contains(count)) else {
        return refuse("LISTEN_FDS", &count, format!("not a number from 0 to {MOST}"));
    };
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut each: Vec<_> = names.split(':').map(str::to_owned).collect();
    if names.is_empty() {
        each = vec![String::new(); known.unsigned_abs() as usize];
    }
    if each.len() != known.unsigned_abs() as usize {
        return refuse("LISTEN_FDNAMES", &names, format!("not {known} names"));
    }
    Ok((FIRST..).zip(each).collect())
}

fn adopt(number: RawFd, name: String) -> Result<Inherited, InheritError> {
    match owned(number).and_then(|descriptor| examine(Socket::from(descriptor))) {
        Ok((socket, kind)) => Ok(Inherited { name, kind, socket }),
        Err(error) => Err(InheritError::Descriptor { number, name, reason: error.to_string() }),
    }
}

/// Takes possession of a descriptor that the environment has announced.
fn owned(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD takes any number, and only says whether it is open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and LISTEN_PID says that it was opened for this process to own. Nobody
    // else here does: `take` comes before anything is opened, and TAKEN lets one caller in.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn examine(socket: Socket) -> io::Result<(Socket, Kind)> {
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let (kind, domain) = (socket.r#type()?, socket.local_addr()?.domain());
    let is_ip = domain == Domain::IPV4 || domain == Domain::IPV6;
    let kind = if kind == Type::DGRAM && is_ip {
        Kind::Udp
    } else if kind != Type::STREAM {
        return Err(io::Error::other("neither a stream nor a UDP socket"));
    } else if !socket.is_listener()? {
        return Err(io::Error::other("it does not listen: leave Accept=yes out"));
    } else if is_ip {
        Kind::Tcp
    } else if domain == Domain::UNIX {
        Kind::Unix
    } else {
        return Err(io::Error::other("neither TCP nor a Unix socket"));
    };
    Ok((socket, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(variables: &[(&str, &str)]) -> Result<Vec<(RawFd, String)>, InheritError> {
        let value = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, v)| *v);
        announced(|name| value(name).map(str::to_owned), 7)
    }

    #[test]
    fn descriptors_are_those_that_are_announced_to_this_process() {
        let (pid, fds) = (("LISTEN_PID", "7"), ("LISTEN_FDS", "2"));
        assert_eq!(names(&[]).unwrap(), []);
        assert_eq!(names(&[fds]).unwrap(), []);
        assert_eq!(names(&[("LISTEN_PID", "8"), fds]).unwrap(), []);
        let unnamed = [(3, String::new()), (4, String::new())];
        assert_eq!(names(&[pid, fds]).unwrap(), unnamed);
        let named = names(&[pid, fds, ("LISTEN_FDNAMES", "wss:udp")]).unwrap();
        assert_eq!(named, [(3, "wss".to_owned()), (4, "udp".to_owned())]);
    }

    #[test]
    fn environment_that_contradicts_itself_is_refused() {
        let pid = ("LISTEN_PID", "7");
        for (fds, names_of) in [("x", ""), ("-1", ""), ("9999", ""), ("2", "one"), ("1", "a:b")] {
            let error = names(&[pid, ("LISTEN_FDS", fds), ("LISTEN_FDNAMES", names_of)]);
            assert!(error.unwrap_err().to_string().starts_with("LISTEN_FD"), "{fds} {names_of}");
        }
    }

    #[test]
    fn sockets_are_told_apart_and_what_is_none_of_them_is_refused() {
        let listening = |domain| {
            let socket = Socket::new(domain, Type::STREAM, None).unwrap();
            if domain == Domain::UNIX {
                let name = format!("\0beacon-relay-test-{}", std::process::id());
                socket.bind(&socket2::SockAddr::unix(name).unwrap()).unwrap();
            }
            socket.listen(1).unwrap();
            socket
        };
        let udp = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        for (socket, expected) in [
            (listening(Domain::IPV4), Kind::Tcp),
            (listening(Domain::UNIX), Kind::Unix),
            (udp, Kind::Udp),
        ] {
            fcntl_setfd(&socket, FdFlags::empty()).unwrap();
            let (socket, kind) = examine(socket).unwrap();
            assert_eq!(kind, expected);
            assert!(rustix::io::fcntl_getfd(&socket).unwrap().contains(FdFlags::CLOEXEC));
        }
        for (socket, reason) in [
            (Socket::new(Domain::IPV4, Type::STREAM, None).unwrap(), "Accept=yes"),
            (Socket::new(Domain::UNIX, Type::DGRAM, None).unwrap(), "neither a stream"),
            (Socket::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap())), "socket"),
        ] {
            let error = examine(socket).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
        assert!(owned(1_000_000).is_err());
    }
}
