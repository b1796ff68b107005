//! The tasks that the relay cannot do without: each has a name, and is watched.

use std::future::pending;

use tokio::task::{AbortHandle, JoinSet};
use tracing::error;

/// Tasks of which none ends before the shutdown, unless by a failure of ours.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<()>,
    /// As many as there are tasks: they are spawned at the start only.
    names: Vec<(AbortHandle, &'static str)>,
    has_failed: bool,
}

impl Tasks {
    /// Starts a task that runs until the shutdown.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let handle = self.set.spawn(task);
        self.names.push((handle, name));
    }

    /// Waits until one has ended, and says again that it has.
    pub(super) async fn failed(&mut self) {
        if self.has_failed {
            return;
        }
        let (id, reason) = match self.set.join_next_with_id().await {
            Some(Ok((id, ()))) => (id, None),
            Some(Err(error)) => (error.id(), Some(error.to_string())),
            None => return pending().await,
        };
        self.has_failed = true;
        let name = self.names.iter().find(|(handle, _)| handle.id() == id).map(|(_, name)| *name);
        error!(part = name, reason, "a task of the relay has stopped unexpectedly");
    }

    /// Ends them all.
    pub(super) async fn shutdown(&mut self) {
        self.set.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::Server;
    use crate::config::{Config, Flags, Layers, Surroundings};

    /// All of them: a new one belongs here, so that somebody has thought of its end.
    const NAMES: [&str; 23] = [
        "control socket",
        "audit log",
        "audit of guesses",
        "operators' port",
        "configuration file",
        "directory",
        "sweep",
        "certificates",
        "acme",
        "grants",
        "gossip",
        "gossip sources",
        "own addresses",
        "beacon list",
        "withdrawn keys",
        "recheck of keys",
        "withdrawals",
        "changes for the cluster",
        "lag",
        "machine",
        "canary",
        "canary over UDP",
        "service manager",
    ];

    async fn server() -> (Server, tempfile::TempDir) {
        use std::os::unix::fs::PermissionsExt as _;

        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "a secret that only a test may have").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut flags = Flags::state_dir(Some(folder.path().display().to_string()));
        for key in ["wss_bind", "udp_bind", "admin_bind", "cluster_bind"] {
            flags.add(key, "127.0.0.1:0".to_owned());
        }
        flags.add("cluster_secret_file", secret.display().to_string());
        flags.add("registry", "127.0.0.1:1".to_owned());
        let layers = Layers::collect(flags, &Surroundings::of_this_process()).unwrap();
        (Server::start(Config::new(&layers).unwrap()).await.unwrap(), folder)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn relay_has_failed_when_any_of_its_tasks_has_ended() {
        for (number, expected) in NAMES.into_iter().enumerate() {
            let (mut server, _folder) = server().await;
            let names: Vec<_> = server.tasks.names.iter().map(|(_, name)| *name).collect();
            assert_eq!(names, NAMES);
            if number == 0 {
                let unharmed = timeout(Duration::from_millis(50), server.failed()).await;
                assert!(unharmed.is_err(), "it fails by itself");
            }
            server.tasks.names[number].0.abort();
            // A supervisor may look again.
            for _ in 0..2 {
                let failed = timeout(Duration::from_secs(20), server.failed()).await;
                failed.unwrap_or_else(|_| panic!("it goes on without its {expected}"));
            }
        }
    }
}
