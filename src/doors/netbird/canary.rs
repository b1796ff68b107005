//! What the relay's own client does at the door: logs in, sends itself a packet, and leaves.

use crate::client::netbird::{Client, Credential, Event, Options, PeerId};
use crate::net::entrance::Duplex;
use crate::session::VisitError;

/// Stands in the URL of a connection that is there already.
const HOST: &str = "rel://canary";

/// Bytes of its packet: enough that no other is taken for it.
const PAYLOAD: usize = 16;

/// Does what a client does with this secret over a connection to the relay.
pub(super) async fn visit(secret: String, stream: Box<dyn Duplex>) -> Result<(), VisitError> {
    let login = |error: &dyn std::fmt::Display| VisitError::Login(error.to_string());
    let session = |error: &dyn std::fmt::Display| VisitError::Session(error.to_string());
    // Nobody can know it: who logs in by it would keep the canary out.
    let mut id = [0; PeerId::LENGTH];
    getrandom::fill(&mut id).map_err(|error| login(&error))?;
    let me = PeerId(id);
    let options = Options::new(HOST, me, Credential::Secret(secret));
    let client = Client::connect_over(stream, &options).await;
    let mut client = client.map_err(|error| login(&error))?;

    let payload = id.first_chunk::<PAYLOAD>().expect("an id is longer");
    client.send_to(me, payload).await.map_err(|error| session(&error))?;
    loop {
        match client.recv().await.map_err(|error| session(&error))? {
            Some(Event::Packet { sender, payload: came })
                if sender == me && came == payload[..] =>
            {
                break;
            }
            Some(_) => {}
            None => return Err(VisitError::Session("it ended without the packet".to_owned())),
        }
    }
    client.close().await.map_err(|error| session(&error))
}
