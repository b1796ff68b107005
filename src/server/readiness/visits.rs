//! The relay's own client at the listeners of a door: it does what the door says that clients do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use super::canary::{Failure, Flight, Landing};
use crate::session::{Door, Server, VisitError};

/// Why a visit went wrong.
#[derive(Debug, thiserror::Error)]
pub(super) enum VisitsError {
    /// There is no way to the listener.
    #[error("cannot connect to the listener: {0}")]
    Connect(#[source] std::io::Error),
    /// The door was not what its clients expect.
    #[error(transparent)]
    Visit(#[from] VisitError),
    /// Not done in time.
    #[error("not done within {0:?}")]
    Late(Duration),
}

impl Failure for VisitsError {
    fn landing(&self) -> Landing {
        match self {
            Self::Connect(_) => Landing::Connect,
            Self::Visit(VisitError::Login(_)) => Landing::Login,
            Self::Visit(VisitError::Session(_)) => Landing::Session,
            Self::Late(_) => Landing::Timeout,
        }
    }

    fn is_excused(&self) -> bool {
        false
    }
}

/// Visits to the listeners of a door.
pub(in crate::server) struct Visits {
    door: Arc<dyn Door>,
    server: Arc<Server>,
}

impl Visits {
    pub(in crate::server) fn new(door: Arc<dyn Door>, server: Arc<Server>) -> Self {
        Self { door, server }
    }

    async fn visit(&self, listener: usize) -> Result<Duration, VisitsError> {
        let began = Instant::now();
        let dialling = self.server.dial(listener).map_err(VisitsError::Connect)?;
        let _expected = self.server.expect(listener, dialling.origin().clone());
        let stream = dialling.connect().await.map_err(VisitsError::Connect)?;
        self.door.visit(stream).await?;
        Ok(began.elapsed())
    }
}

impl Flight for Visits {
    type Error = VisitsError;

    /// One listener after the other, each within `limit`; the time that the slowest took.
    async fn fly(&self, limit: Duration) -> Result<Duration, VisitsError> {
        let mut slowest = Duration::ZERO;
        for listener in self.server.listeners_of(self.door.name()) {
            let visit = timeout(limit, self.visit(listener)).await;
            let took = visit.map_err(|_| VisitsError::Late(limit)).flatten()?;
            slowest = slowest.max(took);
        }
        Ok(slowest)
    }
}
