//! The real nats-server, on a free port of 127.0.0.1.

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use super::wait_until;
use crate::harness::Program;

/// A running nats-server.
pub(crate) struct NatsServer {
    program: Option<Program>,
    port: u16,
}

impl NatsServer {
    pub(crate) fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Self { program: None, port };
        server.start_again();
        server
    }

    /// Ends it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.program = None;
    }

    /// Starts it on the same port.
    pub(crate) fn start_again(&mut self) {
        let mut command = Command::new("nats-server");
        command.args(["--addr", "127.0.0.1", "--port", &self.port.to_string()]);
        self.program = Some(Program::start(&mut command));
        let port = self.port;
        wait_until("nats-server listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}
