//! The Prometheus side: turns numbers into metric families at the moment of a scrape.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::proto::{self, MetricFamily, MetricType};
use prometheus::{Encoder as _, TextEncoder};

use super::{Counter, Gauge, Labelled, Sharded, Word};

type Source = Box<dyn Fn(&mut Vec<MetricFamily>) + Send + Sync>;

/// Everything that a scrape shows: functions that append their families.
#[derive(Default)]
pub struct Registry {
    sources: Mutex<Vec<Source>>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("sources", &self.sources.lock().len()).finish()
    }
}

impl Registry {
    /// Adds a function that appends families; it runs at each scrape.
    pub fn add(&self, source: impl Fn(&mut Vec<MetricFamily>) + Send + Sync + 'static) {
        self.sources.lock().push(Box::new(source));
    }

    /// The text of a scrape, current at this moment.
    ///
    /// # Errors
    /// A family without samples, which is a mistake of ours.
    pub fn encode(&self) -> Result<String, prometheus::Error> {
        let mut families = self.families();
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// The samples of a scrape, current at this moment, by the names that its text gives them:
    /// `name`, or `name{label="value"}`. Only of the families that are `wanted`; a histogram is
    /// wanted by its `_bucket`.
    #[must_use]
    pub fn samples(&self, wanted: impl Fn(&str) -> bool) -> BTreeMap<String, f64> {
        let mut samples = BTreeMap::new();
        for family in self.families() {
            let is_wanted = match family.get_field_type() {
                MetricType::HISTOGRAM => wanted(&format!("{}_bucket", family.name())),
                MetricType::COUNTER
                | MetricType::GAUGE
                | MetricType::SUMMARY
                | MetricType::UNTYPED => wanted(family.name()),
            };
            if !is_wanted {
                continue;
            }
            for metric in family.get_metric() {
                add_samples(&mut samples, &family, metric);
            }
        }
        samples
    }

    fn families(&self) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        for source in &*self.sources.lock() {
            source(&mut families);
        }
        families
    }
}

fn add_samples(samples: &mut BTreeMap<String, f64>, family: &MetricFamily, metric: &proto::Metric) {
    let mut add = |suffix: &str, bound: Option<&str>, value: f64| {
        let labels = metric.get_label().iter().map(|pair| (pair.name(), pair.value()));
        let labels = labels.chain(bound.map(|bound| ("le", bound)));
        let labels: Vec<_> = labels.map(|(name, word)| format!("{name}=\"{word}\"")).collect();
        let labels =
            if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        samples.insert(format!("{}{suffix}{labels}", family.name()), value);
    };
    match family.get_field_type() {
        MetricType::COUNTER => add("", None, metric.get_counter().get_value()),
        MetricType::GAUGE => add("", None, metric.get_gauge().get_value()),
        MetricType::HISTOGRAM => {
            #[allow(clippy::cast_precision_loss)] // the exposition format is f64
            let number = |count: u64| count as f64;
            let histogram = metric.get_histogram();
            for bucket in histogram.get_bucket() {
                let bound = bucket.upper_bound().to_string();
                add("_bucket", Some(&bound), number(bucket.cumulative_count()));
            }
            add("_bucket", Some("+Inf"), number(histogram.get_sample_count()));
            add("_sum", None, histogram.get_sample_sum());
            add("_count", None, number(histogram.get_sample_count()));
        }
        MetricType::SUMMARY | MetricType::UNTYPED => {}
    }
}

/// A counter without labels.
#[must_use]
pub fn counter(name: &str, help: &str, counter: &Counter) -> MetricFamily {
    counts(name, help, &[], [(&[] as &[&str], counter.value())])
}

/// A counter without labels, of a value read elsewhere that need not be whole.
#[must_use]
pub fn counter_value(name: &str, help: &str, value: f64) -> MetricFamily {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    let mut metric = proto::Metric::default();
    metric.set_counter(counter);
    family(name, help, MetricType::COUNTER, vec![metric])
}

/// A gauge without labels.
#[must_use]
pub fn gauge(name: &str, help: &str, gauge: &Gauge) -> MetricFamily {
    #[allow(clippy::cast_precision_loss)] // gauges here stay far below 2^53
    gauge_value(name, help, gauge.value() as f64)
}

/// A gauge without labels, of a value read elsewhere.
#[must_use]
pub fn gauge_value(name: &str, help: &str, value: f64) -> MetricFamily {
    gauge_values(name, help, &[], [(&[] as &[&str], value)])
}

/// Counters that differ in one label.
#[must_use]
pub fn labelled<W: Word>(
    name: &str,
    help: &str,
    label: &str,
    counters: &Labelled<W>,
) -> MetricFamily {
    by_word(name, help, label, counters.iter())
}

/// Counters of many threads that differ in one label.
#[must_use]
pub fn sharded<W: Word>(
    name: &str,
    help: &str,
    label: &str,
    counters: &Sharded<W>,
) -> MetricFamily {
    by_word(name, help, label, counters.iter())
}

/// Counters that differ in one label, of values read elsewhere.
#[must_use]
pub(super) fn by_word(
    name: &str,
    help: &str,
    label: &str,
    samples: impl Iterator<Item = (&'static str, u64)>,
) -> MetricFamily {
    let samples: Vec<_> = samples.map(|(word, value)| ([word], value)).collect();
    counts(name, help, &[label], samples.iter().map(|(words, value)| (words.as_slice(), *value)))
}

/// Counters that differ in any number of labels.
#[must_use]
pub fn counts<'a>(
    name: &str,
    help: &str,
    labels: &[&str],
    samples: impl IntoIterator<Item = (&'a [&'a str], u64)>,
) -> MetricFamily {
    let metrics = samples.into_iter().map(|(words, value)| {
        let mut counter = proto::Counter::default();
        #[allow(clippy::cast_precision_loss)] // the exposition format is f64
        counter.set_value(value as f64);
        let mut metric = metric(labels, words);
        metric.set_counter(counter);
        metric
    });
    family(name, help, MetricType::COUNTER, metrics.collect())
}

/// Gauges that differ in any number of labels.
#[must_use]
pub fn gauge_values<'a>(
    name: &str,
    help: &str,
    labels: &[&str],
    samples: impl IntoIterator<Item = (&'a [&'a str], f64)>,
) -> MetricFamily {
    let metrics = samples.into_iter().map(|(words, value)| {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut metric = metric(labels, words);
        metric.set_gauge(gauge);
        metric
    });
    family(name, help, MetricType::GAUGE, metrics.collect())
}

/// A histogram of durations in seconds; `counts` has one entry more than `bounds`.
#[must_use]
pub fn histogram(
    name: &str,
    help: &str,
    bounds: &[Duration],
    counts: &[u64],
    sum: Duration,
) -> MetricFamily {
    histogram_in(Duration::from_secs(1), name, help, bounds, counts, sum)
}

/// The same in another unit than seconds.
pub(super) fn histogram_in(
    unit: Duration,
    name: &str,
    help: &str,
    bounds: &[Duration],
    counts: &[u64],
    sum: Duration,
) -> MetricFamily {
    let mut cumulative = 0;
    let buckets = bounds.iter().zip(counts).map(|(bound, count)| {
        cumulative += count;
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound.div_duration_f64(unit));
        bucket.set_cumulative_count(cumulative);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(counts.iter().sum());
    histogram.set_sample_sum(sum.div_duration_f64(unit));
    let mut metric = proto::Metric::default();
    metric.set_histogram(histogram);
    family(name, help, MetricType::HISTOGRAM, vec![metric])
}

fn metric(labels: &[&str], words: &[&str]) -> proto::Metric {
    let pairs = labels.iter().zip(words).map(|(label, word)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*label).to_owned());
        pair.set_value((*word).to_owned());
        pair
    });
    let mut metric = proto::Metric::default();
    metric.set_label(pairs.collect());
    metric
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<proto::Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Traffic;

    #[test]
    fn samples_have_the_names_and_values_of_the_text() {
        let registry = Registry::default();
        let traffic = Traffic::default();
        traffic.shard().dropped(crate::metrics::Drop::FAILED, 3);
        traffic.shard().waited(Duration::from_millis(3));
        registry.add(move |families| traffic.families("foreign", families));

        let text = registry.encode().unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let of_text: BTreeMap<_, f64> = lines
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name.to_owned(), value.parse().unwrap()))
            .collect();
        assert_eq!(registry.samples(|_| true), of_text);
        assert_eq!(of_text["pilot_beacon_packets_dropped_total{reason=\"failed\"}"], 3.0);
        assert_eq!(of_text["pilot_beacon_outbox_delay_seconds_bucket{le=\"0.005\"}"], 1.0);
    }
}
