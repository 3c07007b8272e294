//! The metrics of the `retransmit` signal.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use opentelemetry_semantic_conventions::attribute::NETWORK_TYPE;

use super::names::{Names, OTHER, UNKNOWN};
use crate::observe::retransmit::{Netns, Resent, SentSegments};

/// Cgroups told by name.
const CGROUPS: usize = 100;
/// Destinations told by their network.
const DESTINATIONS: usize = 200;
/// Network namespaces told by their inode number, beside the agent's own.
const NAMESPACES: usize = 100;
/// Combinations of the three that are told; of further ones the namespace and the family are.
const COMBINATIONS: usize = 1000;

/// Attribute sets there can be: with each namespace and family there is one of others.
pub(super) const SERIES: usize = COMBINATIONS + 2 * (NAMESPACES + 2);

/// Counts segments sent again, and tells segments sent.
#[derive(Debug)]
pub(super) struct RetransmitMeters {
    resent: Counter<u64>,
    sent: Arc<Mutex<Vec<SentSegments>>>,
    cgroups: Names,
    destinations: Names,
    namespaces: Names,
    combinations: HashSet<[String; 3]>,
}

impl RetransmitMeters {
    /// Makes the instruments. Those of the agent's own namespace begin at 0: a counter that first
    /// shows with its first segments hides them.
    #[must_use]
    pub(super) fn new(meter: &Meter) -> Self {
        let resent = meter
            .u64_counter("hearth.tcp.retransmitted_segments")
            .with_unit("{segment}")
            .with_description(
                "TCP segments sent again, as RetransSegs of each network namespace counts them.",
            )
            .build();
        let mut namespaces = Names::new(NAMESPACES + 1);
        if let Some(Netns(own)) = Netns::own() {
            let own = namespaces.bound(own.to_string());
            for v6 in [false, true] {
                resent.add(0, &attributes(&own, v6, OTHER, OTHER));
            }
        }
        let sent: Arc<Mutex<Vec<SentSegments>>> = Arc::default();
        instrument_sent(meter, &sent);
        Self {
            resent,
            sent,
            cgroups: Names::new(CGROUPS),
            destinations: Names::new(DESTINATIONS),
            namespaces,
            combinations: HashSet::new(),
        }
    }

    /// Counts what is new. `path` is the cgroup's, if it is known.
    pub(super) fn count(&mut self, resent: &Resent, path: Option<String>) {
        let netns = self.namespaces.bound(resent.netns.0.to_string());
        let (cgroup, destination) = match resent.by {
            Some(by) => (
                self.cgroups
                    .bound(path.unwrap_or_else(|| UNKNOWN.to_owned())),
                self.destinations.bound(by.destination.to_string()),
            ),
            None => (OTHER.to_owned(), OTHER.to_owned()),
        };
        let (cgroup, destination) = self.bound(&netns, cgroup, destination);
        let attributes = attributes(&netns, resent.v6, &cgroup, &destination);
        self.resent.add(resent.segments, &attributes);
    }

    fn bound(&mut self, netns: &str, cgroup: String, destination: String) -> (String, String) {
        // A destination is of one family, so that this bounds all four.
        let combination = [netns.to_owned(), cgroup, destination];
        let known = self.combinations.contains(&combination);
        if !known && self.combinations.len() >= COMBINATIONS {
            return (OTHER.to_owned(), OTHER.to_owned());
        }
        let [_, cgroup, destination] = combination.clone();
        self.combinations.insert(combination);
        (cgroup, destination)
    }

    /// Replaces what was sent.
    pub(super) fn set_sent(&self, sent: Vec<SentSegments>) {
        *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = sent;
    }
}

fn attributes(netns: &str, v6: bool, cgroup: &str, destination: &str) -> [KeyValue; 4] {
    [
        KeyValue::new("netns", netns.to_owned()),
        KeyValue::new(NETWORK_TYPE, if v6 { "ipv6" } else { "ipv4" }),
        KeyValue::new("cgroup", cgroup.to_owned()),
        KeyValue::new("destination", destination.to_owned()),
    ]
}

fn instrument_sent(meter: &Meter, sent: &Arc<Mutex<Vec<SentSegments>>>) {
    let sent = Arc::clone(sent);
    meter
        .u64_observable_counter("hearth.tcp.sent_segments")
        .with_unit("{segment}")
        .with_description(
            "TCP segments sent, those sent again not among them: OutSegs of the agent's own \
             network namespace, and of those with retransmits in which a process was found.",
        )
        .with_callback(move |to| {
            for sent in &*sent.lock().unwrap_or_else(PoisonError::into_inner) {
                let netns = KeyValue::new("netns", sent.netns.0.to_string());
                to.observe(sent.segments, &[netns]);
            }
        })
        .build();
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::*;
    use crate::observe::retransmit::{Destination, ResentBy};

    #[test]
    fn segments_are_told_once_each_however_many_destinations_there_are() {
        let registry = prometheus::Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .build()
            .expect("a reader");
        let provider = SdkMeterProvider::builder()
            .with_reader(reader)
            .with_view(super::super::metrics::bounds(1))
            .build();
        let mut meters = RetransmitMeters::new(&provider.meter("test"));
        for number in 0..3000_u32 {
            let resent = Resent {
                netns: Netns(number % 150),
                v6: false,
                by: Some(ResentBy {
                    cgroup: Some(u64::from(number % 300)),
                    destination: Destination::V4(Ipv4Addr::from(number << 8)),
                }),
                segments: 1,
            };
            meters.count(&resent, Some(format!("/c{}", number % 300)));
        }
        let families = registry.gather();
        let family = families
            .iter()
            .find(|family| family.name() == "hearth_tcp_retransmitted_segments_total")
            .expect("the counter");
        let series = family.get_metric();
        assert!(series.len() <= SERIES, "{}", series.len());
        let total: f64 = series.iter().map(|one| one.get_counter().get_value()).sum();
        assert!((total - 3000.0).abs() < 0.5, "{total}");
        let overflow = series.iter().flat_map(prometheus::proto::Metric::get_label);
        assert!(
            overflow
                .into_iter()
                .all(|label| label.name() != "otel_metric_overflow")
        );
    }
}
