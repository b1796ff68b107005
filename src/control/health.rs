//! Whether operators can act, and whether that is written down.

use parking_lot::Mutex;
use prometheus::proto::MetricFamily;

use crate::metrics::{Counter, family};

/// What is wrong with the control socket and the audit log, for `/readyz`.
#[derive(Debug, Default)]
pub struct Health {
    socket: Mutex<Option<String>>,
    audit: Mutex<Option<String>>,
    made_again: Counter,
}

impl Health {
    /// Why nobody can connect to the control socket, where nobody can.
    #[must_use]
    pub fn socket(&self) -> Option<String> {
        self.socket.lock().clone()
    }

    /// Why the audit log cannot be written, where it cannot.
    #[must_use]
    pub fn audit(&self) -> Option<String> {
        self.audit.lock().clone()
    }

    /// Notes how the socket is; what was wrong before.
    pub(super) fn set_socket(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut self.socket.lock(), trouble)
    }

    /// Notes how the log is; what was wrong before.
    pub(super) fn set_audit(&self, trouble: Option<String>) -> Option<String> {
        std::mem::replace(&mut self.audit.lock(), trouble)
    }

    pub(super) fn socket_was_made_again(&self) {
        self.made_again.increment();
    }

    /// Appends the families of the control socket to a scrape.
    pub fn families(&self, families: &mut Vec<MetricFamily>) {
        families.extend([
            family::gauge_value(
                "pilot_beacon_control_socket_up",
                "1 while the control socket is there.",
                f64::from(u8::from(self.socket().is_none())),
            ),
            family::counter(
                "pilot_beacon_control_socket_made_again_total",
                "Times that the control socket was made again because its file had gone.",
                &self.made_again,
            ),
        ]);
    }
}
