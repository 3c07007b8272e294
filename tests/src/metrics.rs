//! The text that the agent serves to Prometheus.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value, as it is written.
    pub value: String,
}

/// Everything of one scrape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrape {
    /// In order.
    pub samples: Vec<Sample>,
}

impl Scrape {
    /// Fetches `/metrics`.
    pub fn of(address: SocketAddr) -> Result<Self> {
        let limit = Duration::from_secs(10);
        let mut stream = TcpStream::connect_timeout(&address, limit)
            .with_context(|| format!("connect to {address}"))?;
        stream
            .set_read_timeout(Some(limit))
            .context("set a time limit")?;
        write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").context("ask")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .context("read the answer")?;
        let (head, body) = answer
            .split_once("\r\n\r\n")
            .context("the answer has no body")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200"), "the answer is {status}");
        Self::parse(body)
    }

    /// Reads the text format.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| sample(line).with_context(|| format!("no sample: {line}")))
            .collect::<Result<_>>()?;
        Ok(Self { samples })
    }

    /// The samples of one name that have all of `labels`.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(key, value)| sample.labels.get(*key).is_some_and(|told| told == value))
        })
    }

    /// The sum of the counts of one name that have all of `labels`; an error if there is none.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        let mut counts = self.matching(name, labels).peekable();
        ensure!(
            counts.peek().is_some(),
            "no sample of {name} with {labels:?}"
        );
        counts
            .map(|sample| {
                sample
                    .value
                    .parse::<u64>()
                    .with_context(|| format!("{sample:?}"))
            })
            .sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            if let Some(after) = rest.strip_prefix('}') {
                rest = after;
                break;
            }
            let (key, after) = rest.split_once("=\"")?;
            let (value, after) = quoted(after)?;
            labels.insert(key.to_owned(), value);
            rest = after;
        }
    }
    let value = rest.split_whitespace().next()?.to_owned();
    value.parse::<f64>().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            plain => value.push(plain),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() -> Result<()> {
        let scrape = Scrape::parse(concat!(
            "# HELP hearth_probe_events_total What became of hits\n",
            "# TYPE hearth_probe_events_total counter\n",
            "hearth_probe_events_total{probe=\"fork\",fate=\"seen\"} 12\n",
            "hearth_probe_events_total{probe=\"exec\",fate=\"seen\"} 3\n",
            "hearth_cold_start_duration_seconds_bucket{faas_name=\"a\\\"b, c}\",le=\"+Inf\"} 1\n",
            "up 1 1700000000\n",
        ))?;
        assert_eq!(scrape.samples.len(), 4);
        let seen = |labels: &[_]| scrape.count("hearth_probe_events_total", labels);
        assert_eq!(seen(&[("fate", "seen"), ("probe", "fork")])?, 12);
        assert_eq!(seen(&[("fate", "seen")])?, 15);
        assert!(seen(&[("fate", "lost")]).is_err());
        assert_eq!(scrape.samples[2].labels["faas_name"], "a\"b, c}");
        assert!(Scrape::parse("no sample at all\n").is_err());
        Ok(())
    }
}
