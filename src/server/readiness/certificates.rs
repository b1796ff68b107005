//! Whether the certificates that listeners read from files are good, and for how long. Those that
//! ACME brings are a part of their own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::admin::Part;
use crate::control::rfc3339;
use crate::net::tls::End;
use crate::server::certificates::OfFiles;

/// A certificate ends soon where it has less time than this, in seconds: what renews those of 90
/// days does so 30 days before their end, and has had half of that.
const SOON: u64 = 14 * 24 * 60 * 60;

/// One for a shorter time ends soon in the last part of so many.
const SHARE: u64 = 4;

/// What to do about one that ends.
const RENEW: &str =
    "renew its files, which are read within 2 s; look at what should have done that";

/// How the certificates of all listeners are: the worst that there is to say.
pub(super) fn part(listeners: &[OfFiles], now: SystemTime) -> Part {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let parts = listeners.iter().map(|listener| of_listener(listener, now));
    parts
        .reduce(|worst, part| if part.condition > worst.condition { part } else { worst })
        .unwrap_or_else(|| Part::ok("none from files"))
}

fn of_listener(OfFiles { listener, ends, trouble }: &OfFiles, now: u64) -> Part {
    let (past, good): (Vec<&End>, Vec<&End>) = ends.iter().partition(|end| end.at <= now);
    let next = good.iter().min_by_key(|end| end.at);
    let told = |end: &End| format!("{} of listener {listener}", end.name);
    match (past.first(), next, trouble) {
        (Some(past), None, _) => {
            let reason = format!("{} has expired at {}", told(past), shown(past.at));
            Part::failed(reason, RENEW)
        }
        (_, _, Some(trouble)) => {
            let reason = format!("listener {listener} shows what it had before: {trouble}");
            let remedy = "correct the files, which are read again once they change; \
                          `beacon-relay doctor` checks them";
            Part::degraded(reason, remedy)
        }
        (Some(past), Some(_), None) => {
            let reason = format!("{} has expired at {}", told(past), shown(past.at));
            Part::degraded(reason, RENEW)
        }
        (None, Some(next), None) => {
            let until = format!("{} ends at {}", told(next), shown(next.at));
            let is_soon = next.at - now < SOON.min(next.at.saturating_sub(next.since) / SHARE);
            if is_soon { Part::degraded(until, RENEW) } else { Part::ok(until) }
        }
        (None, None, None) => Part::ok(format!("unknown ends, {listener}")),
    }
}

fn shown(unix: u64) -> String {
    UNIX_EPOCH.checked_add(Duration::from_secs(unix)).map(rfc3339).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::Condition;

    const DAY: u64 = 24 * 60 * 60;

    /// The part of a listener whose certificates began 76 days ago and end after so many days.
    fn ending_in(days: &[i64], trouble: Option<&str>) -> (Condition, String) {
        let now = 1_000 * DAY;
        let end = |days: &i64| End {
            name: "relay.test".to_owned(),
            since: now - 76 * DAY,
            at: now.saturating_add_signed(days * DAY.cast_signed()),
        };
        let ends = days.iter().map(end).collect();
        let trouble = trouble.map(str::to_owned);
        let listener = OfFiles { listener: "wss".to_owned(), ends, trouble };
        let Part { condition, reason, .. } =
            part(&[listener], UNIX_EPOCH + Duration::from_secs(now));
        (condition, reason)
    }

    #[test]
    fn certificate_near_its_end_degrades_and_one_past_it_fails() {
        for (days, condition) in [
            (&[15_i64] as &[_], Condition::Ok),
            (&[13], Condition::Degraded),
            (&[90, 13], Condition::Degraded),
            (&[90, -1], Condition::Degraded),
            (&[-1], Condition::Failed),
        ] {
            assert_eq!(ending_in(days, None).0, condition, "{days:?}");
        }
        assert!(ending_in(&[13], None).1.contains("relay.test of listener wss ends at 1972-"));
    }

    #[test]
    fn short_lived_certificate_does_not_degrade_while_it_is_young() {
        let now = 1_000 * DAY;
        let of = |since: u64, at: u64| {
            let ends = vec![End { name: "a".to_owned(), since, at }];
            let listener = OfFiles { listener: "wss".to_owned(), ends, trouble: None };
            part(&[listener], UNIX_EPOCH + Duration::from_secs(now)).condition
        };
        assert_eq!(of(now - 3_600, now + DAY - 3_600), Condition::Ok);
        assert_eq!(of(now + 3_600 - DAY, now + 3_600), Condition::Degraded);
    }

    #[test]
    fn files_that_cannot_be_read_degrade_although_the_old_certificate_is_good() {
        let (condition, reason) = ending_in(&[60], Some("key.pem: no key"));
        assert_eq!(condition, Condition::Degraded);
        assert!(reason.ends_with("key.pem: no key"), "{reason}");
        assert_eq!(part(&[], SystemTime::now()).condition, Condition::Ok);
    }
}
