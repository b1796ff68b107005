//! What must hold over plain connections and over the relay's own TLS alike: tests that are
//! run over both.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use beacon_relay::net::tls::{Trust, client_config};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsConnector;

use crate::deploy::nginx::write_certificates;
use crate::harness::{Node, Relay};

/// Makes two tests of each function, which is given an [`Over`].
macro_rules! over_plain_and_tls {
    ($($name:ident),+ $(,)?) => {
        mod over_plain {
            $(#[test]
            fn $name() {
                super::$name($crate::over::Over::Plain);
            })+
        }
        mod over_tls {
            $(#[test]
            fn $name() {
                super::$name($crate::over::Over::Tls);
            })+
        }
    };
}
pub(crate) use over_plain_and_tls;

/// What the relay's peers speak WebSocket over.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Over {
    Plain,
    Tls,
}

impl Over {
    /// A relay that knows these nodes, with further arguments. Whoever connects to its `wss`
    /// reaches it over this.
    pub(crate) fn relay(self, nodes: &[&Node], arguments: &[&str]) -> Relay {
        self.relay_by(Command::new(env!("CARGO_BIN_EXE_beacon-relay")), nodes, arguments)
    }

    /// Such a relay by this command, which becomes the relay with the arguments added.
    pub(crate) fn relay_by(self, command: Command, nodes: &[&Node], arguments: &[&str]) -> Relay {
        match self {
            Self::Plain => Relay::with_nodes_by(command, nodes, arguments),
            Self::Tls => {
                let folder = tempfile::tempdir().unwrap();
                write_certificates(folder.path(), &["127.0.0.1".to_owned()], 90);
                let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
                let [cert, key] = [&cert, &key].map(|path| path.to_str().unwrap());
                let tls = ["--wss-tls-cert", cert, "--wss-tls-key", key];
                let mut relay = Relay::with_nodes_by(command, nodes, &[&tls, arguments].concat());
                let tunnel = Tunnel::start(relay.wss, folder);
                relay.go_through(tunnel.address, tunnel);
                relay
            }
        }
    }
}

/// Carries what comes over plain connections to a relay over TLS, each over one of its own,
/// and the end of one side to the other.
pub(crate) struct Tunnel {
    pub(crate) address: SocketAddr,
    /// The relay watches its certificate there.
    _folder: TempDir,
    runtime: Option<Runtime>,
}

impl Tunnel {
    pub(crate) fn start(to: SocketAddr, folder: TempDir) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(Self::accept(listener, to, Self::connector(folder.path())));
        Self { address, _folder: folder, runtime: Some(runtime) }
    }

    fn connector(folder: &Path) -> TlsConnector {
        let config = client_config(&Trust::CaFile(folder.join("ca.pem"))).unwrap();
        TlsConnector::from(Arc::clone(&config))
    }

    async fn accept(listener: TcpListener, to: SocketAddr, connector: TlsConnector) {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let connector = connector.clone();
            tokio::spawn(async move {
                // A relay that is full or gone refuses; the near side then hears of an end.
                let Ok(far) = TcpStream::connect(to).await else { return };
                near.set_nodelay(true).unwrap();
                far.set_nodelay(true).unwrap();
                let name = ServerName::from(to.ip());
                let Ok(mut far) = connector.connect(name, far).await else { return };
                let _ended = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
