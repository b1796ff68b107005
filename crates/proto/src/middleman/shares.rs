//! Subscriptions, grants and responders.

use super::{
    Broker, Grant, Handled, Output, PRIVATE, Refusal, Responder, Role, Share, Slot, Subscriber,
    TopicKey,
};

impl<P> Broker<P> {
    pub(super) fn subscribe(
        &mut self,
        slot: Slot,
        target: &str,
        out: &mut Output,
    ) -> Result<Handled, Refusal> {
        self.check_topic(target)?;
        let connection = self.connections.there(slot);
        if let Some(guid) = target.strip_prefix(PRIVATE) {
            // It is subscribed from the beginning.
            let is_own = guid.as_bytes() == connection.guid.text();
            return if is_own { Ok(Handled::Subscribed) } else { Err(Refusal::NotTrusted) };
        }
        let role = connection.role;
        if !self.may(role, target, Grant::Subscribe) {
            return Err(Refusal::NotTrusted);
        }
        if self.share(slot, target).subscription.is_some() {
            return Ok(Handled::Subscribed);
        }
        let is_full = connection.subscriptions >= self.limits.each.subscriptions
            || self.subscriptions >= self.limits.all.subscriptions;
        if is_full {
            return Err(Refusal::TooManySubscriptions);
        }
        let key = self.topics.find_or_add(target);
        let subscribers = &mut self.topics.get_mut(key).subscribers;
        let connection = self.connections.there_mut(slot);
        connection.shares.entry(key).or_default().subscription = Some(subscribers.len());
        connection.subscriptions += 1;
        self.subscriptions += 1;
        subscribers.push(Subscriber { slot, role });
        self.announce(key, out);
        Ok(Handled::Subscribed)
    }

    pub(super) fn grant(
        &mut self,
        slot: Slot,
        target: &str,
        grant: Grant,
        out: &mut Output,
    ) -> Result<Handled, Refusal> {
        self.check_topic(target)?;
        let connection = self.connections.there(slot);
        if connection.role == Role::Client {
            return Err(Refusal::NotTrusted);
        }
        if self.share(slot, target).grants[grant as usize] {
            return Ok(Handled::Granted);
        }
        let is_full =
            connection.grants >= self.limits.each.grants || self.grants >= self.limits.all.grants;
        if is_full {
            return Err(Refusal::TooManyGrants);
        }
        let key = self.topics.find_or_add(target);
        let connection = self.connections.there_mut(slot);
        connection.shares.entry(key).or_default().grants[grant as usize] = true;
        connection.grants += 1;
        self.grants += 1;
        self.topics.get_mut(key).grants[grant as usize] += 1;
        self.announce(key, out);
        Ok(Handled::Granted)
    }

    pub(super) fn respond(
        &mut self,
        slot: Slot,
        target: &str,
        out: &mut Output,
    ) -> Result<Handled, Refusal> {
        self.check_topic(target)?;
        let connection = self.connections.there(slot);
        if connection.role == Role::Client {
            return Err(Refusal::NotTrusted);
        }
        let is_full = connection.workers >= self.limits.each.workers
            || self.workers >= self.limits.all.workers;
        if is_full {
            return Err(Refusal::TooManyWorkers);
        }
        let key = self.topics.find_or_add(target);
        let connection = self.connections.there_mut(slot);
        connection.shares.entry(key).or_default().workers += 1;
        connection.workers += 1;
        self.workers += 1;
        let topic = self.topics.get_mut(key);
        match topic.responder_mut(slot) {
            Some(responder) => responder.workers += 1,
            None => topic.responders.push(Responder { slot, workers: 1, outstanding: 0 }),
        }
        self.announce(key, out);
        Ok(Handled::Granted)
    }

    /// Whether who has this role may do this with the topic.
    pub(super) fn may(&self, role: Role, target: &str, grant: Grant) -> bool {
        let is_granted = || {
            let key = self.topics.find(target)?;
            Some(self.topics.get(key).grants(grant))
        };
        role == Role::Service || is_granted().unwrap_or(false)
    }

    pub(super) const fn check_topic(&self, target: &str) -> Result<(), Refusal> {
        if target.len() > self.limits.text_bytes { Err(Refusal::TopicTooLong) } else { Ok(()) }
    }

    fn share(&self, slot: Slot, target: &str) -> Share {
        let share = self.topics.find(target).and_then(|key| {
            let connection = self.connections.there(slot);
            connection.shares.get(&key).copied()
        });
        share.unwrap_or_default()
    }

    /// Takes from a topic what a connection that is gone had of it.
    pub(super) fn give_back(&mut self, gone: Slot, key: TopicKey, share: Share, out: &mut Output) {
        let topic = self.topics.get_mut(key);
        if let Some(index) = share.subscription {
            self.subscriptions -= 1;
            topic.subscribers.swap_remove(index);
            if let Some(moved) = topic.subscribers.get(index) {
                let shares = &mut self.connections.there_mut(moved.slot).shares;
                let share = shares.get_mut(&key).expect("a subscriber has a share");
                share.subscription = Some(index);
            }
        }
        for (count, is_granted) in topic.grants.iter_mut().zip(share.grants) {
            *count -= usize::from(is_granted);
            self.grants -= usize::from(is_granted);
        }
        if share.workers > 0 {
            self.workers -= share.workers;
            topic.responders.retain(|responder| responder.slot != gone);
        }
        self.announce(key, out);
        self.topics.tidy(key);
    }
}
