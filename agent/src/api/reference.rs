//! Holds `docs/schema/api.openapi.json` and `docs/api.md` to what is served: both are written from
//! the document, `HEARTH_BLESS=1` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::document::document;

#[track_caller]
fn golden(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(path);
    if std::env::var_os("HEARTH_BLESS").is_some() {
        std::fs::write(&path, text).expect("a writable file");
    }
    let kept = std::fs::read_to_string(&path).expect("a file; HEARTH_BLESS=1 writes it");
    assert_eq!(
        text,
        kept,
        "{} differs; HEARTH_BLESS=1 writes it",
        path.display()
    );
}

fn json() -> Value {
    serde_json::to_value(document()).expect("JSON")
}

#[test]
fn the_document_is_the_one_that_is_published() {
    let text = serde_json::to_string_pretty(&json()).expect("JSON") + "\n";
    golden("schema/api.openapi.json", &text);
}

#[test]
fn the_reference_is_the_document_for_people() {
    golden("api.md", &reference(&json()));
}

fn reference(document: &Value) -> String {
    let mut text = String::from(
        "<!-- Written from the types: HEARTH_BLESS=1 cargo test -p hearth --lib api::reference -->\n\
         # The API of functions\n\n\
         HTTP on the Unix socket `functions.api_socket` (`/run/hearth/api.sock`), for its owner. The\n\
         same as an OpenAPI 3.1 document: [schema/api.openapi.json](schema/api.openapi.json), or\n\
         `curl --unix-socket /run/hearth/api.sock http://localhost/v1/openapi.json`. What functions\n\
         are, and what each problem means: [functions.md](functions.md).\n",
    );
    for (path, methods) in members(&document["paths"]) {
        for (method, about) in members(methods) {
            operation(&mut text, &method.to_uppercase(), path, about);
        }
    }
    text.push_str("\n# Types\n");
    for (name, schema) in members(&document["components"]["schemas"]) {
        let _ = write!(text, "\n## {name}\n\n{}\n", described(schema));
        let parts = schema["allOf"].as_array().cloned().unwrap_or_default();
        for part in &parts {
            if let Some(other) = part["$ref"].as_str() {
                let _ = write!(text, "\nAll of {}, and:\n", link(other));
            }
        }
        let own = parts.iter().find(|part| part.get("properties").is_some());
        let properties = &own.unwrap_or(schema)["properties"];
        let required = own.unwrap_or(schema)["required"].as_array().cloned();
        if properties.is_object() {
            text.push_str("\n| member | type | |\n|---|---|---|\n");
        }
        for (member, about) in members(properties) {
            let is_required = required.iter().flatten().any(|name| name == member);
            let optional = if is_required { "" } else { ", optional" };
            let _ = writeln!(
                text,
                "| `{member}` | {}{optional} | {} |",
                kind(about),
                described(about).replace('\n', " ")
            );
        }
        let words = values(schema);
        if !words.is_empty() {
            let _ = write!(text, "\nOne of {words}.\n");
        }
    }
    text
}

fn operation(text: &mut String, method: &str, path: &str, about: &Value) {
    let said = [&about["summary"], &about["description"]];
    let said: Vec<&str> = said.iter().filter_map(|said| said.as_str()).collect();
    let _ = write!(text, "\n## {method} {path}\n\n{}\n", said.join("\n\n"));
    for parameter in about["parameters"].as_array().into_iter().flatten() {
        let place = parameter["in"].as_str().unwrap_or_default();
        let _ = write!(
            text,
            "\n- `{}` ({place}): {}",
            parameter["name"].as_str().unwrap_or_default(),
            described(parameter)
        );
    }
    if about["parameters"].is_array() {
        text.push('\n');
    }
    for (kind_of, content) in members(&about["requestBody"]["content"]) {
        let _ = write!(text, "\nBody: `{kind_of}`, {}.\n", kind(&content["schema"]));
    }
    text.push_str("\n| status | body | |\n|---|---|---|\n");
    for (status, response) in members(&about["responses"]) {
        let bodies = members(&response["content"]);
        let bodies: Vec<String> = bodies
            .map(|(name, content)| format!("`{name}`, {}", kind(&content["schema"])))
            .collect();
        let _ = writeln!(
            text,
            "| {status} | {} | {} |",
            bodies.join(" "),
            described(response)
        );
    }
    for (status, response) in members(&about["responses"]) {
        let headers: Vec<String> = members(&response["headers"])
            .map(|(name, header)| format!("- `{name}`: {}\n", described(header)))
            .collect();
        if !headers.is_empty() {
            let _ = write!(text, "\nHeaders of {status}:\n\n{}", headers.concat());
        }
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn described(value: &Value) -> &str {
    value["description"].as_str().unwrap_or_default()
}

fn link(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or_default();
    format!("[{name}](#{})", name.to_lowercase())
}

/// The words that it may be, each with what it means.
fn values(schema: &Value) -> String {
    let plain = schema["enum"].as_array().into_iter().flatten();
    let plain = plain.map(|word| format!("`{}`", word.as_str().unwrap_or_default()));
    let explained = schema["oneOf"].as_array().into_iter().flatten();
    let explained = explained.map(|one| {
        let word = one["enum"][0].as_str().unwrap_or_default();
        format!("`{word}` ({})", described(one).trim_end_matches('.'))
    });
    plain.chain(explained).collect::<Vec<_>>().join(", ")
}

fn kind(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return link(reference);
    }
    let alternatives = schema["oneOf"].as_array();
    if let Some(of) = alternatives.and_then(|all| all.iter().find(|one| one.get("$ref").is_some()))
    {
        return kind(of);
    }
    let types = match &schema["type"] {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    };
    let name = types
        .iter()
        .filter_map(Value::as_str)
        .find(|name| *name != "null");
    match name {
        Some("array") => format!("array of {}", kind(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("object of {}", kind(&schema["additionalProperties"]))
        }
        Some(name) => name.to_owned(),
        None => "JSON".to_owned(),
    }
}
