//! Actions on a message bus that another relay leads: it carries them out, and answers.

use std::sync::{Arc, Weak};

use super::actions::Actions;
use super::{Action, Refused};
use crate::bus::Handle;
use crate::bus::front::{Answered, Front};

/// Longest answer that a relay sends to another, in bytes: a channel carries 4 MiB.
const LONGEST: usize = 3 << 20;

/// What an answer begins with.
const DONE: u8 = 0;
const FAILED: u8 = 1;
const UNAVAILABLE: u8 = 2;

impl Actions {
    /// The front of a cluster's bus that another relay leads.
    fn led_elsewhere(&self) -> Option<&Arc<Front>> {
        let queues = self.queues().ok()?;
        match &queues.bus {
            Handle::Cluster(front) if front.leading().is_none() => Some(front),
            Handle::Cluster(_) | Handle::Alone(_) | Handle::Local(_) => None,
        }
    }

    /// Has the relay that leads the message bus carry an action out, where that is another one and
    /// the action is about it.
    pub(super) async fn ask_leader(&self, action: &Action) -> Option<Result<String, Refused>> {
        if !action.is_of_bus() {
            return None;
        }
        let front = Arc::clone(self.led_elsewhere()?);
        let question = serde_json::to_vec(action).ok()?;
        let answer = match front.ask(&question).await {
            Ok(answer) => answer,
            Err(error) => return Some(Err(Refused::Unavailable(error.to_string()))),
        };
        Some(read(&answer))
    }

    /// Has this relay answer what others ask while it leads.
    pub fn answer_relays(self: &Arc<Self>) {
        let Ok(queues) = self.queues() else { return };
        let Handle::Cluster(front) = &queues.bus else { return };
        let actions = Arc::downgrade(self);
        let runtime = tokio::runtime::Handle::current();
        front.answer_by(Box::new(move |question, answered| {
            // No more at a time than places for actions, and each front's questions are bounded.
            runtime.spawn(answer(Weak::clone(&actions), question, answered));
        }));
    }
}

async fn answer(actions: Weak<Actions>, question: Vec<u8>, answered: Answered) {
    let Some(actions) = actions.upgrade() else { return };
    let action = serde_json::from_slice::<Action>(&question).ok();
    let result = match action.filter(Action::is_of_bus) {
        None => Err(Refused::Failed(
            "the relay that leads is of another version; ask there, with its own program"
                .to_owned(),
        )),
        // It would ask on and on.
        Some(_) if actions.led_elsewhere().is_some() => Err(Refused::Unavailable(
            "another relay leads the message bus by now; ask again".to_owned(),
        )),
        Some(action) => actions.run(action, "another relay".to_owned()).await,
    };
    answered(write(result));
}

fn write(result: Result<String, Refused>) -> Vec<u8> {
    let (kind, text) = match result {
        Ok(text) if text.len() > LONGEST => {
            let reason =
                "too long an answer for another relay: ask for less, or the relay that leads";
            (FAILED, reason.to_owned())
        }
        Ok(text) => (DONE, text),
        Err(Refused::Unavailable(reason)) => (UNAVAILABLE, reason),
        Err(refused) => (FAILED, refused.to_string()),
    };
    let mut answer = vec![kind];
    answer.extend_from_slice(text.as_bytes());
    answer
}

fn read(answer: &[u8]) -> Result<String, Refused> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match answer.split_first() {
        Some((&DONE, done)) => Ok(text(done)),
        Some((&FAILED, reason)) => Err(Refused::Failed(text(reason))),
        Some((&UNAVAILABLE, reason)) => Err(Refused::Unavailable(text(reason))),
        Some(_) | None => Err(Refused::Failed(
            "the relay that leads does not answer; ask again, or there".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_back_and_one_that_is_too_long_is_refused() {
        assert_eq!(read(&write(Ok("{}".to_owned()))).unwrap(), "{}");
        for refused in [Refused::Failed("a".into()), Refused::Unavailable("b".into())] {
            let text = refused.to_string();
            assert_eq!(read(&write(Err(refused))).unwrap_err().to_string(), text);
        }
        let long = write(Ok("x".repeat(LONGEST + 1)));
        assert!(long.len() < 200 && matches!(read(&long), Err(Refused::Failed(_))));
        assert!(matches!(read(b""), Err(Refused::Failed(_))));
    }
}
