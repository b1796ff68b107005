//! The real nats-server, on a free port of 127.0.0.1.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use super::wait_until;
use crate::harness::Program;
use crate::ports::free_address;

/// A running nats-server.
pub(crate) struct NatsServer {
    program: Option<Program>,
    address: SocketAddr,
    start: Box<dyn Fn() -> Command + Send + Sync>,
}

impl NatsServer {
    pub(crate) fn start() -> Self {
        let address = free_address();
        Self::start_at(address, || Command::new("nats-server"))
    }

    /// Starts one at an address, by the command that becomes it.
    pub(crate) fn start_at(
        address: SocketAddr,
        start: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Self {
        let mut server = Self { program: None, address, start: Box::new(start) };
        server.start_again();
        server
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.program = None;
    }

    /// Starts it on the same port.
    pub(crate) fn start_again(&mut self) {
        let mut command = (self.start)();
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        command.args(["--addr", &ip, "--port", &port]);
        self.program = Some(Program::start(&mut command));
        wait_until("nats-server listens", || TcpStream::connect(self.address).is_ok());
    }

    /// Sends it a signal by its own id, as `kill -NAME` does.
    pub(crate) fn signal(&self, name: &str) {
        self.program.as_ref().expect("it runs").signal(name);
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }
}
