//! What garbage collectors are told of a sandbox's memory limit. They do not see it themselves,
//! since no cgroup file system is mounted in a sandbox; left alone they size their heaps by the
//! node's memory, and are killed.

/// Environment variables for a limit of `limit` bytes, of those that `is_set` says nobody set: what
/// a function's owner chose stands.
///
/// - `GOMEMLIMIT`: nine tenths. It is a soft limit of all that the Go runtime manages; the rest is
///   for what it does not (cgo, mapped files).
/// - `JAVA_TOOL_OPTIONS`: a heap of seven tenths; metaspace, code, stacks and buffers come on top.
/// - `NODE_OPTIONS`: an old space of three quarters; the young one and buffers come on top.
#[must_use]
pub fn variables(limit: u64, is_set: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
    let mebibytes = |percent: u64| ((limit / 100 * percent) >> 20).max(1);
    let all = [
        ("GOMEMLIMIT", format!("{}MiB", mebibytes(90))),
        (
            "JAVA_TOOL_OPTIONS",
            format!("-Xmx{}m", mebibytes(70).max(2)),
        ),
        (
            "NODE_OPTIONS",
            format!("--max-old-space-size={}", mebibytes(75)),
        ),
    ];
    all.into_iter().filter(|(name, _)| !is_set(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_collector_gets_its_share_and_owners_keep_their_choice() {
        let told = variables(512 << 20, |name| name == "NODE_OPTIONS");
        let expected = [
            ("GOMEMLIMIT", "460MiB".into()),
            ("JAVA_TOOL_OPTIONS", "-Xmx358m".into()),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn no_limit_is_too_small_or_too_large_to_be_told() {
        for limit in [0, 1, 4096, u64::MAX] {
            for (name, value) in variables(limit, |_| false) {
                assert!(
                    !value.contains("=0") && !value.contains("x0") && value != "0MiB",
                    "{name}={value}"
                );
            }
        }
    }
}
