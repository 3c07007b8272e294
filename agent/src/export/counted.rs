//! Histograms that were counted elsewhere (by the kernel side, by the pools), as Prometheus and OTLP
//! have them.
//!
//! They are totals since the agent began, read as a whole; the SDK's histograms take one
//! measurement at a time, and it has no asynchronous ones.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry_proto::tonic::metrics::v1 as otlp;
use prometheus::core::{Collector, Desc};
use prometheus::proto;

/// One series: how often a length of time fell between two bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CountedSeries {
    /// Its attributes.
    pub attributes: Vec<(&'static str, String)>,
    /// By bound, how many were at most that long and longer than the bound before; and, last,
    /// how many were longer than all.
    pub counts: Vec<u64>,
    /// All lengths together, seconds.
    pub sum: f64,
}

impl CountedSeries {
    fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// One metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CountedHistogram {
    /// Its name, as OTLP has it.
    pub name: &'static str,
    /// What it tells.
    pub description: &'static str,
    /// Upper bounds, seconds, ascending.
    pub bounds: Vec<f64>,
    /// Its series.
    pub series: Vec<CountedSeries>,
}

impl CountedHistogram {
    /// Its name, as Prometheus has it.
    fn prometheus_name(&self) -> String {
        format!("{}_seconds", self.name.replace('.', "_"))
    }

    fn family(&self) -> proto::MetricFamily {
        let metrics = self.series.iter().map(|series| {
            let labels = series.attributes.iter().map(|(name, value)| {
                let mut pair = proto::LabelPair::default();
                pair.set_name(name.replace('.', "_"));
                pair.set_value(value.clone());
                pair
            });
            let mut cumulative = 0;
            let buckets = self
                .bounds
                .iter()
                .zip(&series.counts)
                .map(|(bound, count)| {
                    cumulative += count;
                    let mut bucket = proto::Bucket::default();
                    bucket.set_upper_bound(*bound);
                    bucket.set_cumulative_count(cumulative);
                    bucket
                });
            let mut histogram = proto::Histogram::default();
            histogram.set_bucket(buckets.collect());
            histogram.set_sample_count(series.count());
            histogram.set_sample_sum(series.sum);
            let mut metric = proto::Metric::from_label(labels.collect());
            metric.set_histogram(histogram);
            metric
        });
        let mut family = proto::MetricFamily::default();
        family.set_name(self.prometheus_name());
        family.set_help(self.description.to_owned());
        family.set_field_type(proto::MetricType::HISTOGRAM);
        family.set_metric(metrics.collect());
        family
    }

    fn metric(&self, begin_unix_ns: u64, now_unix_ns: u64) -> otlp::Metric {
        let points = self.series.iter().map(|series| otlp::HistogramDataPoint {
            attributes: series
                .attributes
                .iter()
                .map(|(name, value)| (&KeyValue::new(*name, value.clone())).into())
                .collect(),
            start_time_unix_nano: begin_unix_ns,
            time_unix_nano: now_unix_ns,
            count: series.count(),
            sum: Some(series.sum),
            bucket_counts: series.counts.clone(),
            explicit_bounds: self.bounds.clone(),
            ..otlp::HistogramDataPoint::default()
        });
        otlp::Metric {
            name: self.name.to_owned(),
            description: self.description.to_owned(),
            unit: "s".to_owned(),
            data: Some(otlp::metric::Data::Histogram(otlp::Histogram {
                data_points: points.collect(),
                aggregation_temporality: otlp::AggregationTemporality::Cumulative.into(),
            })),
            ..otlp::Metric::default()
        }
    }
}

/// The histograms as they were last read, shared between who reads and who tells them.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    histograms: Arc<Mutex<BTreeMap<&'static str, CountedHistogram>>>,
    begin_unix_ns: u64,
    desc: Option<Desc>,
}

impl Counted {
    /// None yet; they count from `begin_unix_ns` on.
    #[must_use]
    pub(super) fn since(begin_unix_ns: u64) -> Self {
        let help = "Histograms that were counted as totals.".to_owned();
        let (labels, constants) = (Vec::new(), HashMap::new());
        Self {
            begin_unix_ns,
            desc: Desc::new("hearth_counted".to_owned(), help, labels, constants).ok(),
            ..Self::default()
        }
    }

    /// Replaces those of the same names.
    pub(super) fn set(&self, histograms: Vec<CountedHistogram>) {
        let by_name = histograms.into_iter().map(|one| (one.name, one));
        self.lock().extend(by_name);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, CountedHistogram>> {
        self.histograms
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn each<T>(&self, tell: impl FnMut(&CountedHistogram) -> T) -> Vec<T> {
        let histograms = self.lock();
        let told = histograms.values().filter(|one| !one.series.is_empty());
        told.map(tell).collect()
    }

    /// As OTLP has them, at `now_unix_ns`.
    #[must_use]
    pub(super) fn metrics(&self, now_unix_ns: u64) -> Vec<otlp::Metric> {
        self.each(|histogram| histogram.metric(self.begin_unix_ns, now_unix_ns))
    }
}

/// Number of data points in `metrics`.
pub(super) fn points(metrics: &[otlp::Metric]) -> u64 {
    let points = metrics.iter().map(|metric| match &metric.data {
        Some(otlp::metric::Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    });
    points.sum::<usize>() as u64
}

impl Collector for Counted {
    /// One, so that the registry can tell it from others that announce none; which series there
    /// are shows with the first hit.
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<proto::MetricFamily> {
        self.each(CountedHistogram::family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted() -> Counted {
        let counted = Counted::since(1);
        let series = CountedSeries {
            attributes: vec![("lock", "cgroup_mutex".to_owned())],
            counts: vec![3, 0, 2],
            sum: 0.5,
        };
        let empty = |name| CountedHistogram {
            name,
            description: "Time until a lock was had.",
            bounds: vec![0.001, 0.01],
            series: Vec::new(),
        };
        counted.set(vec![
            CountedHistogram {
                series: vec![series],
                ..empty("hearth.cgroup.lock.wait")
            },
            empty("hearth.cgroup.lock.hold"),
        ]);
        counted
    }

    #[test]
    fn prometheus_gets_cumulative_buckets() {
        let registry = prometheus::Registry::new();
        registry.register(Box::new(counted())).expect("once");
        let text = prometheus::TextEncoder::new()
            .encode_to_string(&registry.gather())
            .expect("text");
        let wanted = r#"# HELP hearth_cgroup_lock_wait_seconds Time until a lock was had.
# TYPE hearth_cgroup_lock_wait_seconds histogram
hearth_cgroup_lock_wait_seconds_bucket{lock="cgroup_mutex",le="0.001"} 3
hearth_cgroup_lock_wait_seconds_bucket{lock="cgroup_mutex",le="0.01"} 3
hearth_cgroup_lock_wait_seconds_bucket{lock="cgroup_mutex",le="+Inf"} 5
hearth_cgroup_lock_wait_seconds_sum{lock="cgroup_mutex"} 0.5
hearth_cgroup_lock_wait_seconds_count{lock="cgroup_mutex"} 5
"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn otlp_gets_counts_by_bucket_and_cumulative_over_time() {
        let metrics = counted().metrics(9);
        let [metric] = &metrics[..] else {
            panic!("what has no series is not told: {metrics:?}")
        };
        let Some(otlp::metric::Data::Histogram(histogram)) = &metric.data else {
            panic!("{metric:?}")
        };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (5, Some(0.5)));
        assert_eq!(point.bucket_counts, [3, 0, 2]);
        assert_eq!(point.explicit_bounds, [0.001, 0.01]);
        assert_eq!((point.start_time_unix_nano, point.time_unix_nano), (1, 9));
        assert_eq!(metric.unit, "s");
    }
}
