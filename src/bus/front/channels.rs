//! The channels to other relays, as the front and what leads here hear of them.

use std::sync::Arc;
use std::time::Instant;

use super::Front;
use crate::cluster::{Channel, ChannelOwner};
use crate::proto::front::LinkId;

impl ChannelOwner for Front {
    fn channel_up(&self, channel: &Arc<Channel>) {
        let link = LinkId(channel.number);
        self.links.add(link, Arc::clone(channel));
        self.state.lock().front.link_up(link);
        let lead = self.lead.read().clone();
        if let Some(lead) = lead {
            lead.link_up(link);
        }
    }

    fn channel_down(&self, channel: &Channel) {
        let link = LinkId(channel.number);
        self.links.remove(link);
        self.with(|front, now, actions| front.link_down(link, now, actions));
        let lead = self.lead.read().clone();
        if let Some(lead) = lead {
            lead.link_down(link);
        }
    }

    fn channel_heard(&self, channel: &Channel, message: &[u8], now: Instant) -> bool {
        self.hear(LinkId(channel.number), message, now)
    }
}
