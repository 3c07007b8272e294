//! What real runtimes make of the variables: asked themselves how large their heaps may be.

use std::process::Command;

use hearth_runtime::heap;

const LIMIT: u64 = 256 << 20;

/// What a command says in an environment for `LIMIT`.
fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .envs(heap::variables(LIMIT, |_| false));
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn node_keeps_its_heap_below_the_limit() {
    let script = "console.log(v8.getHeapStatistics().heap_size_limit)";
    let bytes: u64 = said("node", &["-e", script]).trim().parse().expect("bytes");
    assert!((LIMIT / 2..LIMIT).contains(&bytes), "{bytes}");
}

#[test]
fn the_jvm_keeps_its_heap_below_the_limit() {
    let flags = said("java", &["-XX:+PrintFlagsFinal", "-version"]);
    let line = flags
        .lines()
        .find(|line| line.contains(" MaxHeapSize "))
        .expect("the flag");
    let bytes = line
        .split_whitespace()
        .nth(3)
        .and_then(|bytes| bytes.parse::<u64>().ok());
    let bytes = bytes.expect("bytes");
    assert!((LIMIT / 2..LIMIT).contains(&bytes), "{bytes}");
}
