//! Lanes that a test moves by hand.

use std::net::SocketAddr;

use tokio::net::TcpStream;

pub(in crate::cluster::mesh) use super::connection::{Connection, Failure, LOST_AFTER};
use super::hello::{TAKEN, encode};
use super::{Configs, LinkSecret, Way};

/// Dials a lane to whoever is there.
pub(in crate::cluster::mesh) async fn dial(
    address: SocketAddr,
    configs: &Configs,
    way: Way,
    secret: &LinkSecret,
) -> Result<Connection, Failure> {
    let stream = TcpStream::connect(address).await?;
    let tls = configs.client()?;
    let mut connection = Connection::handshake(stream, tls).await?;
    connection.say(&encode(way, secret)).await?;
    assert_eq!(connection.hear().await?, [TAKEN]);
    Ok(connection)
}

/// What comes on a lane, until it ends or `enough` has come.
pub(in crate::cluster::mesh) async fn read_bytes(lane: &mut Connection, enough: usize) -> Vec<u8> {
    let mut bytes = std::mem::take(&mut lane.plain);
    while bytes.len() < enough && lane.receive().await.is_ok() {
        bytes.append(&mut lane.plain);
    }
    bytes
}
