//! Functions at work, by the public runtimes, unmodified.

use anyhow::{Result, ensure};
use hearth_runtime::channel::MAX_BODY;
use hearth_runtime::sandbox::backend::{Cancel, Outcome};
use hearth_tests::node::{Language, Node, PATIENCE};
use serde_json::{Value, json};

use crate::scene::Instance;

#[test]
fn each_language_answers_again_and_again_and_is_gone_when_it_is_ended() -> Result<()> {
    let node = Node::start("answers", 1)?;
    node.parked(1)?;
    let before = node.remains()?;
    for language in Language::ALL {
        let mut instance = Instance::ready(&node, &language.start()?)?;
        for number in 0..3 {
            let event = json!({ "number": number });
            let (request, answer) = instance.answer(&event)?;
            if language == Language::Shell {
                assert_eq!(answer, event);
                continue;
            }
            assert_eq!(answer["echo"], event, "{language:?}");
            assert_eq!(answer["request"], Value::String(request.to_string()));
        }
        ensure!(!instance.log.is_empty(), "{language:?} wrote nothing");
        instance.end()?;
    }
    node.parked(1)?;
    node.settled(&before)
}

#[test]
fn an_error_of_the_function_is_told_in_its_own_words_and_it_goes_on() -> Result<()> {
    let node = Node::start("errors", 1)?;
    for (language, kind, words) in [
        // awslambdaric says the type of an error in the body alone.
        (Language::Rust, "", "as I was told"),
        (Language::Python, "", "ValueError"),
        (Language::Shell, "Shell.Told", "as I was told"),
    ] {
        let mut instance = Instance::ready(&node, &language.start()?)?;
        let (told, said) = instance.failure(&json!({"do": "fail"}), PATIENCE)?;
        assert!(told.contains(kind), "{language:?}: {told}");
        assert!(said.contains(words), "{language:?}: {said}");
        instance.answer(&json!({"again": true}))?;
        instance.end()?;
    }
    Ok(())
}

#[test]
fn what_a_function_writes_comes_before_its_answer() -> Result<()> {
    let node = Node::start("logs", 1)?;
    for language in [Language::Rust, Language::Python] {
        let mut instance = Instance::ready(&node, &language.start()?)?;
        instance.log.clear();
        instance.answer(&json!({"do": "log"}))?;
        for line in ["to standard output", "to standard error"] {
            assert!(
                instance.log.contains(line),
                "{language:?}: {}",
                instance.log
            );
        }
        instance.end()?;
    }
    Ok(())
}

#[test]
fn payloads_of_six_mebibytes_pass_and_larger_ones_are_refused_by_name() -> Result<()> {
    let node = Node::start("payload", 1)?;
    let mut instance = Instance::ready(&node, &Language::Rust.start()?)?;
    // The answer is JSON: two quotes around it.
    let largest = json!({"do": "large", "bytes": MAX_BODY - 2});
    let (_, answer) = instance.answer(&largest)?;
    assert_eq!(answer.as_str().map(str::len), Some(MAX_BODY - 2));
    let (kind, said) =
        instance.failure(&json!({"do": "large", "bytes": MAX_BODY - 1}), PATIENCE)?;
    assert_eq!(kind, "Function.ResponseSizeTooLarge", "{said}");
    let event = serde_json::to_vec(&Value::String("x".repeat(MAX_BODY - 2)))?;
    let told = instance.invoke(&event, PATIENCE, &Cancel::new()?)?.1;
    assert!(matches!(
        told,
        Outcome::Answered(_) | Outcome::Failed { .. }
    ));
    let event = vec![b'x'; MAX_BODY + 1];
    let told = instance.invoke(&event, PATIENCE, &Cancel::new()?);
    let told = told.map(|_| ()).map_err(|error| error.to_string());
    assert!(
        told.as_ref().is_err_and(|told| told.contains("6291456")),
        "{told:?}"
    );
    // Refused before it was sent: the function is as it was.
    instance.answer(&json!({"still": "here"}))?;
    instance.end()?;
    Ok(())
}
