//! One call a datagram, with what the standard library offers: for other systems, and as
//! the reference that the tests compare with.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use super::super::calls::{self, Call};

use super::{BATCH, Datagram, Datagrams, Received, Run, SLOT, SendError, canonical, for_family};

/// A socket without batches; replies leave from the kernel's choice of address.
#[derive(Debug)]
pub struct PortableSocket {
    socket: UdpSocket,
    address: SocketAddr,
}

impl PortableSocket {
    /// Takes over a socket of [`super::open`].
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(socket: socket2::Socket) -> io::Result<Self> {
        let socket = UdpSocket::from(socket);
        let address = socket.local_addr()?;
        Ok(Self { socket, address })
    }
}

impl Datagrams for PortableSocket {
    fn receive(&self, received: &mut Received) -> io::Result<()> {
        received.datagrams.clear();
        let Some(slot) = received.buffer.get_mut(..SLOT) else { return Ok(()) };
        calls::count(Call::Receive);
        match self.socket.recv_from(slot) {
            Ok((length, from)) => {
                debug_assert!(received.datagrams.len() < BATCH);
                let from = canonical(from);
                received.datagrams.push(Datagram { from, to: None, start: 0, length });
                Ok(())
            }
            Err(error) if super::passes(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn send(&self, runs: &[Run<'_>], sent: &mut dyn FnMut(usize, usize, Result<(), SendError>)) {
        for (index, run) in runs.iter().enumerate() {
            let to = for_family(run.to, self.address);
            let mut send = |packet: &[u8]| {
                calls::count(Call::Send);
                let result = self.socket.send_to(packet, to).map(|_| ());
                sent(index, 1, result.map_err(|error| SendError::from(&error)));
            };
            if run.bytes.is_empty() {
                send(&[]);
            }
            run.bytes.chunks(run.segment.max(1)).for_each(&mut send);
        }
    }

    fn address(&self) -> SocketAddr {
        self.address
    }
}
