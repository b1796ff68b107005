//! The last five minutes of what the page's charts show, kept whether or not anybody watches: a
//! page that is just opened draws what led here.
//!
//! Only the families of [`CHARTED`] are kept, and of those only what was above 0 once.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;

/// The time that charts show.
const WINDOW: Duration = Duration::from_secs(300);

/// Between two points while nobody watches. With a watcher there is one for each snapshot, a
/// second.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// Points at most: [`WINDOW`] at one a second, and some for what comes early.
const MOST_POINTS: usize = 320;

/// Samples that are kept at most, in the order in which they rose above 0: 512 in all points
/// are 1.3 MB.
const MOST_SERIES: usize = 512;

/// The families that the page draws, or knows a part of the relay by; a line each, sorted. A
/// histogram is its buckets.
const CHARTED: &str = include_str!("page/charted.txt");

/// The points of the last [`WINDOW`].
#[derive(Debug, Default)]
pub(super) struct History(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Where each sample stands in the points.
    places: HashMap<String, usize>,
    points: VecDeque<Point>,
}

/// The samples at one moment. Those that were 0 until then have no value yet.
#[derive(Debug)]
struct Point {
    uptime_seconds: f64,
    values: Box<[f64]>,
}

/// The points as a page reads them.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Points {
    /// Age of the relay at each point, in seconds, ascending.
    uptime_seconds: Vec<f64>,
    /// By the names of `/metrics`: from which point on a sample had which value. Before the first
    /// it was 0.
    samples: BTreeMap<String, Vec<(usize, f64)>>,
}

/// Whether the page draws a sample of `/metrics`, by its name.
pub(super) fn is_charted(sample: &str) -> bool {
    let family = sample.split('{').next().unwrap_or(sample);
    CHARTED.lines().any(|charted| charted == family)
}

impl History {
    /// Adds a point, of a relay of this age, and drops those that are too old.
    pub(super) fn note(&self, uptime_seconds: f64, samples: &BTreeMap<String, f64>) {
        let mut kept = self.0.lock();
        let Kept { places, points } = &mut *kept;
        let mut values = vec![0.0; places.len()];
        for (name, &value) in samples.iter().filter(|(name, _)| is_charted(name)) {
            if let Some(&place) = places.get(name) {
                values[place] = value;
            } else if value != 0.0 && places.len() < MOST_SERIES {
                places.insert(name.clone(), values.len());
                values.push(value);
            }
        }
        let oldest = uptime_seconds - WINDOW.as_secs_f64();
        while points.len() == MOST_POINTS
            || points.front().is_some_and(|point| point.uptime_seconds < oldest)
        {
            points.pop_front();
        }
        points.push_back(Point { uptime_seconds, values: values.into() });
    }

    /// What there is.
    pub(super) fn points(&self) -> Points {
        let kept = self.0.lock();
        let series = |&place: &usize| {
            let mut last = 0.0;
            let mut changes = Vec::new();
            for (index, point) in kept.points.iter().enumerate() {
                let value = point.values.get(place).copied().unwrap_or_default();
                if value != last {
                    changes.push((index, value));
                    last = value;
                }
            }
            changes
        };
        Points {
            uptime_seconds: kept.points.iter().map(|point| point.uptime_seconds).collect(),
            samples: kept.places.iter().map(|(name, at)| (name.clone(), series(at))).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKETS: &str = "pilot_beacon_packets_in_total{transport=\"wss\"}";

    fn samples(pairs: &[(&str, f64)]) -> BTreeMap<String, f64> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn page_reads_from_when_on_a_sample_had_which_value() {
        let history = History::default();
        for (uptime, packets) in [(1.0, 0.0), (2.0, 7.0), (3.0, 7.0), (4.5, 9.0)] {
            let uncharted = ("pilot_beacon_reloads_total", 3.0);
            history.note(uptime, &samples(&[(PACKETS, packets), uncharted]));
        }

        let points = history.points();

        assert_eq!(points.uptime_seconds, [1.0, 2.0, 3.0, 4.5]);
        let series = [(PACKETS.to_owned(), vec![(1, 7.0), (3, 9.0)])];
        assert_eq!(points.samples, series.into());
    }

    #[test]
    fn history_is_bounded_in_time_in_points_and_in_series() {
        let history = History::default();
        history.note(1.0, &samples(&[(PACKETS, 1.0)]));
        history.note(302.0, &samples(&[(PACKETS, 1.0)]));
        assert_eq!(history.points().uptime_seconds, [302.0]);

        for number in 0..2 * MOST_POINTS {
            let uptime = 302.0 + f64::from(u32::try_from(number).unwrap()) / 1e3;
            let label = format!("beacon_relay_packets_dropped_total{{reason=\"{number}\"}}");
            history.note(uptime, &samples(&[(&label, 1.0)]));
        }
        let points = history.points();
        assert_eq!(points.uptime_seconds.len(), MOST_POINTS);
        assert_eq!(points.samples.len(), MOST_SERIES);
    }

    /// What the page's scripts name in quotes and could be a sample, and the rates of its numbers.
    fn drawn() -> Vec<String> {
        let scripts = [
            include_str!("page/main.js"),
            include_str!("page/series.js"),
            include_str!("page/charts.js"),
        ];
        let quoted = scripts.into_iter().flat_map(|script| script.split('\''));
        let page = include_str!("page/index.html");
        let rates = page.split("data-rate=").skip(1);
        let rates = rates.filter_map(|rest| rest[1..].split(&rest[..1]).next());
        let is_sample = |text: &&str| {
            ["pilot_beacon_", "beacon_relay_", "process_"].iter().any(|p| text.starts_with(p))
                && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        };
        let rates = rates.map(|rate| rate.split('{').next().unwrap_or(rate));
        quoted.chain(rates).filter(is_sample).map(str::to_owned).collect()
    }

    #[test]
    fn history_has_all_that_the_page_draws_and_nothing_else() {
        assert!(CHARTED.lines().is_sorted());
        let drawn = drawn();
        let is_kept = |name: &String| is_charted(name) || is_charted(&format!("{name}_bucket"));
        let missing: Vec<_> = drawn.iter().filter(|name| !is_kept(name)).collect();
        assert_eq!(missing, [] as [&String; 0], "drawn, and not kept");
        let is_drawn = |family: &&str| {
            let name = family.strip_suffix("_bucket").unwrap_or(family);
            drawn.iter().any(|drawn| drawn == name)
        };
        let needless: Vec<_> = CHARTED.lines().filter(|family| !is_drawn(family)).collect();
        assert_eq!(needless, [] as [&str; 0], "kept, and not drawn");
    }
}
