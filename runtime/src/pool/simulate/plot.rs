//! The share of requests that are not served at once against idle memory-time, as a picture: an SVG that follows the
//! reader's light or dark scheme, and whose text is text. Lower left is better.

use std::fmt::Write as _;

use super::super::policy::Choice;
use super::{Clairvoyant, Report};

/// Width and height of the picture, and the edges of what is drawn in it.
const SIZE: (f64, f64) = (960.0, 560.0);
const LEFT: f64 = 76.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 78.0;
const BOTTOM: f64 = 492.0;
/// Where the legend stands.
const LEGEND: f64 = 732.0;
/// Points of the clairvoyant's curve.
const POINTS: usize = 400;
/// Colours of families of policies, told apart by the colour-blind, too (Okabe and Ito), and in the
/// light and the dark scheme; each has a shape of its own besides.
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// Draws what policies did with one trace; `title` says which.
#[must_use]
pub fn plot(reports: &[Report], clairvoyant: &Clairvoyant, title: &str) -> String {
    let families = families(reports);
    let axes = Axes::of(reports);
    let mut text = head(title);
    axes.draw(&mut text);
    let curve = clairvoyant.curve(POINTS);
    let points = curve.iter().filter_map(|point| axes.place(*point));
    line(&mut text, "bound", points);
    for (nth, (name, marks)) in families.iter().enumerate() {
        family(&mut text, nth, name, marks, &axes);
    }
    for report in reports.iter().filter(|one| is_front(one, reports)) {
        if let Some((x, y)) = axes.place((report.idle_memory_gib_s, report.waited_share)) {
            ring(&mut text, (x, y));
        }
    }
    legend(&mut text, &families);
    text.push_str("</svg>\n");
    text
}

/// Whether nothing has less of both.
fn is_front(one: &Report, all: &[Report]) -> bool {
    let (idle, waited) = (one.idle_memory_gib_s, one.waited_share);
    !all.iter().any(|other| {
        let (other_idle, other_waited) = (other.idle_memory_gib_s, other.waited_share);
        other_idle <= idle && other_waited <= waited && (other_idle < idle || other_waited < waited)
    })
}

/// What policies of the same name did, by rising memory-time.
fn families(reports: &[Report]) -> Vec<(String, Vec<&Report>)> {
    let mut families: Vec<(String, Vec<&Report>)> = Vec::new();
    for report in reports {
        let name = report.policy.to_string();
        let name = name.split(':').next().unwrap_or_default();
        match families.iter_mut().find(|(family, _)| family == name) {
            Some((_, marks)) => marks.push(report),
            None => families.push((name.to_owned(), vec![report])),
        }
    }
    for (_, marks) in &mut families {
        marks.sort_by(|a, b| a.idle_memory_gib_s.total_cmp(&b.idle_memory_gib_s));
    }
    families
}

/// Both on a logarithmic scale: policies differ by factors.
struct Axes {
    idle: (f64, f64),
    waited: (f64, f64),
}

impl Axes {
    fn of(reports: &[Report]) -> Self {
        let idle = reports.iter().map(|report| report.idle_memory_gib_s);
        let waited = reports.iter().map(|report| report.waited_share);
        Self {
            idle: around(idle),
            waited: around(waited),
        }
    }

    /// Where that is, if it is in the picture.
    fn place(&self, (idle, waited): (f64, f64)) -> Option<(f64, f64)> {
        let x = share(idle, self.idle)?;
        let y = share(waited, self.waited)?;
        Some((LEFT + (RIGHT - LEFT) * x, BOTTOM - (BOTTOM - TOP) * y))
    }

    fn draw(&self, text: &mut String) {
        // Writing to a string cannot fail.
        for tick in ticks(self.idle) {
            if let Some((x, _)) = self.place((tick, self.waited.0)) {
                let _ = writeln!(
                    text,
                    "<path class=\"grid\" d=\"M{x:.1} {TOP}V{BOTTOM}\"/>\n\
                     <text class=\"dim\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
                    BOTTOM + 18.0,
                    number(tick)
                );
            }
        }
        for tick in ticks(self.waited) {
            if let Some((_, y)) = self.place((self.idle.0, tick)) {
                let _ = writeln!(
                    text,
                    "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\n\
                     <text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{} %</text>",
                    LEFT - 8.0,
                    y + 4.0,
                    number(tick * 100.0)
                );
            }
        }
        let _ = writeln!(
            text,
            "<text class=\"dim\" x=\"{LEFT}\" y=\"{:.1}\">requests not served at once</text>\n\
             <text class=\"dim\" x=\"{RIGHT}\" y=\"{:.1}\" text-anchor=\"end\">idle memory-time, GiB s</text>",
            TOP - 14.0,
            BOTTOM + 40.0
        );
    }
}

/// A scale with room around all that is above 0.
fn around(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let above = values.filter(|value| *value > 0.0);
    let (from, to) = above.fold((f64::INFINITY, 0.0_f64), |(from, to), value| {
        (from.min(value), to.max(value))
    });
    if from > to {
        return (0.1, 10.0);
    }
    (from / 1.6, to * 1.6)
}

/// How far along a scale, from 0 to 1.
fn share(value: f64, (from, to): (f64, f64)) -> Option<f64> {
    let share = (value / from).ln() / (to / from).ln();
    (0.0..=1.0).contains(&share).then_some(share)
}

/// Round values on a scale: steps of 1, 2 and 5, or of tens where these were too many.
fn ticks((from, to): (f64, f64)) -> Vec<f64> {
    let steps: &[f64] = if to / from > 2000.0 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let mut decade = 10_f64.powf(from.log10().floor());
    let mut ticks = Vec::new();
    while decade <= to && ticks.len() < 30 {
        let of_decade = steps.iter().map(|step| step * decade);
        ticks.extend(of_decade.filter(|tick| (from..=to).contains(tick)));
        decade *= 10.0;
    }
    ticks
}

/// As short as it is read.
fn number(value: f64) -> String {
    for (size, unit) in [(1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value >= size * 0.999 {
            return format!("{}{unit}", rounded(value / size));
        }
    }
    rounded(value)
}

fn rounded(value: f64) -> String {
    let digits = if value >= 10.0 { 0 } else { 4 };
    let text = format!("{value:.digits$}");
    if text.contains('.') {
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    text
}

fn line(text: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>) {
    let mut path = String::new();
    for (x, y) in points {
        let step = if path.is_empty() { 'M' } else { 'L' };
        let _ = write!(path, "{step}{x:.1} {y:.1}");
    }
    if !path.is_empty() {
        let _ = writeln!(text, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

fn family(text: &mut String, nth: usize, name: &str, marks: &[&Report], axes: &Axes) {
    let place = |report: &&Report| axes.place((report.idle_memory_gib_s, report.waited_share));
    line(
        text,
        &format!("line c{}", nth % COLOURS.len()),
        marks.iter().filter_map(place),
    );
    for report in marks {
        let Some((x, y)) = place(report) else {
            continue;
        };
        let _ = writeln!(
            text,
            "<g><title>{}: {} % not served at once, {} GiB s idle</title>",
            report.policy,
            number(report.waited_share * 100.0),
            number(report.idle_memory_gib_s)
        );
        mark(text, nth, (x, y));
        text.push_str("</g>\n");
        let policy = report.policy.to_string();
        let label = match policy.split_once(':') {
            Some((_, parameter)) if marks.len() > 1 => parameter,
            _ => name,
        };
        let _ = writeln!(
            text,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            x + 9.0,
            y - 7.0
        );
    }
}

/// A shape for each family.
fn mark(text: &mut String, nth: usize, (x, y): (f64, f64)) {
    let size = 6.0;
    let path = match nth % 6 {
        0 => {
            let _ = writeln!(
                text,
                "<circle class=\"c0\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size}\"/>"
            );
            return;
        }
        1 => format!("M{:.1} {:.1}h12v12h-12z", x - size, y - size),
        2 => format!("M{x:.1} {:.1}l7 12h-14z", y - 7.0),
        3 => format!("M{x:.1} {:.1}l7.5 7.5l-7.5 7.5l-7.5 -7.5z", y - 7.5),
        4 => format!("M{x:.1} {:.1}l-7 -12h14z", y + 7.0),
        _ => format!(
            "M{:.1} {:.1}h4v-4h4v4h4v4h-4v4h-4v-4h-4z",
            x - size,
            y - 2.0
        ),
    };
    let _ = writeln!(
        text,
        "<path class=\"c{}\" d=\"{path}\"/>",
        nth % COLOURS.len()
    );
}

fn ring(text: &mut String, (x, y): (f64, f64)) {
    let _ = writeln!(
        text,
        "<circle class=\"ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"11\"/>"
    );
}

fn legend(text: &mut String, families: &[(String, Vec<&Report>)]) {
    let mut y = TOP + 8.0;
    for (nth, (name, marks)) in families.iter().enumerate() {
        mark(text, nth, (LEGEND, y - 4.0));
        let what = match (&**name, marks.len()) {
            ("fixed" | "adaptive", 2..) => ", by seconds",
            ("quantile", 2..) => ", by percent",
            (_, 2..) => ", by parameter",
            _ => "",
        };
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{y:.1}\">{name}{what}</text>",
            LEGEND + 16.0
        );
        y += 26.0;
    }
    line(
        text,
        "bound",
        [(LEGEND - 8.0, y - 4.0), (LEGEND + 8.0, y - 4.0)].into_iter(),
    );
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{y:.1}\">clairvoyant that starts</text>",
        LEGEND + 16.0
    );
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\">nothing ahead</text>",
        LEGEND + 16.0,
        y + 17.0
    );
    y += 43.0;
    ring(text, (LEGEND, y - 4.0));
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{y:.1}\">the front: none has less of both</text>\n\
         <text class=\"dim\" x=\"{:.1}\" y=\"{:.1}\">Lower left is better.</text>",
        LEGEND + 16.0,
        LEGEND - 8.0,
        y + 36.0
    );
}

fn head(title: &str) -> String {
    let (width, height) = SIZE;
    let title = escaped(title);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" role=\"img\" aria-labelledby=\"hearth-title\">\n\
         <title id=\"hearth-title\">{title}</title>\n<style>\n\
         text{{font:13px system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif;\
         font-variant-numeric:tabular-nums;fill:#1b2430}}\n\
         .title{{font-size:17px;font-weight:600}}\n.dim{{font-size:12px;fill:#5a6675}}\n\
         .label{{font-size:11px}}\n.card{{fill:#fff;stroke:#d8dee6}}\n.grid{{stroke:#e6eaef}}\n\
         .bound{{fill:none;stroke:#5a6675;stroke-width:1.5;stroke-dasharray:5 4}}\n\
         .ring{{fill:none;stroke:#1b2430}}\n.line{{fill:none;stroke-width:1.5;opacity:.6}}\n"
    );
    for (nth, colour) in COLOURS.iter().enumerate() {
        let _ = writeln!(
            text,
            ".c{nth}{{fill:{colour}}}\n.line.c{nth}{{fill:none;stroke:{colour}}}"
        );
    }
    let _ = writeln!(
        text,
        "@media (prefers-color-scheme:dark){{\ntext{{fill:#e8ecf2}}\n.dim{{fill:#98a4b3}}\n\
         .card{{fill:#12161c;stroke:#2c343f}}\n.grid{{stroke:#262d37}}\n.bound{{stroke:#98a4b3}}\n.ring{{stroke:#e8ecf2}}\n}}\n\
         </style>\n<rect class=\"card\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"10\"/>\n\
         <text class=\"title\" x=\"28\" y=\"40\">{title}</text>",
        width - 1.0,
        height - 1.0
    );
    text
}

/// As XML's character data takes it.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for ch in text.chars().take(90) {
        match ch {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            ch if ch.is_control() => safe.push('?'),
            ch => safe.push(ch),
        }
    }
    safe
}

/// What is drawn of each family that has a parameter: how it changes with that.
pub const CURVES: [&str; 14] = [
    "adaptive:150",
    "adaptive:300",
    "adaptive:600",
    "adaptive:2400",
    "adaptive:4800",
    "fixed:60",
    "fixed:120",
    "fixed:300",
    "fixed:1200",
    "fixed:3600",
    "fixed:7200",
    "quantile:90",
    "quantile:95",
    "quantile:99.9",
];

/// The policies of [`CURVES`].
#[must_use]
pub fn curves() -> Vec<Choice> {
    CURVES.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Options, Synthetic, run};
    use super::*;

    fn reports() -> (Vec<Report>, Clairvoyant) {
        let trace = Synthetic {
            apps: 10,
            ..super::super::Generator::Sparse.with(1)
        };
        let trace = trace.trace().expect("a trace");
        let clairvoyant = Clairvoyant::of(&trace);
        let run = |policy| run(&trace, &Options::new(policy), &clairvoyant, &mut |_| ());
        let policies = Choice::ALL.into_iter().chain(curves());
        (policies.map(run).collect(), clairvoyant)
    }

    #[test]
    fn every_policy_has_its_mark_in_the_picture_and_a_title_is_no_markup() {
        let (reports, clairvoyant) = reports();
        let picture = plot(&reports, &clairvoyant, "a <script>");
        assert!(!picture.contains("<script"), "{picture}");
        for report in &reports {
            let tip = format!("<title>{}: ", report.policy);
            assert!(picture.contains(&tip), "{tip} is not in\n{picture}");
        }
        let rings = picture.matches("class=\"ring\"").count() - 1;
        let front = reports.iter().filter(|one| is_front(one, &reports));
        assert_eq!(rings, front.count());
        assert!(rings > 0);
        for name in ["cx=\"", " x=\""] {
            for value in picture.split(name).skip(1) {
                let value = value.split('"').next().expect("a value");
                let value: f64 = value.parse().expect("a number");
                assert!((0.0..=SIZE.0).contains(&value), "{value}");
            }
        }
    }

    #[test]
    fn ticks_are_round_and_numbers_short() {
        assert_eq!(ticks((3.0, 60.0)), [5.0, 10.0, 20.0, 50.0]);
        for (value, text) in [
            (0.0, "0"),
            (0.05, "0.05"),
            (2.5, "2.5"),
            (20.0, "20"),
            (5e3, "5k"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn nothing_at_all_is_a_picture_too() {
        let (_, clairvoyant) = reports();
        assert!(plot(&[], &clairvoyant, "nothing").ends_with("</svg>\n"));
    }
}
