//! A capture as who finds its file reads it: JSON after a header.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Length of the header, as `docs/schema` has it.
const HEADER_BYTES: usize = 32;

/// One capture.
pub(super) struct Captured {
    /// When the victim was chosen, on the boot clock.
    pub(super) killed_ns: u64,
    /// The victim.
    pub(super) pid: u32,
    /// The victim's own cgroup, if the capture has its path.
    pub(super) cgroup: Option<String>,
    json: Value,
}

/// How often a field was there: once a capture at the most, or once a thread, frame, mapping.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Had {
    /// With a value.
    pub(super) present: u64,
    /// At all.
    pub(super) asked: u64,
    /// Why it had none, the last time.
    pub(super) reason: Option<String>,
}

impl Had {
    fn note(&mut self, absent: Option<&str>) {
        self.asked += 1;
        self.present += u64::from(absent.is_none());
        self.reason = absent.map(str::to_owned).or(self.reason.take());
    }
}

impl Captured {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
        let body = bytes.get(HEADER_BYTES..).context("it is cut off")?;
        Self::of(serde_json::from_slice(body)?)
    }

    fn of(json: Value) -> Result<Self> {
        let number = |at: &str| json.pointer(at).and_then(Value::as_u64);
        Ok(Self {
            killed_ns: number("/killed_ns").context("it has no time")?,
            pid: number("/victim/pid")
                .and_then(|pid| pid.try_into().ok())
                .context("it has no victim")?,
            cgroup: json
                .pointer("/victim/cgroup/path/value")
                .and_then(Value::as_str)
                .map(str::to_owned),
            json,
        })
    }

    /// Addresses of this thread's user stack, innermost first, if the capture has it.
    pub(super) fn user_stack(&self, tid: u32) -> Option<Vec<u64>> {
        let threads = self.json.get("threads")?.as_array()?;
        let thread = threads
            .iter()
            .find(|thread| thread["tid"].as_u64() == Some(tid.into()))?;
        let frames = thread.pointer("/user_stack/value")?.as_array()?;
        frames
            .iter()
            .map(|frame| u64::from_str_radix(frame["ip"].as_str()?.strip_prefix("0x")?, 16).ok())
            .collect()
    }
}

/// How often each field was there that can be absent, by its path.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, Had>);

impl Fields {
    /// Counts those of one capture.
    pub(super) fn note(&mut self, captured: &Captured) {
        walk("", &captured.json, &mut self.0);
        let completeness = captured.json["completeness"].as_str().unwrap_or("?");
        let had = self.0.entry("completeness".to_owned()).or_default();
        had.note((completeness != "complete").then_some(completeness));
    }

    /// All of them, by path.
    pub(super) fn all(&self) -> impl Iterator<Item = (&String, &Had)> {
        self.0.iter()
    }
}

/// Notes the fields at and below `path`.
fn walk(path: &str, value: &Value, noted: &mut BTreeMap<String, Had>) {
    match value {
        Value::Object(members) => {
            let only = (members.len() == 1)
                .then(|| members.iter().next())
                .flatten();
            match only {
                Some((key, inner)) if key == "value" => {
                    noted.entry(path.to_owned()).or_default().note(None);
                    walk(path, inner, noted);
                }
                Some((key, why)) if key == "absent" => {
                    let reason = why["reason"].as_str().unwrap_or("?");
                    noted.entry(path.to_owned()).or_default().note(Some(reason));
                }
                _ => {
                    for (key, inner) in members {
                        let separator = if path.is_empty() { "" } else { "." };
                        walk(&format!("{path}{separator}{key}"), inner, noted);
                    }
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|inner| walk(path, inner, noted)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn captured(stack: &Value) -> Result<Captured> {
        Captured::of(json!({
            "killed_ns": 5, "completeness": "complete", "victim": {"pid": 7, "uid": {"value": 0}},
            "threads": [
                {"tid": 7, "user_stack": {"value": [{"ip": "0x40", "mapping": {"value": 0}}]}},
                {"tid": 8, "user_stack": stack},
            ],
        }))
    }

    #[test]
    fn fields_are_counted_where_they_occur() -> Result<()> {
        let whole = captured(&json!({"value": []}))?;
        let part = captured(&json!({"absent": {"reason": "lost", "detail": ""}}))?;
        let mut fields = Fields::default();
        fields.note(&whole);
        fields.note(&part);
        let fields = fields.0;
        let stacks = &fields["threads.user_stack"];
        assert_eq!((stacks.present, stacks.asked), (3, 4));
        assert_eq!(stacks.reason.as_deref(), Some("lost"));
        assert_eq!(fields["victim.uid"].present, 2);
        assert_eq!(fields["threads.user_stack.mapping"].present, 2);
        assert_eq!(fields["completeness"].present, 2);
        Ok(())
    }

    #[test]
    fn a_stack_is_that_of_the_thread() -> Result<()> {
        let captured = captured(&json!({"absent": {"reason": "lost", "detail": ""}}))?;
        assert_eq!(captured.user_stack(7), Some(vec![0x40]));
        assert_eq!(captured.user_stack(8), None);
        assert_eq!(captured.user_stack(9), None);
        Ok(())
    }
}
