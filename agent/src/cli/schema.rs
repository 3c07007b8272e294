//! Holds `docs/schema/cold-start.schema.json` to what is printed: the schema is written by hand
//! for those who read it, so that only a test can keep it true.

use serde_json::Value;

use super::samples;
use crate::observe::cold_start::{ColdStart, PhaseName, Ready};

const SCHEMA: &str = include_str!("../../../docs/schema/cold-start.schema.json");

/// What of `value` is not as `schema` says. Knows the keywords that our schema uses, fails on
/// others, and takes a member that the schema does not describe as a fault: `--json` prints
/// nothing undocumented.
fn faults(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("{at}: {what}"));
    let mut inner: Vec<(&Value, &Value, String)> = Vec::new();
    for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "$schema" | "$id" | "$defs" | "title" | "description" | "additionalProperties" => {}
            "$ref" => {
                let pointer = wanted
                    .as_str()
                    .expect("a reference")
                    .trim_start_matches('#');
                inner.push((root.pointer(pointer).expect(pointer), value, at.to_owned()));
            }
            "type" => {
                let one = [wanted.clone()];
                let types = wanted.as_array().map_or(&one[..], Vec::as_slice);
                if !types
                    .iter()
                    .any(|name| is(value, name.as_str().expect("a type")))
                {
                    fault(format!("{value} is not {wanted}"));
                }
            }
            "enum" => {
                if !wanted.as_array().expect("values").contains(value) {
                    fault(format!("{value} is none of {wanted}"));
                }
            }
            "minimum" | "maximum" => {
                let bound = wanted.as_i64().expect("a bound");
                // What exceeds an i64 is beyond no minimum, and beyond our maximum.
                let number = value.as_i64().or_else(|| value.as_u64().map(|_| i64::MAX));
                let outside = number.is_some_and(|number| match keyword.as_str() {
                    "minimum" => number < bound,
                    _ => number > bound,
                });
                if outside {
                    fault(format!("{value} is beyond the {keyword} {bound}"));
                }
            }
            "uniqueItems" => {
                let items = value.as_array().expect("an array");
                if items
                    .iter()
                    .enumerate()
                    .any(|(index, item)| items[..index].contains(item))
                {
                    fault(format!("{value} repeats itself"));
                }
            }
            "required" => {
                for name in wanted.as_array().expect("names") {
                    if value.get(name.as_str().expect("a name")).is_none() {
                        fault(format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, member) in value.as_object().into_iter().flatten() {
                    match wanted.get(name) {
                        Some(schema) => inner.push((schema, member, format!("{at}.{name}"))),
                        None => fault(format!("{name} is not described")),
                    }
                }
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    inner.push((wanted, item, format!("{at}[{index}]")));
                }
            }
            "anyOf" => {
                let fits = |schema| self::faults(root, schema, value, at).is_empty();
                if !wanted.as_array().expect("schemas").iter().any(fits) {
                    fault(format!("{value} fits nothing of {wanted}"));
                }
            }
            other => panic!("this test does not know the keyword {other}"),
        }
    }
    for (schema, value, at) in inner {
        faults.extend(self::faults(root, schema, value, &at));
    }
    faults
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("this test does not know the type {other}"),
    }
}

/// What of `value` is not as the JSON Schema `text` says.
pub(super) fn faults_of(text: &str, value: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(text).expect("the schema is JSON");
    faults(&schema, &schema, value, "it")
}

fn faults_of_start(value: &Value) -> Vec<String> {
    faults_of(SCHEMA, value)
}

fn json(start: &ColdStart) -> Value {
    serde_json::to_value(start).expect("a start is JSON")
}

#[test]
fn whatever_is_printed_is_described() {
    for start in [
        samples::python(),
        samples::container(),
        samples::waited(),
        samples::failed(),
        samples::empty(),
    ] {
        assert_eq!(faults_of_start(&json(&start)), Vec::<String>::new());
    }
}

#[test]
fn every_word_for_an_end_and_a_phase_is_described() {
    let mut start = samples::python();
    for ready in [
        Ready::Listen,
        Ready::Accept,
        Ready::Notify,
        Ready::Next,
        Ready::File,
        Ready::Uprobe,
        Ready::Exit,
        Ready::Exited,
        Ready::NotReady,
    ] {
        start.ready = ready;
        assert_eq!(faults_of_start(&json(&start)), Vec::<String>::new());
    }
    start.phases[0].merged = PhaseName::ALL.to_vec();
    assert_eq!(faults_of_start(&json(&start)), Vec::<String>::new());
    for part in hearth_abi::Part::ALL {
        let mut start = samples::container();
        start.phases[0].parts[0].name = part.name();
        assert_eq!(faults_of_start(&json(&start)), Vec::<String>::new());
    }
}

#[test]
fn what_is_wrong_is_found() {
    let spoilt = |pointer: &str, value: Value| {
        let mut start = json(&samples::container());
        *start.pointer_mut(pointer).expect(pointer) = value;
        faults_of_start(&start)
    };
    assert_eq!(spoilt("/total_ns", (-1).into()).len(), 1);
    assert_eq!(spoilt("/total_ns", Value::Null).len(), 1);
    assert_eq!(spoilt("/ready", "soon".into()).len(), 1);
    assert_eq!(spoilt("/phases/0/parts/0/name", "cgroups".into()).len(), 1);
    assert_eq!(spoilt("/phases/0/running_ns", "0".into()).len(), 1);
    assert_eq!(spoilt("/identity/pod", 1.into()).len(), 1);
    let mut start = json(&samples::python());
    start["identity"]
        .as_object_mut()
        .expect("an object")
        .remove("pid");
    start["surprise"] = 1.into();
    assert_eq!(faults_of_start(&start).len(), 2);
}
