//! Times in which a function is to be warm, whatever was asked of it before.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Local, TimeZone};
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::config::Period;

/// Windows of one function.
const MAX_WINDOWS: usize = 32;
/// The longest of them.
const LONGEST: Duration = Duration::from_hours(7 * 24);
/// How long it may be until it is looked again: the time zone may have changed.
const LOOK: Duration = Duration::from_hours(1);

/// A time in which sandboxes are there that nobody has asked for yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// When it begins: minute, hour, day of the month, month and day of the week, as in a crontab, in
    /// the node's time zone.
    #[schema(example = "0 8 * * MON-FRI")]
    pub at: String,
    /// How long it is, up to a week.
    #[serde(rename = "for")]
    #[schema(value_type = String, example = "10h")]
    pub length: Period,
    /// How many sandboxes there are in it at least, at work or not.
    pub instances: u32,
}

/// What was made of the windows of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// Of this version.
    version: u32,
    /// It holds from then on.
    from: SystemTime,
    /// Until then.
    until: SystemTime,
    /// How many are wanted.
    pub(super) instances: u32,
}

impl Said {
    /// As it is now; what was said before where that holds still.
    pub(super) fn now(
        before: Option<Self>,
        version: u32,
        windows: &[Window],
        now: SystemTime,
    ) -> Self {
        // A clock that was set back is another time, too.
        let holds = |said: &Self| said.version == version && (said.from..said.until).contains(&now);
        if let Some(said) = before.filter(holds) {
            return said;
        }
        let (instances, change) = wanted(windows, &DateTime::<Local>::from(now));
        let change = change.map_or(now + LOOK, SystemTime::from);
        Self {
            version,
            from: now,
            until: change.clamp(now + Duration::from_millis(1), now + LOOK),
            instances,
        }
    }
}

fn parse(at: &str) -> Result<Cron, String> {
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(at)
        .map_err(|error| error.to_string())
}

/// How many are wanted at a time, and when that may change.
fn wanted<Z: TimeZone>(windows: &[Window], now: &DateTime<Z>) -> (u32, Option<DateTime<Z>>) {
    let mut instances = 0;
    let mut changes = Vec::new();
    for window in windows {
        // They were checked when the function was deployed.
        let Ok(cron) = parse(&window.at) else {
            continue;
        };
        // None where it never was, or will never be.
        let last = cron.find_previous_occurrence(now, true).ok();
        let end = last.and_then(|last| last.checked_add_signed(window.signed()?));
        if let Some(end) = end.filter(|end| end > now) {
            instances = instances.max(window.instances);
            changes.push(end);
        }
        changes.extend(cron.find_next_occurrence(now, false));
    }
    (instances, changes.into_iter().min())
}

impl Window {
    fn signed(&self) -> Option<chrono::TimeDelta> {
        chrono::TimeDelta::from_std(self.length.0).ok()
    }
}

/// Whether they can be, for a function that has so many sandboxes at most.
pub(super) fn check(windows: &[Window], most: u32) -> Result<(), Problem> {
    if windows.len() > MAX_WINDOWS {
        return Err(Problem::field(
            "schedule",
            format!("{} windows", windows.len()),
            format!("a function has at most {MAX_WINDOWS}"),
            "put several days or hours into one, such as \"0 8,14 * * MON-FRI\"",
        ));
    }
    for (index, window) in windows.iter().enumerate() {
        let field = |name: &str| format!("schedule[{index}].{name}");
        if let Err(why) = parse(&window.at) {
            let remedy =
                "write minute, hour, day, month and day of the week, such as \"0 8 * * MON-FRI\"";
            return Err(Problem::field(field("at"), &window.at, why, remedy));
        }
        if window.length.0 < Duration::from_secs(1) || window.length.0 > LONGEST {
            let remedy = "use \"1s\" to \"7days\"";
            return Err(Problem::field(
                field("for"),
                window.length,
                "no length of a window",
                remedy,
            ));
        }
        if !(1..=most).contains(&window.instances) {
            return Err(Problem::field(
                field("instances"),
                window.instances,
                format!("there are at most {most}"),
                "use 1 and more, or raise `max_instances`",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn window(at: &str, length: u64, instances: u32) -> Window {
        Window {
            at: at.to_owned(),
            length: Period(Duration::from_secs(length)),
            instances,
        }
    }

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().expect("a time")
    }

    #[test]
    fn a_window_is_open_from_its_beginning_for_its_length_and_the_largest_counts() {
        let windows = [
            window("0 8 * * MON-FRI", 10 * 3600, 3),
            window("30 9 * * *", 1800, 5),
        ];
        // A Thursday.
        for (now, instances, change) in [
            ("2026-01-01T07:59:59Z", 0, "2026-01-01T08:00:00Z"),
            ("2026-01-01T08:00:00Z", 3, "2026-01-01T09:30:00Z"),
            ("2026-01-01T09:30:00Z", 5, "2026-01-01T10:00:00Z"),
            ("2026-01-01T10:00:00Z", 3, "2026-01-01T18:00:00Z"),
            ("2026-01-01T18:00:00Z", 0, "2026-01-02T08:00:00Z"),
            ("2026-01-03T08:00:00Z", 0, "2026-01-03T09:30:00Z"),
        ] {
            assert_eq!(
                wanted(&windows, &at(now)),
                (instances, Some(at(change))),
                "{now}"
            );
        }
        assert_eq!(wanted(&[], &at("2026-01-01T00:00:00Z")), (0, None));
    }

    #[test]
    fn a_window_that_cannot_be_is_refused() {
        for (window, field, words) in [
            (
                window("0 8 * *", 60, 1),
                "schedule[0].at",
                "day of the week",
            ),
            (window("0 0 8 * * *", 60, 1), "schedule[0].at", "minute"),
            (window("61 8 * * *", 60, 1), "schedule[0].at", "minute"),
            (window("0 8 * * *", 0, 1), "schedule[0].for", "1s"),
            (
                window("0 8 * * *", 60, 11),
                "schedule[0].instances",
                "max_instances",
            ),
            (
                window("0 8 * * *", 60, 0),
                "schedule[0].instances",
                "1 and more",
            ),
        ] {
            let problem = check(&[window], 10).expect_err(field);
            assert_eq!(problem.field.as_deref(), Some(field));
            assert!(problem.to_string().contains(words), "{problem}");
        }
        check(&[window("*/5 8-18 1,15 JAN-MAR mon", 60, 10)], 10).expect("a window");
    }
}
