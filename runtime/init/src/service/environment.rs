//! What a function finds in its environment beside what its owner put there.

use std::net::SocketAddr;

use hearth_runtime::heap;
use hearth_runtime::id::SandboxId;
use hearth_runtime::sandbox::start::Start;

/// The owner's, then those of the Runtime API and of an ordinary process, of which none replaces
/// one of the owner's.
pub(super) fn of(start: &Start, sandbox: SandboxId, api: SocketAddr) -> Vec<(String, String)> {
    let mut all = start.program.environment.clone();
    let mut add = |name: &str, value: String| {
        if !all.iter().any(|(set, _)| set == name) {
            all.push((name.to_owned(), value));
        }
    };
    add("AWS_LAMBDA_RUNTIME_API", api.to_string());
    add("AWS_LAMBDA_FUNCTION_NAME", start.function.to_string());
    add("AWS_LAMBDA_FUNCTION_VERSION", start.version.to_string());
    // Runtimes do not start without it: without a limit it is what the node has.
    let memory = start.memory_bytes.unwrap_or_else(memory_of_the_node) >> 20;
    add("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory.to_string());
    add("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned());
    add(
        "AWS_LAMBDA_LOG_GROUP_NAME",
        format!("/hearth/{}", start.function),
    );
    add("AWS_LAMBDA_LOG_STREAM_NAME", sandbox.to_string());
    let directory = start.program.directory.to_string_lossy();
    add("LAMBDA_TASK_ROOT", directory.into_owned());
    for (name, value) in [
        (
            "PATH",
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        ("HOME", "/tmp"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TZ", "UTC"),
    ] {
        add(name, value.to_owned());
    }
    if let Some(limit) = start.memory_bytes {
        for (name, value) in heap::variables(limit, |_| false) {
            add(name, value);
        }
    }
    all
}

fn memory_of_the_node() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(info.mem_unit.into())
}
