//! A start as a picture: the waterfall in SVG, for documents and reports. It follows the
//! reader's light or dark scheme, and its text is text.

use std::fmt::Write as _;

use super::answer::{answer, notes, outcome};
use super::bar::{Cause, split, sums, union};
use super::figures::{duration, percent};
use super::terminal::{cut, printable, wrap};
use super::waterfall::{abridged, grouped};
use crate::observe::cold_start::{ColdStart, PartSpan, Phase};
use crate::time::{Boottime, Nanos};

/// Width of the picture and of its margins.
const WIDTH: f64 = 960.0;
const MARGIN: f64 = 28.0;
/// Right edges of the columns of figures, and the left one of the bars.
const LENGTH: f64 = 262.0;
const SHARE: f64 = 314.0;
const BARS: f64 = 338.0;
/// Heights of rows and of the bars in them.
const PHASE_ROW: f64 = 32.0;
const PHASE_BAR: f64 = 18.0;
const PART_ROW: f64 = 21.0;
const PART_BAR: f64 = 5.0;
/// Nothing is drawn narrower, or it would not be seen.
const NARROWEST: f64 = 1.5;
/// Characters in a line of text, of a label, of the title.
const LINE: usize = 124;
const LABEL: usize = 22;
const TITLE: usize = 64;

/// Colours by class, first of the light scheme and then of the dark one.
const COLOURS: [(&str, &str, &str); 10] = [
    (
        ".card",
        "fill:#fff;stroke:#d8dee6",
        "fill:#12161c;stroke:#2c343f",
    ),
    ("text", "fill:#1b2430", "fill:#e8ecf2"),
    (".dim", "fill:#5a6675", "fill:#98a4b3"),
    (".grid", "stroke:#e6eaef", "stroke:#262d37"),
    (".running", "fill:#2a9d6f", "fill:#35b985"),
    (".queued", "fill:#e3a008", "fill:#eab52f"),
    (".io", "fill:#3c7fd0", "fill:#5b9bea"),
    (".blocked", "fill:#a56bc9", "fill:#bb86dd"),
    (".unmeasured", "fill:#dfe4ea", "fill:#333c48"),
    (".part", "fill:#7b8794", "fill:#8492a3"),
];

/// Draws one start; `title` is what was started.
#[must_use]
pub fn picture(start: &ColdStart, title: &str) -> String {
    let mut picture = Picture {
        start,
        body: String::new(),
        y: MARGIN,
    };
    picture.heading(title);
    picture.rows();
    picture.legend();
    picture.words();
    picture.finish(title)
}

struct Picture<'a> {
    start: &'a ColdStart,
    body: String,
    /// Where the next thing goes.
    y: f64,
}

impl Picture<'_> {
    fn heading(&mut self, title: &str) {
        self.y += 16.0;
        let title = cut(&printable(title), TITLE);
        self.text(MARGIN, "title", "start", &title);
        let outcome = format!(
            "{} after {}",
            outcome(self.start),
            duration(self.start.total_ns)
        );
        self.text(WIDTH - MARGIN, "outcome", "end", &outcome);
        self.y += 34.0;
    }

    fn rows(&mut self) {
        self.text(MARGIN, "dim", "start", "phase");
        self.text(LENGTH, "dim", "end", "length");
        self.text(SHARE, "dim", "end", "%");
        let ticks = ticks(self.start.total_ns);
        for tick in &ticks {
            let at = Boottime(self.start.begin.0.saturating_add(tick.0));
            let label = if tick.0 == 0 {
                "0".to_owned()
            } else {
                round(*tick)
            };
            self.text(self.x(at), "dim", "middle", &label);
        }
        self.y += 12.0;
        let (top, at) = (self.y, self.body.len());
        for phase in &self.start.phases {
            self.phase(phase);
            for (name, parts) in grouped(&phase.parts) {
                self.part(name, &parts);
            }
        }
        self.y += 4.0;
        // The grid lies behind the bars, but its height is known only now.
        let mut grid = String::new();
        for tick in ticks {
            let x = self.x(Boottime(self.start.begin.0.saturating_add(tick.0)));
            let _ = writeln!(
                grid,
                r#"<path class="grid" d="M{x:.1} {top:.1}V{:.1}"/>"#,
                self.y
            );
        }
        self.body.insert_str(at, &grid);
        self.y += 30.0;
    }

    fn phase(&mut self, phase: &Phase) {
        let top = self.y + (PHASE_ROW - PHASE_BAR) / 2.0;
        let (from, width) = self.span(phase.begin, phase.end);
        let causes = split(phase);
        let told: Vec<String> = causes
            .iter()
            .map(|(cause, time)| format!("{} {}", cause.word(), duration(*time)))
            .collect();
        let tip = format!("{}: {}", phase.label(), told.join(", "));
        let _ = writeln!(self.body, "<g><title>{}</title>", escaped(&tip));
        let mut x = from;
        for (cause, time) in causes {
            let share = width * ratio(time, phase.duration());
            self.rect(class(cause), (x, top), (share, PHASE_BAR));
            x += share;
        }
        self.body.push_str("</g>\n");
        self.y += PHASE_ROW / 2.0 + 4.5;
        self.text(MARGIN, "name", "start", &abridged(&phase.label(), LABEL));
        self.figures(phase.duration(), "");
        self.y += PHASE_ROW / 2.0 - 4.5;
    }

    fn part(&mut self, name: &str, parts: &[&PartSpan]) {
        let top = self.y + (PART_ROW - PART_BAR) / 2.0 - 2.0;
        for part in parts {
            let (from, width) = self.span(part.begin, part.end);
            self.rect("part", (from, top), (width, PART_BAR));
        }
        self.y += PART_ROW / 2.0 + 2.5;
        let times = if parts.len() > 1 {
            format!(" ×{}", parts.len())
        } else {
            String::new()
        };
        self.text(MARGIN + 16.0, "dim", "start", &format!("{name}{times}"));
        self.figures(
            union(parts.iter().map(|part| (part.begin, part.end))),
            "dim",
        );
        self.y += PART_ROW / 2.0 - 2.5;
    }

    fn figures(&mut self, length: Nanos, class: &str) {
        self.text(LENGTH, class, "end", &duration(length));
        let share = percent(length, self.start.total_ns).unwrap_or_default();
        self.text(SHARE, class, "end", &share);
    }

    fn legend(&mut self) {
        let mut x = MARGIN;
        for (cause, time) in sums(self.start) {
            let text = format!("{} {}", cause.word(), duration(time));
            self.rect(class(cause), (x, self.y - 10.0), (12.0, 12.0));
            self.text(x + 19.0, "", "start", &text);
            x += 19.0 + 7.4 * wide(text.chars().count()) + 20.0;
        }
        if x > MARGIN {
            self.y += 20.0;
            let meaning = "A bar shows shares of its phase, not moments in it.";
            self.text(MARGIN, "dim", "start", meaning);
            self.y += 30.0;
        }
    }

    fn words(&mut self) {
        for (class, paragraphs) in [("", answer(self.start)), ("dim", notes(self.start))] {
            for paragraph in paragraphs {
                for line in wrap(&paragraph, LINE, "") {
                    self.text(MARGIN, class, "start", &line);
                    self.y += 19.0;
                }
                self.y += 6.0;
            }
        }
    }

    fn finish(self, title: &str) -> String {
        let height = self.y + MARGIN - 20.0;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
             width=\"{WIDTH}\" height=\"{height:.0}\" role=\"img\" \
             aria-labelledby=\"hearth-title hearth-desc\">\n\
             <title id=\"hearth-title\">Cold start of {}</title>\n\
             <desc id=\"hearth-desc\">{}</desc>\n<style>\n\
             text{{font:13px system-ui,-apple-system,\"Segoe UI\",Roboto,\"DejaVu Sans\",sans-serif;\
             font-variant-numeric:tabular-nums}}\n\
             .title{{font-size:17px;font-weight:600}}\n.name{{font-weight:600}}\n\
             .outcome{{font-size:15px}}\n.dim{{font-size:12px}}\n.grid{{stroke-width:1}}\n",
            escaped(&cut(&printable(title), TITLE)),
            escaped(&answer(self.start).join(" ")),
        );
        for (selector, light, _) in COLOURS {
            let _ = writeln!(text, "{selector}{{{light}}}");
        }
        text.push_str("@media (prefers-color-scheme:dark){\n");
        for (selector, _, dark) in COLOURS {
            let _ = writeln!(text, "{selector}{{{dark}}}");
        }
        let _ = write!(
            text,
            "}}\n</style>\n<rect class=\"card\" x=\".5\" y=\".5\" width=\"{}\" height=\"{:.0}\" rx=\"10\"/>\n\
             {}</svg>\n",
            WIDTH - 1.0,
            height - 1.0,
            self.body
        );
        text
    }

    fn text(&mut self, x: f64, class: &str, anchor: &str, text: &str) {
        let class = if class.is_empty() {
            String::new()
        } else {
            format!(r#" class="{class}""#)
        };
        let anchor = if anchor == "start" {
            String::new()
        } else {
            format!(r#" text-anchor="{anchor}""#)
        };
        let _ = writeln!(
            self.body,
            r#"<text x="{x:.1}" y="{:.1}"{class}{anchor}>{}</text>"#,
            self.y,
            escaped(text)
        );
    }

    fn rect(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        let _ = writeln!(
            self.body,
            r#"<rect class="{class}" x="{x:.2}" y="{y:.1}" width="{width:.2}" height="{height}"/>"#
        );
    }

    fn x(&self, at: Boottime) -> f64 {
        let offset = Nanos(at.since(self.start.begin).0.min(self.start.total_ns.0));
        BARS + (WIDTH - MARGIN - BARS) * ratio(offset, self.start.total_ns)
    }

    /// Left edge and width, on the axis and wide enough to be seen.
    fn span(&self, begin: Boottime, end: Boottime) -> (f64, f64) {
        let (from, to) = (self.x(begin), self.x(end));
        let from = from.min(WIDTH - MARGIN - NARROWEST);
        (from, (to - from).max(NARROWEST))
    }
}

const fn class(cause: Cause) -> &'static str {
    match cause {
        Cause::Unmeasured => "unmeasured",
        cause => cause.word(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a place in a picture")]
fn ratio(part: Nanos, whole: Nanos) -> f64 {
    if whole.0 == 0 {
        0.0
    } else {
        part.0 as f64 / whole.0 as f64
    }
}

fn wide(characters: usize) -> f64 {
    f64::from(u16::try_from(characters).unwrap_or(u16::MAX))
}

/// Round times along the axis, steps of 1, 2 or 5, four to ten of them.
fn ticks(total: Nanos) -> Vec<Nanos> {
    let mut step = 1_u64;
    for (times, over) in [(2, 1), (5, 2), (2, 1)].into_iter().cycle() {
        if total.0 / step <= 8 {
            break;
        }
        step = step / over * times;
    }
    (0..=total.0 / step)
        .map(|index| Nanos(index * step))
        .collect()
}

/// A round time without the zeros behind its point: `20 ms`, `2.5 s`.
fn round(time: Nanos) -> String {
    let text = duration(time);
    match text.split_once(' ') {
        Some((figure, unit)) if figure.contains('.') => {
            format!(
                "{} {unit}",
                figure.trim_end_matches('0').trim_end_matches('.')
            )
        }
        _ => text,
    }
}

/// As XML's character data and attributes take it.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for ch in printable(text).chars() {
        match ch {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            ch => safe.push(ch),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::answer::name;
    use super::super::samples::{self, golden};
    use super::*;

    /// Values of an attribute of all bars.
    fn numbers(svg: &str, attribute: &str) -> Vec<f64> {
        svg.lines()
            .filter(|line| line.starts_with("<rect") && !line.contains("card"))
            .map(|line| {
                let (_, rest) = line
                    .split_once(&format!(" {attribute}=\""))
                    .expect("the attribute");
                rest.split('"')
                    .next()
                    .expect("a value")
                    .parse()
                    .expect("a number")
            })
            .collect()
    }

    #[test]
    fn pictures_are_as_they_were_looked_at() {
        golden(
            "waterfall.svg",
            &picture(&samples::python(), "python3 app.py"),
        );
        let container = samples::container();
        golden(
            "container.svg",
            &picture(&container, &name(&container.identity)),
        );
        let failed = samples::failed();
        golden("failed.svg", &picture(&failed, &name(&failed.identity)));
    }

    #[test]
    fn a_name_cannot_become_markup() {
        let svg = picture(
            &samples::failed(),
            "</text><script>alert(\"1\")</script>\u{1}",
        );
        assert!(!svg.contains("<script") && !svg.contains('\u{1}'), "{svg}");
    }

    #[test]
    fn ticks_are_round() {
        let of = |total| {
            ticks(Nanos(total))
                .into_iter()
                .map(round)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(48_212_000), ["0 ns", "10 ms", "20 ms", "30 ms", "40 ms"]);
        assert_eq!(of(83_000_000).len(), 9);
        assert_eq!(of(1_500_000_000).len(), 8);
        assert_eq!(of(0), ["0 ns"]);
    }

    proptest! {
        #[test]
        fn bars_stay_in_the_picture(start in samples::any_start(), title: String) {
            let svg = picture(&start, &title);
            for (x, width) in numbers(&svg, "x").into_iter().zip(numbers(&svg, "width")) {
                prop_assert!(x >= MARGIN && width >= 0.0 && x + width <= WIDTH - MARGIN + 0.02);
            }
            prop_assert!(ticks(start.total_ns).len() <= 11);
        }
    }
}
