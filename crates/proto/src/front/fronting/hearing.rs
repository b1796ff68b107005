//! What a front hears over its links, from the relay that leads.

use std::time::Instant;

use super::super::LinkId;
use super::super::action::Action;
use super::super::session::State;
use super::Front;
use beacon_wire::front::{Invalid, Message, Outcome};

impl Front {
    /// Takes what came over a link, and was so long. What is not from the leader that is listened
    /// to has no effect.
    ///
    /// # Errors
    /// The relay behind the link breaks the rules.
    pub fn heard(
        &mut self,
        link: LinkId,
        message: &Message<'_>,
        length: usize,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), Invalid> {
        if let Message::Leads { epoch } = *message {
            if let Some(known) = self.links.get_mut(&link) {
                *known = epoch;
                self.newest = self.newest.max(epoch);
                self.choose(now, out);
            }
            return Ok(());
        }
        let Some(attached) = self.attached.as_mut().filter(|attached| attached.link == link) else {
            return Ok(());
        };
        if let Message::Took { bytes, .. } = *message {
            attached.credit.returned(bytes);
            self.pump(now, out);
            return Ok(());
        }
        if let Some(bytes) = attached.credit.took(length) {
            attached.say_free(&Message::Took { by_leader: false, bytes }, out);
        }
        self.heard_of_leader(message, now, out)
    }

    fn heard_of_leader(
        &mut self,
        message: &Message<'_>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<(), Invalid> {
        match *message {
            Message::Claimed { request, outcome } => {
                if self.claims.remove(&request).is_some() {
                    out.push(Action::Claimed { request, outcome });
                }
            }
            Message::Answer { request, answer } => {
                let at = self.asked.iter().position(|asked| *asked == request).ok_or(Invalid)?;
                self.asked.swap_remove(at);
                out.push(Action::Answered { request, answer: Some(answer.to_vec()) });
            }
            Message::Opened { session } => {
                if let Some(of) = self.sessions.get_mut(&session) {
                    of.state = State::Open;
                    self.set_ready(session);
                    self.pump(now, out);
                }
            }
            Message::Reopen { session } => {
                if let Some(of) = self.sessions.get_mut(&session) {
                    self.bytes -= of.lose_seat();
                    self.set_ready(session);
                    self.pump(now, out);
                }
            }
            Message::Deliver { session, letters } => {
                if self.sessions.get(&session).is_some_and(|of| !of.is_closing) {
                    let letters = letters.into_iter();
                    let letters = letters.map(|(key, body)| (key.into(), body.into())).collect();
                    out.push(Action::Deliver { session, letters });
                }
            }
            Message::Records { session, batch, is_last, records } => {
                if let Some(of) = self.sessions.get_mut(&session).filter(|of| !of.is_closing)
                    && let Some((batch, records)) =
                        of.batch.take(batch, records.into_iter(), is_last)
                {
                    out.push(Action::Records { session, batch, records });
                }
            }
            Message::Answered { session, outcomes } => {
                for outcome in outcomes {
                    self.answered(session, outcome, out)?;
                }
            }
            Message::Hold { session, is_held } => {
                if let Some(of) = self.sessions.get_mut(&session)
                    && let Some(is_held) = of.judge_hold(false, is_held, &self.limits)
                {
                    out.push(Action::Hold { session, is_held });
                }
            }
            Message::Withdraw { session } => out.push(Action::Withdraw { session }),
            Message::Replace { session } => out.push(Action::Replace { session }),
            Message::Name { is_here: true, realm, name } => {
                if self.names.insert(realm, name).ok_or(Invalid)? {
                    out.push(Action::Name { is_here: true, realm, name: name.into() });
                }
            }
            Message::Name { is_here: false, realm, name } => {
                if self.names.remove(realm, name) {
                    out.push(Action::Name { is_here: false, realm, name: name.into() });
                }
            }
            Message::Leads { .. }
            | Message::Took { .. }
            | Message::Attach { .. }
            | Message::Claim { .. }
            | Message::Open { .. }
            | Message::Close { .. }
            | Message::Submit { .. }
            | Message::Acknowledge { .. }
            | Message::Subscribe { .. }
            | Message::AcknowledgeRecords { .. }
            | Message::Ask { .. } => return Err(Invalid),
        }
        Ok(())
    }

    fn answered(
        &mut self,
        session: u64,
        outcome: Outcome,
        out: &mut Vec<Action>,
    ) -> Result<(), Invalid> {
        // One that is over has been forgotten.
        let Some(of) = self.sessions.get_mut(&session) else { return Ok(()) };
        let submitted = of.sent.pop_front().ok_or(Invalid)?;
        let cost = submitted.cost();
        of.bytes -= cost;
        self.bytes -= cost;
        if submitted.wants_receipt && !of.is_closing {
            // By a leader before, which could not say so any more.
            let was_stored = submitted.is_repeated && outcome == Outcome::Duplicate;
            let outcome = if was_stored { Outcome::Stored } else { outcome };
            out.push(Action::Receipt { session, id: submitted.id, outcome });
        }
        let by_leader = of.is_held_by_leader;
        if let Some(is_held) = of.judge_hold(false, by_leader, &self.limits) {
            out.push(Action::Hold { session, is_held });
        }
        Ok(())
    }
}
