use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::metrics::SdkMeterProvider;

use super::*;
use crate::export::names::OTHER;

struct Scene {
    registry: prometheus::Registry,
    _provider: SdkMeterProvider,
    meters: PoolMeters,
    names: Names,
}

impl Scene {
    fn new(max_functions: usize) -> Self {
        let registry = prometheus::Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .expect("a reader");
        let provider = SdkMeterProvider::builder()
            .with_reader(reader)
            .with_view(crate::export::metrics::bounds(max_functions))
            .build();
        Self {
            registry,
            meters: PoolMeters::new(&provider.meter("test")),
            names: Names::new(max_functions),
            _provider: provider,
        }
    }

    fn set(&mut self, pools: Vec<PoolState>) -> Vec<CountedHistogram> {
        let state = PoolsState {
            budget_bytes: Some(1 << 30),
            used_bytes: 1 << 20,
            pools,
        };
        self.meters.set(&state, &mut self.names)
    }

    fn text(&self) -> String {
        let encoder = prometheus::TextEncoder::new();
        let text = encoder.encode_to_string(&self.registry.gather());
        text.expect("text")
    }

    fn lines(&self, part: &str) -> Vec<String> {
        let text = self.text();
        let lines = text.lines().filter(|line| line.starts_with(part));
        lines.map(str::to_owned).collect()
    }
}

fn pool(function: &str, hits: u64) -> PoolState {
    let mut counts = PoolCounts::default();
    for counter in [
        Counter::Served("queued"),
        Counter::Served("miss"),
        Counter::Refused("full"),
        Counter::Retired("idle"),
        Counter::Answered,
        Counter::Failed,
        Counter::TimedOut,
    ] {
        counts.counts.insert(counter, 0);
    }
    counts.counts.insert(Counter::Served("hit"), hits);
    for _ in 0..hits {
        counts.invoke.record(Duration::from_millis(7));
    }
    PoolState {
        function: function.to_owned(),
        max: 4,
        target: 2,
        ready: 1,
        busy: 1,
        idle_bytes: 1000,
        back_off: Duration::from_secs(hits),
        counts,
        ..PoolState::default()
    }
}

#[test]
fn what_can_be_counted_begins_at_0() {
    let mut scene = Scene::new(2);
    assert_eq!(scene.text(), "");
    scene.set(vec![pool("shop", 0)]);
    let text = scene.text();
    for line in [
        r#"hearth_pool_claims_total{faas_name="shop",result="hit"} 0"#,
        r#"hearth_pool_claims_total{faas_name="shop",reason="full",result="refused"} 0"#,
        r#"hearth_pool_retired_total{faas_name="shop",why="idle"} 0"#,
        r#"hearth_pool_sandboxes{faas_name="shop",state="target"} 2"#,
        r#"hearth_pool_sandboxes{faas_name="shop",state="starting"} 0"#,
        r#"hearth_pool_waiting{faas_name="shop"} 0"#,
        r#"hearth_pool_idle_memory_bytes{faas_name="shop"} 1000"#,
        r#"hearth_pool_memory_bytes{state="budget"} 1073741824"#,
        r#"hearth_heal_back_off_seconds{faas_name="shop"} 0"#,
        r#"faas_invocations_total{faas_name="shop"} 0"#,
        r#"faas_errors_total{faas_name="shop"} 0"#,
        r#"faas_timeouts_total{faas_name="shop"} 0"#,
        r#"faas_coldstarts_total{faas_name="shop"} 0"#,
    ] {
        assert!(
            text.lines().any(|told| told == line),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn functions_beyond_the_bound_are_told_together_and_counts_never_fall() {
    let mut scene = Scene::new(1);
    let total = |scene: &Scene, name: &str| {
        let lines = scene.lines("hearth_pool_claims_total");
        let mut of = lines
            .iter()
            .filter(|line| line.contains(&format!("\"{name}\"")) && line.contains("\"hit\""));
        let line = of.next().expect("told");
        assert!(of.next().is_none(), "{lines:?}");
        line.rsplit_once(' ').expect("a value").1.to_owned()
    };
    scene.set(vec![pool("a", 1), pool("b", 2), pool("c", 3)]);
    assert_eq!(
        (total(&scene, "a"), total(&scene, OTHER)),
        ("1".into(), "5".into())
    );
    let back_off = scene.lines("hearth_heal_back_off_seconds");
    assert!(
        back_off.iter().any(|line| line.ends_with(" 3")),
        "{back_off:?}"
    );
    // c is removed, b comes again and begins anew.
    scene.set(vec![pool("a", 4), pool("b", 1)]);
    assert_eq!(
        (total(&scene, "a"), total(&scene, OTHER)),
        ("4".into(), "6".into())
    );
    let histograms = scene.set(vec![pool("a", 4), pool("b", 1)]);
    assert_eq!(total(&scene, OTHER), "6");
    let [invoke, init] = &histograms[..] else {
        panic!("{histograms:?}")
    };
    assert_eq!(
        (invoke.name, init.name),
        ("faas.invoke_duration", "faas.init_duration")
    );
    let counts = |series: &CountedSeries| series.counts.iter().sum::<u64>();
    let both: Vec<u64> = invoke.series.iter().map(counts).collect();
    assert_eq!(both, [4, 6]);
}

#[test]
fn none_is_lost_in_the_overflow_of_the_sdk() {
    let functions = 600;
    let mut scene = Scene::new(functions);
    scene.set((0..functions).map(|n| pool(&n.to_string(), 1)).collect());
    let hits = scene.lines("hearth_pool_claims_total");
    assert_eq!(hits.len(), functions * 4);
    assert!(!scene.text().contains("otel_metric_overflow"));
}
