//! How parts of the relay are that others look after, and the words for it.

use crate::admin::Part;
use crate::bus;
use crate::cluster::{LostMember, MemberStatus, Status};
use crate::relay::Switches;

/// Characters of a relay's id that people tell relays apart by.
const SHORT_ID: usize = 12;

/// Relays that one reason names at most.
const MOST_NAMED: usize = 3;

/// What to do where messages cannot be stored.
const STORE: &str = "`beacon-relay doctor` checks the store: the disk of the state folder, or NATS and \
                     the link to the relay that leads";

/// That a clock of the cluster is off, if one is: relays whose clocks are a minute apart do
/// not believe each other.
pub(super) fn clocks(cluster: &Status) -> Option<Part> {
    let difference = |ahead_ms: Option<i64>| {
        let ahead_ms = ahead_ms.unwrap_or_default();
        let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
        format!("{} s {side}", ahead_ms.unsigned_abs() / 1_000)
    };
    let reason = if cluster.clock_is_off {
        let difference = difference(cluster.clock_ahead_ms);
        format!("this relay's clock is {difference} the other relays'")
    } else {
        let member = cluster.members.iter().find(|member| member.clock_is_off)?;
        let difference = difference(member.clock_ahead_ms);
        format!("the clock of relay {} is {difference} this one's", member.relay)
    };
    Some(Part::degraded(reason, "run NTP on all relays: those a minute apart do not link"))
}

/// Whether the other relays are there; those that are not are named.
pub(super) fn members(Status { members, lost, .. }: &Status) -> Part {
    let short = |relay: &str| relay.get(..SHORT_ID).unwrap_or(relay).to_owned();
    let not_up = members.iter().filter(|member| member.state != "up");
    let not_up = not_up.map(|MemberStatus { relay, address, state, .. }| {
        format!("{} at {address} is {state}", short(relay))
    });
    let missed = lost.iter().map(|LostMember { relay, address, seconds }| {
        format!("{} at {address} is lost, for {seconds} s", short(relay))
    });
    let missing: Vec<_> = not_up.chain(missed).collect();
    let up = members.iter().filter(|member| member.state == "up").count();
    let count = format!("{} other relays, {up} of them up", members.len() + lost.len());
    if members.is_empty() && lost.is_empty() {
        // The first relay of a cluster has to be ready while it is alone.
        let remedy = "start the others with the same secret, and name one by --cluster-join; \
                      TROUBLESHOOTING.md, \"The cluster does not come together\"";
        return Part::degraded(format!("{count}: this one is alone"), remedy);
    }
    if missing.is_empty() {
        return Part::ok(count);
    }
    let named = missing.iter().take(MOST_NAMED).map(String::as_str).collect::<Vec<_>>();
    let remedy = "start it, or look at the way there (--cluster-bind, over UDP); one that was taken out \
                  for good is forgotten after an hour";
    Part::degraded(format!("{count}: {}", named.join(", ")), remedy)
}

/// Whether what the key file says is in force.
pub(super) fn believed(trouble: Option<String>) -> Part {
    trouble.map_or_else(
        || Part::ok("as the key file has them, where there is one"),
        |reason| {
            let remedy = "write a good file, which is read automatically";
            Part::degraded(format!("the keys read before stay: {reason}"), remedy)
        },
    )
}

/// Whether operators have switched something off.
pub(super) fn served(switches: &Switches) -> Part {
    let off = switches.iter().filter(|(_, is_on)| !is_on).map(|(name, _)| name);
    let off: Vec<_> = off.collect();
    if off.is_empty() {
        return Part::ok("all on");
    }
    let remedy = off.iter().map(|name| format!("`beacon-relay switch {name} on`"));
    let remedy = remedy.collect::<Vec<_>>().join(", ");
    Part::degraded(format!("switched off by an operator: {}", off.join(", ")), remedy)
}

/// Whether messages can be kept.
pub(super) fn kept(bus: &bus::Health, broken: Option<String>) -> Part {
    match bus {
        bus::Health::Serving => broken.map_or_else(
            || Part::ok("takes messages"),
            |reason| {
                let reason = format!("its audit log is not what this relay wrote: {reason}");
                let remedy = "copy the state folder, then `beacon-relay audit verify`";
                Part::degraded(reason, remedy)
            },
        ),
        bus::Health::Damaged(reason) => {
            let reason = format!("some of what is stored cannot be read: {reason}");
            let remedy = "look at the disk (dmesg), and restore a backup where the messages matter";
            Part::degraded(reason, remedy)
        }
        bus::Health::Limited(trouble) => Part::degraded(trouble.to_string(), STORE),
        bus::Health::Full => {
            let reason = "the disk is full: new messages wait or are refused, the rest goes on";
            let remedy = "make room on the disk; `beacon-relay queues` shows who has most";
            Part::degraded(reason, remedy)
        }
        bus::Health::Unavailable(trouble) => {
            Part::failed(format!("messages cannot be stored: {trouble}"), STORE)
        }
    }
}

/// How the audit log is, by what is wrong with it.
pub(super) fn written(trouble: Option<String>) -> Part {
    trouble.map_or_else(
        || Part::ok("nothing was lost"),
        |reason| {
            let remedy = "make room on the disk of the state folder, and let the relay's user write \
                          there";
            Part::degraded(format!("cannot be written: {reason}"), remedy)
        },
    )
}

/// How the control socket is, by what is wrong with it.
pub(super) fn reachable(trouble: Option<String>) -> Part {
    trouble.map_or_else(
        || Part::ok("the socket is there"),
        |reason| {
            let remedy =
                "let the relay's user write in the state folder, which no other relay may use";
            Part::degraded(format!("no socket: {reason}"), remedy)
        },
    )
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::admin::Condition;
    use crate::relay::{RELAY, Switch};

    #[test]
    fn relay_whose_messages_cannot_be_stored_is_not_ready_and_says_why() {
        let reason = "no space left".to_owned();
        let trouble = bus::Trouble { reason, since: Instant::now() };
        let unavailable = bus::Health::Unavailable(trouble);
        let of = |health: &bus::Health, broken: Option<&str>| {
            let Part { condition, reason, .. } = kept(health, broken.map(str::to_owned));
            (condition, reason)
        };
        let reason = "messages cannot be stored: no space left, for 0 s".to_owned();
        assert_eq!(of(&unavailable, None), (Condition::Failed, reason));
        assert_eq!(of(&bus::Health::Serving, None).0, Condition::Ok);
        assert_eq!(of(&bus::Health::Full, None).0, Condition::Degraded);
        let trouble = bus::Trouble { reason: "no NATS".to_owned(), since: Instant::now() };
        let limited = of(&bus::Health::Limited(trouble), None);
        assert_eq!(limited, (Condition::Degraded, "no NATS, for 0 s".to_owned()));
        let (condition, reason) = of(&bus::Health::Serving, Some("entry 7"));
        assert_eq!((condition, reason.ends_with("entry 7")), (Condition::Degraded, true));
    }

    fn cluster(members: Vec<MemberStatus>, lost: Vec<LostMember>) -> Status {
        Status { members, lost, ..Status::default() }
    }

    fn member(state: &'static str) -> MemberStatus {
        let (relay, address) = ("0123456789abcdef".to_owned(), "192.0.2.1:9100".to_owned());
        MemberStatus { relay, address, state, ..MemberStatus::default() }
    }

    #[test]
    fn lost_member_of_the_cluster_is_named() {
        let lost = LostMember {
            relay: "fedcba9876543210".to_owned(),
            address: "192.0.2.2:9100".to_owned(),
            seconds: 12,
        };
        let Part { condition, reason, .. } = members(&cluster(vec![member("up")], vec![lost]));
        assert_eq!(condition, Condition::Degraded);
        let expected =
            "2 other relays, 1 of them up: fedcba987654 at 192.0.2.2:9100 is lost, for 12 s";
        assert_eq!(reason, expected);

        let silent = members(&cluster(vec![member("up"), member("silent")], Vec::new()));
        assert!(silent.reason.ends_with("0123456789ab at 192.0.2.1:9100 is silent"), "{silent:?}");
        let whole = members(&cluster(vec![member("up")], Vec::new()));
        assert_eq!(whole.condition, Condition::Ok);
        assert_eq!(members(&cluster(Vec::new(), Vec::new())).condition, Condition::Degraded);
    }

    #[test]
    fn what_an_operator_has_switched_off_degrades() {
        let switch = Switch::new(&RELAY);
        let switches = Switches(vec![switch.clone()]);
        assert_eq!(served(&switches).condition, Condition::Ok);
        switch.set(false);
        let Part { reason, remedy, .. } = served(&switches);
        assert_eq!(reason, "switched off by an operator: relay");
        assert_eq!(remedy.as_deref(), Some("`beacon-relay switch relay on`"));
    }
}
