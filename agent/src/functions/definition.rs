//! What a function is: what is at its `/`, what runs there, and what it may use.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use hearth_runtime::cgroup;
use hearth_runtime::pool::policy::Choice;
use hearth_runtime::sandbox::Resources;
use hearth_runtime::seccomp::Profile;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::problem::Problem;
use super::schedule::{self, Window};
use super::source::{Source, is_plain};
use crate::config::{Period, Size};
use crate::heal::Mode;
use crate::heal::decide::Terms;

/// Layers that a function may have; an image counts once.
const MAX_LAYERS: usize = 16;
/// Bytes of command and environment together: they travel in the head of one frame.
const MAX_PROGRAM: usize = 32 * 1024;
/// Longest time for one invocation, and for a start.
pub const MAX_TIMEOUT: Duration = Duration::from_hours(1);
/// Instances of one function.
const MAX_INSTANCES: u32 = 1000;
/// Requests that wait for one function.
const MAX_QUEUE: u32 = 10_000;
/// Bytes of a warm-up request.
const MAX_WARM_UP: usize = 64 << 10;
/// Descriptors of one process.
const OPEN_FILES: std::ops::RangeInclusive<u64> = 16..=65_536;

/// What a function is. Sizes and times carry their unit: `"128MiB"`, `"30s"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Definition {
    /// Layers of `/`, the lowest first: each the absolute path of a directory or of a tar archive
    /// (plain or gzip) on the node, or `oci:/PATH:TAG`, an image in an OCI layout. They are copied
    /// when the function is deployed. At least one.
    #[schema(value_type = Vec<String>, required = true, max_items = 16)]
    pub root: Vec<Source>,
    /// The program and its arguments; an image's own where it is left out.
    pub command: Vec<String>,
    /// Its environment, over that of an image.
    pub environment: BTreeMap<String, String>,
    /// Where it begins; an image's own, else `/`, where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub directory: Option<PathBuf>,
    /// Memory, page cache and the writable layer included.
    #[schema(value_type = String, example = "128MiB")]
    pub memory: Size,
    /// Swap beside it.
    #[schema(value_type = String, example = "0B")]
    pub swap: Size,
    /// Thousandths of a processor.
    pub cpu_millicores: u32,
    /// Processes and threads, `hearth-init` included.
    pub pids: u32,
    /// Share of the block devices against others, 1 to 10000; as the node has it where left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_weight: Option<u16>,
    /// What it may write, all in all; it is memory, and gone with the sandbox.
    #[schema(value_type = String, example = "64MiB")]
    pub writable: Size,
    /// Longest time for an invocation.
    #[schema(value_type = String, example = "30s")]
    pub timeout: Period,
    /// Longest time until it asks for work.
    #[schema(value_type = String, example = "10s")]
    pub init_timeout: Period,
    /// Descriptors that one process may have open.
    pub open_files: u64,
    /// System calls beside the default ones, by name.
    pub syscalls: Vec<String>,
    /// Whether its memory is in huge pages.
    pub huge_pages: HugePages,
    /// What of the network it sees.
    pub network: Network,
    /// Sandboxes that it may have at once; each takes one request at a time.
    pub max_instances: u32,
    /// Sandboxes that it always has, at work or not.
    pub min_instances: u32,
    /// Sandboxes that always wait for work, beside those that are at work, as far as
    /// `max_instances` allows.
    pub reserved_instances: u32,
    /// Requests that wait for a sandbox at most; the next one is refused.
    pub queue: u32,
    /// Who says how many sandboxes there are between `min_instances` and `max_instances`.
    #[schema(value_type = String, example = "fixed:600")]
    pub policy: Choice,
    /// Times in which more of them are kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<Window>,
    /// A payload that each sandbox is given before it counts as ready: what it answers is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<String>,
    /// What is done where a sandbox of it fails.
    pub heal: Mode,
    /// The most memory that it may be given after it ran out of it; twice its memory where it is
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "256MiB")]
    pub memory_max: Option<Size>,
    /// Whether a request may be done twice: one whose sandbox fails is then done again.
    pub idempotent: bool,
}

/// Whether memory is in huge pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HugePages {
    /// As the node has it.
    #[default]
    Node,
    /// Never: small sandboxes stay small.
    Never,
    /// What it has touched when it is ready is gathered into huge pages; where the kernel can do
    /// that (6.1).
    Collapse,
}

/// What of the network a function sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Its own loopback, with the Runtime API on it, and nothing else.
    #[default]
    Loopback,
    /// A link to a bridge of the node, too, with an address and a default route, where
    /// `hearth-spawner` was started with `--veth`.
    Veth,
}

impl Default for Definition {
    fn default() -> Self {
        Self {
            root: Vec::new(),
            command: Vec::new(),
            environment: BTreeMap::new(),
            directory: None,
            memory: Size(128 << 20),
            swap: Size(0),
            cpu_millicores: 1000,
            pids: 256,
            io_weight: None,
            writable: Size(64 << 20),
            timeout: Period(Duration::from_secs(30)),
            init_timeout: Period(Duration::from_secs(10)),
            open_files: 1024,
            syscalls: Vec::new(),
            huge_pages: HugePages::default(),
            network: Network::default(),
            max_instances: 10,
            min_instances: 0,
            reserved_instances: 0,
            queue: 100,
            policy: Choice::default(),
            schedule: Vec::new(),
            warm_up: None,
            heal: Mode::default(),
            memory_max: None,
            idempotent: false,
        }
    }
}

impl Definition {
    /// For people to look at: what is in the environment is often a secret.
    #[must_use]
    pub fn masked(&self) -> Self {
        let names = self.environment.keys();
        Self {
            environment: names
                .map(|name| (name.clone(), "********".to_owned()))
                .collect(),
            ..self.clone()
        }
    }

    /// What may be done where a sandbox of it fails.
    #[must_use]
    pub fn terms(&self) -> Terms {
        let twice = Size(self.memory.0.saturating_mul(2));
        Terms {
            mode: self.heal,
            memory: self.memory.0,
            memory_max: self.memory_max.unwrap_or(twice).0,
            idempotent: self.idempotent,
            start: self.init_timeout.0,
        }
    }

    /// Limits as the spawner takes them, with so many bytes of memory.
    #[must_use]
    pub const fn resources(&self, memory: u64) -> Resources {
        Resources {
            memory_bytes: Some(memory),
            // Where nothing can be swapped out there is little to take back: a function that needs
            // more than its limit would be slowed until its time is over, and nobody be told why.
            memory_high_bytes: if self.swap.0 == 0 { Some(memory) } else { None },
            swap_bytes: Some(self.swap.0),
            cpu_millicores: Some(self.cpu_millicores),
            pids: Some(self.pids),
            io_weight: self.io_weight,
        }
    }

    /// Whether it can be, as far as that can be said without looking at its layers.
    pub fn check(&self) -> Result<(), Problem> {
        self.check_root()?;
        self.check_program()?;
        self.check_limits()?;
        for (index, name) in self.syscalls.iter().enumerate() {
            Profile::default().add(name).map_err(|error| {
                let remedy = "leave it out, or name another one";
                Problem::field(
                    format!("syscalls[{index}]"),
                    name,
                    error.to_string(),
                    remedy,
                )
            })?;
        }
        Ok(())
    }

    fn check_root(&self) -> Result<(), Problem> {
        if (1..=MAX_LAYERS).contains(&self.root.len()) {
            return Ok(());
        }
        Err(Problem::field(
            "root",
            format!("{} layers", self.root.len()),
            format!("a function has 1 to {MAX_LAYERS} layers"),
            "name a directory, a tar archive or an image, such as [\"/srv/shop\"]",
        ))
    }

    fn check_program(&self) -> Result<(), Problem> {
        let has_image = self
            .root
            .iter()
            .any(|source| matches!(source, Source::Image { .. }));
        if self.command.first().is_none_or(String::is_empty)
            && !(self.command.is_empty() && has_image)
        {
            return Err(Problem::field(
                "command",
                self.command.join(" "),
                "nothing to run: only an image brings a command of its own",
                "write the program and its arguments, such as [\"/bootstrap\"]",
            ));
        }
        if let Some(word) = self.command.iter().find(|word| word.contains('\0')) {
            let remedy = "take it out";
            return Err(Problem::field(
                "command",
                word,
                "it has a NUL in it",
                remedy,
            ));
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(Problem::field(
                    "environment",
                    name,
                    "no name and value of a variable",
                    "use names without `=`, and neither with a NUL",
                ));
            }
        }
        let words = self.command.iter().map(String::len);
        let variables = self.environment.iter().map(|(k, v)| k.len() + v.len());
        let bytes: usize = words.chain(variables).sum();
        if bytes > MAX_PROGRAM {
            return Err(Problem::field(
                "environment",
                format!("{bytes} bytes"),
                format!("command and environment have more than {MAX_PROGRAM} bytes together"),
                "put what is large into a file of a layer",
            ));
        }
        match &self.directory {
            Some(directory) if directory.as_os_str() != "/" && !is_plain(directory) => {
                Err(Problem::field(
                    "directory",
                    directory.display(),
                    "no directory of the function",
                    "write an absolute path without `..`, such as \"/var/task\"",
                ))
            }
            _ => Ok(()),
        }
    }

    fn check_limits(&self) -> Result<(), Problem> {
        self.resources(self.memory.0)
            .limits()
            .map_err(|error| match error {
                cgroup::Error::Limit {
                    setting,
                    value,
                    remedy,
                } => {
                    let field = match setting.to_string().as_str() {
                        "cpu" => "cpu_millicores".to_owned(),
                        other => other.to_owned(),
                    };
                    Problem::field(field, value, "the kernel does not take this limit", remedy)
                }
                other => Problem::field("memory", self.memory, other.to_string(), ""),
            })?;
        if let Some(most) = self.memory_max.filter(|most| *most < self.memory) {
            let remedy = format!("use at least its memory, \"{}\"", self.memory);
            let why = "less than it has to begin with";
            return Err(Problem::field("memory_max", most, why, &remedy));
        }
        if self.pids < 2 {
            let remedy = "use 2 at least: one is the sandbox's own";
            return Err(Problem::field(
                "pids",
                self.pids,
                "nothing could run",
                remedy,
            ));
        }
        if self.writable.0 == 0 || self.writable >= self.memory {
            return Err(Problem::field(
                "writable",
                self.writable,
                format!(
                    "what is written is memory, of which there is {}",
                    self.memory
                ),
                "use at least \"1MiB\", and less than the memory",
            ));
        }
        for (field, time) in [
            ("timeout", self.timeout),
            ("init_timeout", self.init_timeout),
        ] {
            if time.0 > MAX_TIMEOUT {
                let remedy = "use at most \"1h\"";
                return Err(Problem::field(field, time, "too long", remedy));
            }
        }
        if !OPEN_FILES.contains(&self.open_files) {
            return Err(Problem::field(
                "open_files",
                self.open_files,
                "not as many as a process can have here",
                "use 16 to 65536",
            ));
        }
        self.check_pool()
    }

    /// How its pool is to be.
    fn check_pool(&self) -> Result<(), Problem> {
        if !(1..=MAX_INSTANCES).contains(&self.max_instances) {
            let remedy = "use 1 to 1000";
            let (field, value) = ("max_instances", self.max_instances);
            return Err(Problem::field(
                field,
                value,
                "no number of sandboxes",
                remedy,
            ));
        }
        for (field, value) in [
            ("min_instances", self.min_instances),
            ("reserved_instances", self.reserved_instances),
        ] {
            if value > self.max_instances {
                return Err(Problem::field(
                    field,
                    value,
                    format!("there are at most {}", self.max_instances),
                    "use no more, or raise `max_instances`",
                ));
            }
        }
        if self.queue > MAX_QUEUE {
            let remedy = "use at most 10000";
            let detail = "too many requests to keep in memory";
            return Err(Problem::field("queue", self.queue, detail, remedy));
        }
        schedule::check(&self.schedule, self.max_instances)?;
        match &self.warm_up {
            Some(payload) if payload.len() > MAX_WARM_UP => Err(Problem::field(
                "warm_up",
                format!("{} bytes", payload.len()),
                format!("a warm-up has at most {MAX_WARM_UP} bytes"),
                "put what is large into a file of a layer",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(text: &str) -> Definition {
        let plain = "root = [\"/srv/shop\"]\ncommand = [\"/bootstrap\"]\n";
        let mut table: toml::Table = toml::from_str(plain).expect("TOML");
        table.extend(toml::from_str::<toml::Table>(text).expect("TOML"));
        table.try_into().expect("a definition")
    }

    #[test]
    fn what_cannot_be_swapped_out_is_killed_and_not_slowed() {
        let mut definition = Definition::default();
        let limits = definition.resources(1 << 30);
        assert_eq!(limits.memory_high_bytes, limits.memory_bytes);
        definition.swap = Size(1 << 20);
        assert_eq!(
            definition.resources(1 << 30).memory_high_bytes,
            None,
            "seven eighths"
        );
    }

    #[test]
    fn what_is_left_out_has_a_default_that_can_be() {
        let plain = definition("");
        plain.check().expect("a definition");
        assert_eq!(plain.memory.to_string(), "128MiB");
        assert!(plain.writable < plain.memory);
        let image = definition("root = [\"oci:/srv/image:v1\"]\ncommand = []\n");
        image.check().expect("the image brings a command");
    }

    #[test]
    fn a_bad_value_names_field_value_and_remedy() {
        for (text, field, value, words) in [
            ("root = []", "root", "0 layers", "name a directory"),
            ("command = []", "command", "", "[\"/bootstrap\"]"),
            ("command = [\"\"]", "command", "", "[\"/bootstrap\"]"),
            ("memory = \"4B\"", "memory", "4", "1 MiB"),
            (
                "memory = \"32MiB\"",
                "writable",
                "64MiB",
                "less than the memory",
            ),
            ("writable = \"0B\"", "writable", "0B", "at least"),
            ("cpu_millicores = 1", "cpu_millicores", "1", "10 to"),
            ("pids = 0", "pids", "0", "1 to 4194304"),
            ("pids = 1", "pids", "1", "2 at least"),
            ("io_weight = 0", "io_weight", "0", "1 to 10000"),
            ("timeout = \"2h\"", "timeout", "2h", "at most \"1h\""),
            (
                "init_timeout = \"2h\"",
                "init_timeout",
                "2h",
                "at most \"1h\"",
            ),
            ("open_files = 3", "open_files", "3", "16 to 65536"),
            ("max_instances = 0", "max_instances", "0", "1 to 1000"),
            ("min_instances = 11", "min_instances", "11", "at most 10"),
            (
                "max_instances = 2\nreserved_instances = 3",
                "reserved_instances",
                "3",
                "raise `max_instances`",
            ),
            ("queue = 10001", "queue", "10001", "at most 10000"),
            (
                "memory_max = \"127MiB\"",
                "memory_max",
                "127MiB",
                "at least its memory, \"128MiB\"",
            ),
            (
                "syscalls = [\"bogus\"]",
                "syscalls[0]",
                "bogus",
                "leave it out",
            ),
            ("syscalls = [\"bpf\"]", "syscalls[0]", "bpf", "leave it out"),
            ("directory = \"a\"", "directory", "a", "absolute"),
            (
                "directory = \"/a/../b\"",
                "directory",
                "/a/../b",
                "absolute",
            ),
            (
                "environment = { \"A=B\" = \"1\" }",
                "environment",
                "A=B",
                "without `=`",
            ),
        ] {
            let problem = definition(text).check().expect_err(text);
            assert_eq!(problem.field.as_deref(), Some(field), "{text}");
            assert_eq!(problem.value.as_deref(), Some(value), "{text}");
            assert!(problem.to_string().contains(words), "{text}: {problem}");
        }
        let long = format!("environment = {{ A = \"{}\" }}", "x".repeat(MAX_PROGRAM));
        let problem = definition(&long).check().expect_err("too long");
        assert!(
            problem.to_string().contains("a file of a layer"),
            "{problem}"
        );
    }

    #[test]
    fn a_definition_is_read_as_it_is_written() {
        let whole = definition(
            "io_weight = 7\ndirectory = \"/var/task\"\nsyscalls = [\"io_uring_setup\"]\nhuge_pages = \"never\"\n",
        );
        let json = serde_json::to_string(&whole).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Definition>(&json).expect("JSON"),
            whole
        );
        let unknown = serde_json::from_str::<Definition>("{\"memori\": \"1MiB\"}");
        let error = unknown.expect_err("an unknown field").to_string();
        assert!(error.contains("`memori`"), "{error}");
    }
}
