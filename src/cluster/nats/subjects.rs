//! The subjects of a cluster: to whom, and from whom.
//!
//! The sender is the last token of each, so that the server's permissions bind a relay to
//! its own id (deploy/nats/cluster.conf).

use async_nats::Subject;

use crate::ids::RelayId;

/// Our side of the cluster's subjects.
#[derive(Debug)]
pub(super) struct Subjects {
    cluster: String,
    me: RelayId,
}

impl Subjects {
    /// Those of the cluster of this name, a legal token of a subject.
    pub(super) const fn new(cluster: String, me: RelayId) -> Self {
        Self { cluster, me }
    }

    /// To every relay, from us.
    pub(super) fn alive(&self) -> Subject {
        format!("{}.alive.from.{}", self.cluster, self.me).into()
    }

    /// To every relay, from anybody.
    pub(super) fn all_alive(&self) -> String {
        format!("{}.alive.from.*", self.cluster)
    }

    /// To one relay, from us.
    pub(super) fn to(&self, relay: RelayId) -> Subject {
        format!("{}.to.{relay}.from.{}", self.cluster, self.me).into()
    }

    /// To us, from anybody.
    pub(super) fn all_to_us(&self) -> String {
        format!("{}.to.{}.from.*", self.cluster, self.me)
    }

    /// Who sent what came on a subject that we subscribed to.
    ///
    /// An id counts in one spelling only: permissions are for one, and whoever may use
    /// another one would pass for the same relay.
    pub(super) fn sender(subject: &str) -> Option<RelayId> {
        let (_, token) = subject.rsplit_once('.')?;
        let relay: RelayId = token.parse().ok()?;
        (relay.to_string() == token).then_some(relay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PublicKey;

    #[test]
    fn sender_is_the_last_token_in_its_one_spelling() {
        let id = RelayId(PublicKey([0xab; 32]));
        let hex = id.to_string();
        let sender = |token: &str| Subjects::sender(&format!("fleet.alive.from.{token}"));

        assert_eq!(sender(&hex), Some(id));
        let base64 = id.0.to_string();
        for other in [hex.to_uppercase(), base64, hex[1..].to_owned(), String::new()] {
            assert_eq!(sender(&other), None, "{other}");
        }
        assert_eq!(Subjects::sender(&hex), None, "no subject of ours");
    }

    #[test]
    fn subjects_are_those_of_the_template() {
        let [a, b] = [1, 2].map(|byte| RelayId(PublicKey([byte; 32])));
        let subjects = Subjects::new("fleet".to_owned(), a);

        assert_eq!(subjects.to(b).as_str(), format!("fleet.to.{b}.from.{a}"));
        assert_eq!(subjects.all_to_us(), format!("fleet.to.{a}.from.*"));
        assert_eq!(subjects.alive().as_str(), format!("fleet.alive.from.{a}"));
        assert_eq!(subjects.all_alive(), "fleet.alive.from.*");
    }
}
