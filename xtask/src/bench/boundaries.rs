//! How far the marks lie from what programs say of themselves on the same clock.

use anyhow::{Context as _, Result};
use hearth_tests::programs::{self, Language};
use hearth_tests::report::ReportFile;
use hearth_tests::trace::trace;

use super::pairs::quantile;
use super::{Better, Figure, Printer};

/// Starts of each language.
const STARTS: usize = 20;

/// Distances, in us, of one boundary over all starts of one language.
#[derive(Default)]
struct Distances {
    hand_over: Vec<f64>,
    ready: Vec<f64>,
}

/// Prints, for each language, how far hand-over and ready are from the program's own.
pub(crate) fn measure(printer: &mut Printer) -> Result<()> {
    for language in Language::ALL {
        let mut distances = Distances::default();
        // The first start of an unseen file is cut without its hand-over; it is not measured.
        for start in 0..=STARTS {
            let one = one_start(language).with_context(|| format!("{language:?}"))?;
            if start > 0 {
                distances.hand_over.extend(one.hand_over);
                distances.ready.extend(one.ready);
            }
        }
        for (boundary, values) in [
            ("hand-over", &distances.hand_over),
            ("ready", &distances.ready),
        ] {
            for (name, share) in [("p50", 0.5), ("max", 1.0)] {
                let figure = format!("boundary error, {language:?}, {boundary}, {name}");
                let value = quantile(values, share);
                printer.print(
                    &Figure::alone(figure, value, "us", values.len()).better(Better::Lower),
                )?;
            }
        }
    }
    Ok(())
}

fn one_start(language: Language) -> Result<Distances> {
    let file = ReportFile::new()?;
    let path = file.path().to_string_lossy().into_owned();
    let traced = trace(&[], &programs::oracle(language)?.with(&["listen", &path]))?;
    let (start, report) = (traced.only()?, file.report()?);
    let mut distances = Distances::default();
    if let Ok(user_init) = start.phase("user_init") {
        distances
            .hand_over
            .push(micros(user_init.begin_ns, report.main_ns));
    }
    distances
        .ready
        .push(micros(start.end_ns(), report.ready_ns));
    Ok(distances)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "distances are far below 2^52 ns"
)]
fn micros(one: u64, other: u64) -> f64 {
    one.abs_diff(other) as f64 / 1000.0
}
