use clap::Parser as _;

use super::super::samples::golden;
use super::super::schema::faults_of;
use super::super::{Cli, Command};
use super::*;

const SCHEMA: &str = include_str!("../../../../docs/schema/simulate.schema.json");
const DAY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../runtime/tests/traces/invocations_per_function_md.anon.d01.csv"
);

/// The command that these words are.
fn command(words: &[&str]) -> Result<Simulate, String> {
    let words = ["hearth", "simulate"].iter().chain(words);
    match Cli::try_parse_from(words).map_err(|error| error.to_string())? {
        Cli {
            command: Command::Simulate(simulate),
            ..
        } => Ok(simulate),
        other => panic!("{other:?}"),
    }
}

fn reports(trace: &Trace) -> (Vec<Report>, Clairvoyant) {
    let clairvoyant = Clairvoyant::of(trace);
    let policies = ["fixed:600", "fixed:60", "fixed:3600", "hybrid"];
    let options = policies.map(|text| Options::new(text.parse().expect("a policy")));
    let reports = work::simulate(trace, &options, &clairvoyant).expect("reports");
    (reports, clairvoyant)
}

fn day() -> Trace {
    let simulate = command(&["--trace", DAY]).expect("a command");
    simulate.trace().expect("a trace").0
}

#[test]
fn policies_are_told_in_the_order_in_which_they_were_asked_for() {
    let trace = day();
    let (reports, clairvoyant) = reports(&trace);
    let names: Vec<_> = reports.iter().map(|one| one.policy.to_string()).collect();
    assert_eq!(names, ["fixed:600", "fixed:60", "fixed:3600", "hybrid"]);
    let text = table::table("a day\u{1b}[31m", &trace, &reports[..3], &Terminal::PLAIN);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    golden("simulate.txt", &text);
    let picture = plot::plot(&reports[..3], &clairvoyant, "a <day>");
    golden("simulate.svg", &picture);
}

#[test]
fn what_is_printed_is_described() {
    for report in reports(&day()).0 {
        let value = serde_json::to_value(&report).expect("JSON");
        assert_eq!(faults_of(SCHEMA, &value), Vec::<String>::new());
    }
}

#[test]
fn a_made_up_trace_is_as_large_as_it_was_asked_for() {
    let words = ["--synthetic", "3", "--apps", "5", "--length", "2h"];
    let (trace, title) = command(&words)
        .expect("a command")
        .trace()
        .expect("a trace");
    assert_eq!(trace.end().0, Duration::from_hours(2));
    let mut apps: Vec<&str> = trace.functions().iter().map(|one| &*one.app).collect();
    apps.dedup();
    assert_eq!(apps.len(), 5);
    assert_eq!(title, "a made-up trace (published, seed 3)");
}

#[test]
fn without_a_policy_all_are_simulated_and_a_picture_has_curves() {
    let policies = |words: &[&str]| {
        let words: Vec<_> = ["--synthetic", "1"].iter().chain(words).copied().collect();
        command(&words).expect("a command").policies()
    };
    let all = policies(&[]);
    assert!(Choice::ALL.iter().all(|one| all.contains(one)));
    assert!(all.contains(&Choice::default()));
    let with_curves = policies(&["--plot", "x.svg"]);
    assert_eq!(with_curves, policies(&["--all"]));
    // Every curve's policy is one that there is.
    assert!(with_curves.len() >= all.len() + plot::CURVES.len() - 1);
    let some = policies(&["--policy", "hybrid", "fixed:5"]);
    assert_eq!(some.len(), 2);
}

#[test]
fn what_is_wrong_on_the_command_line_is_told_with_what_to_write() {
    for (words, remedy) in [
        (&[][..], "--trace <FILE>|--synthetic <SEED>"),
        (&["--synthetic", "1", "--trace", "x"], "cannot be used with"),
        (
            &["--synthetic", "1", "--share", "0.5"],
            "cannot be used with",
        ),
        (&["--trace", "x", "--apps", "3"], "cannot be used with"),
        (&["--trace", "x", "--share", "2"], "such as 0.01"),
        (&["--trace", "x", "--format", "csv"], "azure-2019"),
        (&["--synthetic", "1", "--generator", "x"], "slow-starts"),
        (&["--synthetic", "1", "--memory", "16"], "has no unit"),
        (&["--synthetic", "1", "--policy", "lru"], "fixed:600"),
    ] {
        let error = command(words).expect_err(remedy);
        assert!(error.contains(remedy), "{words:?}: {error}");
    }
}
