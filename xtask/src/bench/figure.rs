//! One measured number, and how it is printed.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// Which way a figure improves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// One measured number, alone or beside a peer's that was measured in turn with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    #[serde(rename = "figure")]
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: Cow<'static, str>,
    /// How many measurements the value is made of.
    pub(crate) n: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_value: Option<f64>,
    /// Ours : peer, the mean over pairs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// Half of the ratio's 95 % confidence interval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) half_width: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) better: Option<Better>,
    /// Measured in an emulator: the direction tells, the size does not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) indicative: bool,
}

impl Figure {
    /// A number without a peer.
    pub(crate) fn alone(name: impl Into<String>, value: f64, unit: &'static str, n: usize) -> Self {
        Self {
            name: name.into(),
            value,
            unit: unit.into(),
            n,
            peer: None,
            peer_value: None,
            ratio: None,
            half_width: None,
            better: None,
            indicative: false,
        }
    }

    /// The same number with its good direction.
    pub(crate) fn better(self, better: Better) -> Self {
        Self {
            better: Some(better),
            ..self
        }
    }

    fn row(&self) -> String {
        let peer = match (&self.peer, self.peer_value, self.ratio, self.half_width) {
            (Some(peer), Some(value), Some(ratio), half_width) => format!(
                "{peer} {} -> {ratio:.4}{}",
                number(value),
                half_width.map_or_else(String::new, |half| format!(" +- {half:.4}"))
            ),
            _ => String::new(),
        };
        let value = number(self.value);
        let mark = if self.indicative {
            "  (indicative)"
        } else {
            ""
        };
        let row = format!(
            "{:<52} {value:>12} {:<9} {:>5}  {peer}{mark}",
            self.name, self.unit, self.n
        );
        row.trim_end().to_owned()
    }
}

/// With as many digits as one reads.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 10.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// Prints each figure as soon as it is known, so that a run that is cut short has told something.
pub(crate) struct Printer {
    json: bool,
    has_head: bool,
}

impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            has_head: json,
        }
    }

    pub(crate) fn print(&mut self, figure: &Figure) -> anyhow::Result<()> {
        if !self.has_head {
            self.has_head = true;
            println!(
                "{:<52} {:>12} {:<9} {:>5}  peer -> ratio",
                "figure", "value", "unit", "n"
            );
        }
        if self.json {
            println!("{}", serde_json::to_string(figure)?);
        } else {
            println!("{}", figure.row());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_apply_is_not_told() -> anyhow::Result<()> {
        let figure = Figure::alone("memory", 2.5, "MiB", 3).better(Better::Lower);
        let json = r#"{"figure":"memory","value":2.5,"unit":"MiB","n":3,"better":"lower"}"#;
        assert_eq!(serde_json::to_string(&figure)?, json);
        Ok(())
    }

    #[test]
    fn what_an_emulator_gave_says_so_and_comes_through_whole() -> anyhow::Result<()> {
        let mut figure = Figure::alone("throughput", 1500.0, "1/s", 8);
        figure.indicative = true;
        assert!(figure.row().ends_with("(indicative)"));
        let json = serde_json::to_string(&figure)?;
        assert!(json.ends_with(r#""indicative":true}"#), "{json}");
        assert_eq!(serde_json::from_str::<Figure>(&json)?, figure);
        Ok(())
    }

    #[test]
    fn a_row_has_the_peer_and_the_ratio() {
        let mut figure = Figure::alone("throughput", 1500.0, "1/s", 8);
        figure.peer = Some("off".into());
        figure.peer_value = Some(1510.0);
        figure.ratio = Some(0.9934);
        figure.half_width = Some(0.002);
        let row = figure.row();
        assert!(row.ends_with("off 1510 -> 0.9934 +- 0.0020"), "{row}");
    }
}
