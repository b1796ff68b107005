//! How the program ends when it could not do what it was asked, as sysexits(3) has it.

use std::io;

use super::way_out::{completed, of_asking, of_failure};
use crate::config;
use crate::control::client::AskError;
use crate::server::InUse;

/// Every exit code of the program, and what it means: the documents and the manual's pages have
/// this table, and a test compares them.
pub const CODES: [(u8, &str); 8] = [
    (0, "done, or drained; `status`: the relay is ready"),
    (
        1,
        "anything else that failed, and what the relay refuses; `doctor` found something to look at; \
         a second signal has ended the relay at once",
    ),
    (
        2,
        "`doctor`: a peer could not use the URL, or the relay would not start with its settings; `audit`: \
         something cannot be read",
    ),
    (3, "`status`: degraded. Peers are served, and something is worth a look"),
    (4, "`status`: not ready. No peer should be sent to the relay"),
    (64, "the command line or the environment is wrong"),
    (
        69,
        "an address cannot be bound to, which is named: if the machine does not have it yet, the \
          relay waits for it first (`--bind-wait`). Or another relay runs with the state folder, or none \
          answers a command",
    ),
    (
        78,
        "a file or folder that a setting names is wrong, or what the configuration file says; the \
          NATS of `--bus-nats` is there and takes no message that is long enough",
    ),
];

/// Why the program ends; shown as one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Exit {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A setting, or what a file contains, is wrong.
    #[error(transparent)]
    Config(#[from] config::Error),
    /// An address cannot be bound to, most often because another program has it.
    #[error("{setting} = \"{address}\": {error}; {}", way_to_bind(error))]
    Bind {
        /// The setting, as an operator writes it.
        setting: String,
        /// The address.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// Another relay runs with the state folder.
    #[error("--state-dir = {folder:?}: {0}; stop it, or give this one another folder", folder = .0.folder)]
    InUse(InUse),
    /// What `doctor` found, which it has printed.
    #[error("{failed} failed, {warnings} to look at")]
    Findings {
        /// Checks that a peer cannot do without.
        failed: usize,
        /// Checks that found something to look at.
        warnings: usize,
    },
    /// `status`: peers are served, and something is worth a look. It has printed what.
    #[error("the relay is degraded")]
    Degraded,
    /// `status`: no peer should be sent to the relay. It has printed why.
    #[error("the relay is not ready")]
    NotReady,
    /// No relay runs with that state folder.
    #[error("{}; {}", .0, of_asking(.0))]
    NoRelay(AskError),
    /// A relay runs, and does not answer.
    #[error("{}; {}", .0, of_asking(.0))]
    NoAnswer(AskError),
    /// A server that the settings name is not set up for this relay.
    #[error("{0}")]
    Server(String),
    /// The audit log of messages is not what it was.
    #[error("audit chain BROKEN: {0}; keep a copy of the log, then see docs/MESSAGES.md")]
    Broken(String),
    /// The audit log of messages, or its checkpoints, cannot be read.
    #[error("{}", one_line(.0))]
    Unreadable(anyhow::Error),
    /// Anything else.
    #[error("{}", one_line(.0))]
    Failed(#[from] anyhow::Error),
}

impl Exit {
    /// The exit code, one of [`CODES`]: 64 (EX_USAGE), 69 (EX_UNAVAILABLE) and 78 (EX_CONFIG) are
    /// those of sysexits(3).
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 64,
            Self::Config(error) => {
                if error.is_about_a_file() {
                    78
                } else {
                    64
                }
            }
            Self::Server(_) => 78,
            Self::Bind { .. } | Self::InUse(_) | Self::NoRelay(_) | Self::NoAnswer(_) => 69,
            Self::Degraded => 3,
            Self::NotReady => 4,
            Self::Findings { failed: 1.., .. } | Self::Unreadable(_) => 2,
            Self::Findings { .. } | Self::Broken(_) | Self::Failed(_) => 1,
        }
    }

    /// What to say on stderr, a line for each mistake; nothing where what was printed before says
    /// it all, as for a health check.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Degraded | Self::NotReady => Vec::new(),
            Self::Config(error) => error.each().iter().map(ToString::to_string).collect(),
            Self::Usage(_)
            | Self::Bind { .. }
            | Self::InUse(_)
            | Self::Findings { .. }
            | Self::NoRelay(_)
            | Self::NoAnswer(_)
            | Self::Server(_)
            | Self::Broken(_)
            | Self::Unreadable(_)
            | Self::Failed(_) => vec![self.to_string()],
        }
    }
}

/// What to do about an address that cannot be bound to.
fn way_to_bind(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::NotFound {
        "make the folder of the socket, or have systemd make it by RuntimeDirectory="
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "choose a port from 1024 on, or let the relay's user have this one: by a socket of systemd, \
         sysctl net.ipv4.ip_unprivileged_port_start, or CAP_NET_BIND_SERVICE"
    } else {
        "choose another address, or stop who has it"
    }
}

/// The error and its causes, and what to do; nothing of it twice.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    of_failure(error).map_or_else(|| line.clone(), |way_out| completed(&line, way_out))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use anyhow::anyhow;

    use super::*;
    use crate::control::client::PATIENCE;
    use crate::key_file::read_key;
    use crate::store::StoreError;

    #[test]
    fn address_in_use_is_named_and_exits_69() {
        let error = io::ErrorKind::AddrInUse.into();
        let (setting, address) = ("--wss-bind".to_owned(), "127.0.0.1:1".to_owned());
        let exit = Exit::Bind { setting, address, error };
        assert_eq!(exit.code(), 69);
        assert!(
            exit.to_string().starts_with("--wss-bind = \"127.0.0.1:1\": address in use"),
            "{exit}"
        );
    }

    #[test]
    fn relay_that_does_not_answer_exits_69() {
        let silent = AskError::Silent { path: "control.sock".into(), patience: PATIENCE };
        let exit = Exit::NoAnswer(silent);
        assert_eq!(exit.code(), 69);
        assert!(exit.to_string().contains("within 90 s: is it stopped"), "{exit}");
    }

    #[test]
    fn another_user_is_not_told_to_start_a_relay() {
        let of = |kind: io::ErrorKind| {
            let error = AskError::NoRelay { path: "control.sock".into(), source: kind.into() };
            Exit::NoRelay(error).to_string()
        };
        let denied = of(io::ErrorKind::PermissionDenied);
        assert!(denied.ends_with("; run this as the relay's user or as root"), "{denied}");
        assert!(of(io::ErrorKind::NotFound).contains("; start one, or name its state folder"));
    }

    #[test]
    fn each_end_says_what_to_do_or_has_said_it_before() {
        let (path, reason) = (|| PathBuf::from("/state/control.sock"), || "gone".to_owned());
        let exits = [
            Exit::Usage("no such flag; write another".to_owned()),
            Exit::Config(config::Error::Setting {
                place: config::Place::flag("keys"),
                value: "a".to_owned(),
                reason: "no path; write one".to_owned(),
            }),
            Exit::Bind {
                setting: "--wss-bind".to_owned(),
                address: ":1".to_owned(),
                error: io::ErrorKind::AddrInUse.into(),
            },
            Exit::InUse(InUse { folder: path(), process: Some(7) }),
            Exit::Findings { failed: 1, warnings: 0 },
            Exit::Degraded,
            Exit::NotReady,
            Exit::NoRelay(AskError::NoRelay {
                path: path(),
                source: io::ErrorKind::NotFound.into(),
            }),
            Exit::NoAnswer(AskError::Silent { path: path(), patience: PATIENCE }),
            Exit::NoAnswer(AskError::NoAnswer { path: path(), reason: reason() }),
            Exit::Server("max_payload is 1; set it to 2".to_owned()),
            Exit::Broken(reason()),
            Exit::Unreadable(io::Error::from(io::ErrorKind::PermissionDenied).into()),
            Exit::Failed(StoreError::Locked.into()),
        ];
        for exit in exits {
            // What is judged here for each kind; a new one does not compile until it is.
            let has_said_it_before = match &exit {
                Exit::Findings { .. } | Exit::Degraded | Exit::NotReady => true,
                Exit::Usage(_)
                | Exit::Config(_)
                | Exit::Bind { .. }
                | Exit::InUse(_)
                | Exit::NoRelay(_)
                | Exit::NoAnswer(_)
                | Exit::Server(_)
                | Exit::Broken(_)
                | Exit::Unreadable(_)
                | Exit::Failed(_) => false,
            };
            let says_it = exit.to_string().contains("; ");
            assert!(has_said_it_before || says_it, "{exit}");
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        let error = anyhow!("no room").context("cannot write").context("cannot save");
        assert_eq!(Exit::Failed(error).to_string(), "cannot save: cannot write: no room");
        let error = read_key("/nonexistent/node.key".as_ref()).err().unwrap();
        let line = Exit::Failed(error.into()).to_string();
        assert_eq!(line.matches("No such file").count(), 1, "{line}");
    }
}
