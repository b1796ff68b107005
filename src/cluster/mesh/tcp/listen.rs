//! Takes lanes that other relays dial: a bounded number at a time is looked at, under a deadline,
//! and what does not belong to a link that is up is refused and counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::connection::{Connection, Failure};
use super::hello::{TAKEN, decode};
use super::{Configs, Lane};
use crate::cluster::Reject;
use crate::cluster::mesh::canonical;
use crate::cluster::mesh::hub::{Counted, HELLO_WITHIN, Hub};
use crate::cluster::mesh::lobby::Lobby;
use crate::net::bind::{FreeBind, bind};
use crate::net::tls::Engine;

/// Connections that the kernel keeps until we look at them.
const BACKLOG: i32 = 128;

/// After an error that a look at the next connection will not mend, such as no descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// The TCP port of the mesh.
#[derive(Debug)]
pub(in crate::cluster::mesh) struct Port {
    listener: TcpListener,
}

impl Port {
    /// Listens at the address of the mesh.
    ///
    /// # Errors
    /// What the kernel says.
    pub(in crate::cluster::mesh) fn bind(address: SocketAddr, free: FreeBind) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // A relay that is started again must not wait for the connections of the last one.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        bind(&socket, address, free)?;
        socket.listen(BACKLOG)?;
        Ok(Self { listener: TcpListener::from_std(socket.into())? })
    }
}

/// Takes lanes, for ever.
pub(in crate::cluster::mesh) async fn serve(
    port: Port,
    configs: Configs,
    hub: Arc<Hub>,
    lobby: Arc<Lobby>,
) {
    let mut greeting = JoinSet::new();
    loop {
        tokio::select! {
            accepted = port.listener.accept() => match accepted {
                Ok((stream, remote)) => {
                    greet(&mut greeting, stream, canonical(remote), &configs, &hub, &lobby);
                }
                Err(error) => {
                    tracing::debug!(%error, "no lane was accepted");
                    sleep(PAUSE).await;
                }
            },
            Some(greeted) = greeting.join_next() => count_panic(greeted, &hub),
        }
    }
}

fn greet(
    greeting: &mut JoinSet<()>,
    stream: TcpStream,
    remote: SocketAddr,
    configs: &Configs,
    hub: &Arc<Hub>,
    lobby: &Arc<Lobby>,
) {
    let (guest, gave_way) = lobby.enter(remote.ip());
    if gave_way {
        hub.warn(Reject::TooMany, remote, &"too many strangers over TCP");
    }
    let (hub, configs) = (Arc::clone(hub), configs.clone());
    greeting.spawn(async move {
        let _greeting = Counted::new(&hub.cluster.counters().greeting);
        let welcome = timeout(HELLO_WITHIN, welcome(stream, configs, &hub));
        let Some(welcomed) = guest.leaving.run_until_cancelled(welcome).await else { return };
        let failure = match welcomed {
            Ok(Ok(())) => return,
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Timeout,
        };
        match failure.reject() {
            Some(reject) => hub.warn(reject, remote, &failure),
            None => tracing::debug!(remote_addr = %remote, error = %failure, "no lane"),
        }
    });
}

/// From a connection to a lane of the link that it belongs to.
async fn welcome(stream: TcpStream, configs: Configs, hub: &Hub) -> Result<(), Failure> {
    let mut connection = Connection::handshake(stream, Engine::server(configs.server)?).await?;
    let hello = connection.hear().await?;
    let relay = connection.proven().ok_or(Failure::OtherRelay)?;
    let lanes = hub.links.lanes_of(relay).ok_or(Failure::NoLink)?;
    let way = decode(&hello, &lanes.secret)?;
    connection.say(&[TAKEN]).await?;
    tracing::debug!(%relay, ?way, "a lane over TCP is up");
    lanes.attach(way, Lane { connection, over: None });
    Ok(())
}

fn count_panic(greeted: Result<(), JoinError>, hub: &Hub) {
    if let Err(error) = greeted {
        hub.cluster.counters().panics.increment();
        tracing::error!(%error, "a connection without a hello has failed");
    }
}
