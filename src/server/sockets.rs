//! All addresses of a relay, bound before anything runs.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tracing::info;

use super::acme::Acme;
use super::bind::{self, Patience, Ports};
use super::certificates::Keeper;
use super::cluster::Joining;
use super::{Sockets, StartError};
use crate::config::{self, Config};
use crate::metrics::Traffic;
use crate::net::listener::Listener;
use crate::net::notify::ServiceManager;
use crate::net::quic::Port;
use crate::net::tls::Acceptor;
use crate::net::udp::Datagrams;
use crate::udp;

/// All that is bound.
pub(super) struct Bound {
    pub(super) public: PublicSockets,
    pub(super) operators: OperatorSockets,
    /// What carries the cluster, where the relay is part of one.
    pub(super) joining: Option<Joining>,
}

/// What peers come in by.
pub(super) struct PublicSockets {
    /// All at one address.
    pub(super) udp: Vec<Arc<dyn Datagrams>>,
    pub(super) udp_origin: udp::Sockets,
    /// Where STUN is answered.
    pub(super) stun: Vec<Arc<dyn Datagrams>>,
    pub(super) listeners: Vec<PublicListener>,
    pub(super) certificates: Arc<Keeper>,
    /// Whether the listener of `wss_bind` is there whatever the configuration says.
    pub(super) has_wss_socket: bool,
}

/// A listener for streams of peers.
pub(super) struct PublicListener {
    /// What the configuration says of it.
    pub(super) said: config::Listener,
    pub(super) listener: Listener,
    /// The TLS that it speaks itself.
    pub(super) tls: Option<Acceptor>,
    /// Where it is reached by QUIC.
    pub(super) quic: Option<Port>,
}

/// What operators come in by.
pub(super) struct OperatorSockets {
    /// With its address.
    pub(super) admin: (TcpListener, SocketAddr),
    /// Where health is asked for, with its address.
    pub(super) health: Option<(TcpListener, SocketAddr)>,
}

impl Bound {
    /// Takes over what was inherited, and binds the rest, waiting for addresses that are not
    /// there yet as long as the configuration says.
    ///
    /// # Errors
    /// What is in the way.
    pub(super) async fn all(
        config: &Config,
        mut inherited: Sockets,
        manager: Option<&ServiceManager>,
        traffic: &Arc<Traffic>,
    ) -> Result<Self, StartError> {
        let listeners = inherited.settle(config)?;
        let acme = Acme::open(config, &listeners, traffic).await;
        let (keeper, acceptors) = Keeper::open(&listeners, acme).await?;
        let has_wss_socket = inherited.wss.is_some();
        if !inherited.is_empty() {
            info!(
                wss = has_wss_socket,
                admin = inherited.admin.is_some(),
                udp = inherited.udp.len(),
                listeners = Some(inherited.of_tables()).filter(|count| *count > 0),
                "took over sockets: their settings do nothing"
            );
        }
        let udp_origin = match (inherited.udp.is_empty(), config.free_bind) {
            (false, _) => udp::Sockets::HandedOver,
            (true, true) => udp::Sockets::OpenedFreely,
            (true, false) => udp::Sockets::Opened,
        };
        let patience = Patience::new(config.bind_wait, manager);
        let udp = patience.bind(|| bind::udp(&mut inherited.udp, config)).await?;
        let free = config.free_bind.into();
        let mut stun = Vec::new();
        for address in &config.stun_bind {
            stun.push(patience.bind(|| bind::stun(*address, free)).await?);
        }
        let listeners: Vec<_> = listeners.into_iter().zip(acceptors).collect();
        let ports = bind::listeners(&patience, &mut inherited, &listeners, free).await?;
        let admin = patience.bind(|| bind::admin(&mut inherited.admin, config)).await?;
        let health = match config.netbird.as_ref().and_then(|netbird| netbird.health) {
            Some(address) => Some(patience.bind(|| bind::health(address, config)).await?),
            None => None,
        };
        let joining = match &config.cluster {
            Some(cluster) => {
                let open = || Joining::open(cluster, config, traffic);
                Some(patience.bind(open).await?)
            }
            None => None,
        };
        let listeners = listeners.into_iter().zip(ports).map(|((said, tls), ports)| {
            let Ports { listener, quic } = ports;
            PublicListener { said, listener, tls, quic }
        });
        let listeners = listeners.collect();
        let certificates = keeper;
        let public =
            PublicSockets { udp, udp_origin, stun, listeners, certificates, has_wss_socket };
        Ok(Self { public, operators: OperatorSockets { admin, health }, joining })
    }
}
