//! How the client stands with the relay, and what an agent and its user are told of it.

use std::time::Duration;

use beacon_client::peerbus::{Refusal, Refused, State};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{error, info, warn};

use crate::plain::reason;

/// The connection to the relay, as it is at any moment.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    name: String,
    state: watch::Receiver<State>,
    refused: watch::Receiver<Option<Refused>>,
}

/// What a call can count on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Reach {
    /// There is a session.
    Connected,
    /// There will be one, or a reason why not, within seconds.
    Connecting,
    /// The relay was not reached, and is tried again.
    Away,
    /// The relay has refused, and is not tried again.
    Refused,
}

impl Standing {
    pub(crate) const fn new(
        name: String,
        state: watch::Receiver<State>,
        refused: watch::Receiver<Option<Refused>>,
    ) -> Self {
        Self { name, state, refused }
    }

    pub(crate) fn reach(&self) -> Reach {
        if self.refused.borrow().is_some() {
            return Reach::Refused;
        }
        match &*self.state.borrow() {
            State::Connecting => Reach::Connecting,
            State::Connected => Reach::Connected,
            State::Waiting { .. } => Reach::Away,
        }
    }

    /// What is in the way, with what to do about it; `None` while connected.
    pub(crate) fn trouble(&self) -> Option<String> {
        if let Some(Refused(refusal)) = *self.refused.borrow() {
            return Some(advice(refusal, &self.name));
        }
        match &*self.state.borrow() {
            State::Connected => None,
            State::Connecting => Some("not connected to the relay yet".to_owned()),
            State::Waiting { cause, .. } => Some(format!(
                "not connected to the relay ({}); it is dialled again automatically",
                reason(&cause.to_string())
            )),
        }
    }

    /// Waits until there is a session or a refusal, for this long at most.
    pub(crate) async fn settle(&self, patience: Duration) {
        let settled = self.refused_or(|state| matches!(state, State::Connected));
        // Whoever asked looks itself.
        let _ = timeout(patience, settled).await;
    }

    /// Waits while the relay may still answer: until a dial has failed or the relay has refused.
    pub(crate) async fn gone(&self) {
        self.refused_or(|state| matches!(state, State::Waiting { .. })).await;
    }

    /// Waits for a state or a refusal.
    async fn refused_or(&self, wanted: impl FnMut(&State) -> bool) {
        let mut state = self.state.clone();
        tokio::select! {
            // A client that has been refused ends, its states first and then with the reason.
            Ok(_) = state.wait_for(wanted) => {}
            () = self.ended() => {}
        }
    }

    /// Waits until the relay has refused or the client has ended.
    async fn ended(&self) {
        // An error: it has ended unrefused.
        let _ = self.refused.clone().wait_for(Option::is_some).await;
    }

    /// Waits until there is a session.
    pub(crate) async fn connected(&mut self) -> bool {
        self.state.wait_for(|state| matches!(state, State::Connected)).await.is_ok()
    }

    /// Waits until there is none.
    pub(crate) async fn disconnected(&mut self) -> bool {
        self.state.wait_for(|state| !matches!(state, State::Connected)).await.is_ok()
    }

    /// Logs how it goes, each cause once.
    pub(crate) async fn log(mut self) {
        let mut last = None;
        loop {
            match &*self.state.borrow_and_update() {
                State::Connecting => {}
                State::Connected => {
                    last = None;
                    info!(name = self.name, "connected to the relay");
                }
                State::Waiting { cause, .. } => {
                    let cause = cause.to_string();
                    if last.as_ref() != Some(&cause) {
                        warn!(reason = cause, "not connected to the relay, dialling again");
                    }
                    last = Some(cause);
                }
            }
            if self.state.changed().await.is_err() {
                break;
            }
        }
        self.ended().await;
        if let Some(Refused(refusal)) = *self.refused.borrow() {
            error!(reason = advice(refusal, &self.name), "the relay has refused");
        }
    }
}

/// What a refusal means, and what to do about it.
fn advice(refusal: Refusal, name: &str) -> String {
    match refusal {
        Refusal::Claimed => format!(
            "the name {name:?} belongs to another token: choose another name (--name or \
             PEERBUS_NAME), or have the operator of the relay run `beacon-relay names release \
             {name}`; then restart this MCP server"
        ),
        Refusal::Token => format!(
            "the relay does not know the token, or it is not for the name {name:?}: check the \
             token (--token-file or PEERBUS_TOKEN), then restart this MCP server"
        ),
        Refusal::NoName | Refusal::LongName => format!(
            "the relay does not take the name {name:?} ({}): choose another name, then restart \
             this MCP server",
            refusal.reason()
        ),
        Refusal::NotText
        | Refusal::Malformed
        | Refusal::NotRegister
        | Refusal::Version
        | Refusal::TooLarge
        | Refusal::TooMany
        | Refusal::NotStored
        | Refusal::NotBound => format!("the relay refused: {}", refusal.reason()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_say_what_to_do() {
        let claimed = advice(Refusal::Claimed, "alice");
        assert!(claimed.contains("names release alice") && claimed.contains("PEERBUS_NAME"));
        assert!(advice(Refusal::Token, "alice").contains("--token-file"));
        assert!(advice(Refusal::NotStored, "alice").contains("peer persistence failed"));
    }

    #[test]
    fn refusal_outweighs_the_state() {
        let (_state, state) = watch::channel(State::Connected);
        let (refuse, refused) = watch::channel(None);
        let standing = Standing::new("alice".to_owned(), state, refused);
        assert_eq!((standing.reach(), standing.trouble()), (Reach::Connected, None));
        refuse.send_replace(Some(Refused(Refusal::Token)));
        assert_eq!(standing.reach(), Reach::Refused);
        assert!(standing.trouble().unwrap().contains("token"));
    }

    #[tokio::test(start_paused = true)]
    async fn client_that_ends_before_its_refusal_is_known_is_waited_for() {
        let (states, state) = watch::channel(State::Connecting);
        let (refuse, refused) = watch::channel(None);
        let standing = Standing::new("alice".to_owned(), state, refused);
        drop(states);
        let refusing = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            refuse.send_replace(Some(Refused(Refusal::Token)));
        };
        let settling = async {
            tokio::join!(standing.settle(Duration::from_secs(5)), standing.gone());
            standing.reach()
        };
        assert_eq!(tokio::join!(refusing, settling).1, Reach::Refused);
    }
}
