//! The configuration as the kernel side and the tracker take it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::bail;

use crate::config::{Config, Listen, Mode};
use crate::export::check_headers;
use crate::kernel::attach::Reach;
use crate::kernel::cgroup_lock::LockLimits;
use crate::kernel::oom::OomLimits;
use crate::kernel::probes::{NameRule, Request};
use crate::observe::cold_start::fold::About;
use crate::observe::cold_start::{self, Condition, ReadyRule, Role, Settings, StartRule};
use crate::observe::identity::boot_id;

/// The rules of `[[start]]` and of the runtimes; the first that matches counts.
pub(super) fn rules(config: &Config) -> anyhow::Result<Vec<StartRule>> {
    let start = config.start.iter().map(crate::config::StartRule::rule);
    let runtimes = config.runtimes.iter().map(crate::config::Runtime::rule);
    Ok(start.chain(runtimes).collect::<Result<_, _>>()?)
}

/// Looks for what is wrong with settings that are each valid, as `hearth run` would find it.
/// Returns what is worth a thought.
pub(in crate::cli) fn check(config: &Config) -> anyhow::Result<Vec<String>> {
    let rules = rules(config)?;
    request(config, &rules)?;
    check_headers(&config.otlp)?;
    let mut remarks = Vec::new();
    for (file, symbol) in ready_uprobes(config, &rules) {
        anyhow::ensure!(
            fs::exists(&file)?,
            "the ready rule uprobe:{}:{symbol} names a file that is not there",
            file.display()
        );
    }
    for (name, definition) in &config.functions.named {
        for source in &definition.root {
            anyhow::ensure!(
                fs::exists(source.path())?,
                "functions.{name}.root names {source}, which is not there"
            );
        }
    }
    if let Listen::At(address) = config.metrics.listen
        && !address.ip().is_loopback()
    {
        remarks.push(format!(
            "metrics.listen = \"{address}\" tells everyone who can reach it of programs that start"
        ));
    }
    Ok(remarks)
}

/// Every ready rule that is in use.
pub(super) fn ready_rules<'a>(
    config: &'a Config,
    rules: &'a [StartRule],
) -> impl Iterator<Item = &'a ReadyRule> {
    rules
        .iter()
        .filter_map(|rule| rule.ready.as_ref())
        .chain([&config.ready])
}

/// What the probes are to do.
pub(super) fn request(config: &Config, rules: &[StartRule]) -> anyhow::Result<Request> {
    let mut files = ready_rules(config, rules)
        .filter_map(ReadyRule::file)
        .collect::<Vec<_>>();
    files.sort_unstable();
    files.dedup();
    if let [one, other, ..] = files[..] {
        bail!(
            "ready rules wait for the files {} and {}; the kernel side compares with one: \
             let all rules wait for the same file",
            one.display(),
            other.display()
        );
    }
    let kinds = ready_rules(config, rules).flat_map(ReadyRule::conditions);
    let mut kinds = kinds.filter_map(kind).collect::<Vec<_>>();
    kinds.sort_unstable();
    kinds.dedup();
    Ok(Request {
        signals: config.signals.clone(),
        reach: Reach::Daemon,
        every_exec: config.mode == Mode::Process,
        cgroup_opens: config.cgroups,
        rules: rules
            .iter()
            .map(|rule| NameRule {
                name: rule.executable.name().to_owned(),
                fork_server: rule.role == Role::ForkServer,
                ready: rule.ready.as_ref().unwrap_or(&config.ready).kernel_bits(),
            })
            .collect(),
        ready: config.ready.kernel_bits(),
        ready_kinds: kinds,
        ready_file: files.first().map(|path| path.display().to_string()),
        locks: LockLimits::default(),
        without: Vec::new(),
        oom: OomLimits {
            stack_bytes: config.oom.stack_bytes,
            ..OomLimits::default()
        },
    })
}

/// The hook table's word for what a condition needs; listen and exit are always there.
const fn kind(condition: &Condition) -> Option<&'static str> {
    match condition {
        Condition::Listen | Condition::Exit => None,
        Condition::Accept => Some("accept"),
        Condition::Notify | Condition::Next => Some("message"),
        Condition::File(_) => Some("file"),
        Condition::Uprobe { .. } => Some("uprobe"),
    }
}

/// Files and symbols of the ready rules that need a uprobe.
pub(super) fn ready_uprobes(config: &Config, rules: &[StartRule]) -> Vec<(PathBuf, String)> {
    let uprobes = ready_rules(config, rules).filter_map(ReadyRule::uprobe);
    uprobes
        .map(|(file, symbol)| (file.to_owned(), symbol.to_owned()))
        .collect()
}

/// What the tracker is told.
pub(super) fn settings(
    config: &Config,
    rules: Vec<StartRule>,
    strategies: BTreeMap<String, String>,
) -> Settings {
    let every_exec = config.mode == Mode::Process;
    Settings {
        about: About {
            boot_id: boot_id(),
            strategies,
            watching: None,
        },
        rules,
        ready: config.ready.clone(),
        deadline: config.deadline.into(),
        ..Settings::new(cold_start::Mode::Daemon { every_exec })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(text: &str) -> Config {
        Config::parse(text, Path::new("hearth.toml"), |_| None).expect("valid")
    }

    #[test]
    fn the_kernel_side_is_asked_for_what_the_rules_need_and_no_more() {
        let plain = config("");
        let request = request(&plain, &rules(&plain).expect("rules")).expect("a request");
        assert!(request.every_exec && request.cgroup_opens && request.ready_kinds.is_empty());
        assert!(
            request
                .rules
                .iter()
                .any(|rule| rule.name == "runc" && rule.ready == 0)
        );

        let config = config(
            "mode = \"sandbox\"\ncgroups = false\nready = \"accept,notify\"\n\
             [[start]]\nexe = \"/opt/app\"\nready = \"file:/run/x,uprobe:/opt/app:up\"\n\
             [[start]]\nexe = \"zygote\"\nfork_server = true\n",
        );
        let rules = rules(&config).expect("rules");
        let request = super::request(&config, &rules).expect("a request");
        assert!(!request.every_exec && !request.cgroup_opens);
        assert_eq!(request.ready_kinds, ["accept", "file", "message", "uprobe"]);
        assert_eq!(request.ready_file.as_deref(), Some("/run/x"));
        assert_eq!(request.rules[0].ready, hearth_abi::ready::FILE);
        assert!(request.rules[1].fork_server && request.rules[1].ready == request.ready);
        assert_eq!(
            ready_uprobes(&config, &rules),
            [("/opt/app".into(), "up".to_owned())]
        );
    }

    #[test]
    fn what_only_a_run_would_show_is_found_by_a_check() {
        assert_eq!(check(&Config::default()).expect("fine"), [""; 0]);
        let remarks = check(&config("[metrics]\nlisten = \"0.0.0.0:9464\"\n")).expect("a remark");
        assert!(remarks[0].contains("0.0.0.0:9464"), "{remarks:?}");
        for (text, needle) in [
            ("ready = \"uprobe:/nowhere/app:up\"\n", "/nowhere/app"),
            (
                "[otlp]\nheaders_file = \"/nowhere/headers\"\n",
                "/nowhere/headers",
            ),
            (
                "[functions.x]\nroot = [\"/nowhere/x\"]\ncommand = [\"/x\"]\n",
                "/nowhere/x",
            ),
        ] {
            let error = check(&config(text)).expect_err("wrong");
            assert!(format!("{error:#}").contains(needle), "{error:#}");
        }
    }

    #[test]
    fn two_ready_files_are_refused() {
        let config = config("ready = \"file:/a\"\n[[start]]\nexe = \"x\"\nready = \"file:/b\"\n");
        let error = request(&config, &rules(&config).expect("rules")).expect_err("two");
        assert!(error.to_string().contains("/a and /b"), "{error}");
    }
}
