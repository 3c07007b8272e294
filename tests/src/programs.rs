//! The tests' own programs, built by the compilers that people use.
//!
//! Sources are in `tests/programs/`; what is built from them lies in `target/hearth-programs/`,
//! by the hash of the sources and of the compiler's command line. Where there is no compiler (in
//! a VM) `HEARTH_PROGRAMS` names a folder that [`prebuild`] filled elsewhere.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, OpenOptions};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::{child, machine, requirement};

/// A program to be run: what to put before its own arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// Path of the executable, and what leads its interpreter to the source.
    pub command: Vec<PathBuf>,
}

impl Program {
    /// The file that is exec'd.
    #[must_use]
    pub fn exe(&self) -> &Path {
        &self.command[0]
    }

    /// The command line with `arguments` after it.
    #[must_use]
    pub fn with(&self, arguments: &[&str]) -> Vec<String> {
        let own = self
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned());
        own.chain(arguments.iter().map(|word| (*word).to_owned()))
            .collect()
    }
}

/// The languages of the oracle program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// C, dynamically linked.
    CDynamic,
    /// C, statically linked.
    CStatic,
    /// Rust.
    Rust,
    /// Go.
    Go,
    /// Python.
    Python,
    /// JavaScript on Node.
    Node,
    /// Java.
    Java,
}

impl Language {
    /// Every language.
    pub const ALL: [Self; 7] = [
        Self::CDynamic,
        Self::CStatic,
        Self::Rust,
        Self::Go,
        Self::Python,
        Self::Node,
        Self::Java,
    ];
}

/// The oracle program in `language`: `MODE REPORT`, where `MODE` is `listen` or `exit`.
pub fn oracle(language: Language) -> Result<Program> {
    let command = match language {
        Language::CDynamic => vec![c("oracle")?],
        Language::CStatic => vec![c_static("oracle")?],
        Language::Rust => vec![rust()?],
        Language::Go => vec![go()?],
        Language::Python => {
            vec![
                requirement::tool("python3", "python3-minimal")?,
                source("oracle.py"),
            ]
        }
        Language::Node => vec![requirement::tool("node", "nodejs")?, source("oracle.js")],
        Language::Java => {
            let java = requirement::tool("java", "openjdk-17-jre-headless")?;
            vec![java, "-cp".into(), java_classes()?, "Oracle".into()]
        }
    };
    Ok(Program { command })
}

/// One of the C programs, dynamically linked.
pub fn c(name: &str) -> Result<PathBuf> {
    compile_c(name, name, &["-O2", "-pthread"])
}

/// One of the C programs, statically linked.
pub fn c_static(name: &str) -> Result<PathBuf> {
    compile_c(
        name,
        &format!("{name}-static"),
        &["-O2", "-pthread", "-static"],
    )
}

/// One of the C programs, statically linked, whose functions keep frame pointers and stay on the
/// stack while what they call runs.
pub fn c_framed(name: &str) -> Result<PathBuf> {
    let flags = [
        "-O2",
        "-pthread",
        "-static",
        "-fno-omit-frame-pointer",
        "-fno-optimize-sibling-calls",
    ];
    compile_c(name, &format!("{name}-framed"), &flags)
}

/// One of the C programs, without symbols.
pub fn c_stripped(name: &str) -> Result<PathBuf> {
    compile_c(
        name,
        &format!("{name}-stripped"),
        &["-O2", "-pthread", "-s"],
    )
}

/// The program that dies for want of memory, in C: with frame pointers, and calls that stay calls.
pub fn oom_victim() -> Result<PathBuf> {
    let flags = [
        "-O1",
        "-pthread",
        "-fno-omit-frame-pointer",
        "-fno-optimize-sibling-calls",
    ];
    compile_c("oom_victim", "oom_victim", &flags)
}

/// The same in Rust.
pub fn oom_victim_rust() -> Result<PathBuf> {
    build(
        "oom_victim-rust",
        ("rustc", "rustc"),
        &["oom_victim.rs"],
        |compiler, out| {
            compiler
                .args(["--edition=2024", "-O", "-Cforce-frame-pointers=yes", "-o"])
                .arg(out)
                .arg(source("oom_victim.rs"));
        },
    )
}

/// The same in Go.
pub fn oom_victim_go() -> Result<PathBuf> {
    build(
        "oom_victim-go",
        ("go", "golang-go"),
        &["oom_victim.go"],
        |compiler, out| {
            let cache = machine::target().join("hearth-programs/go");
            compiler
                .env("GOCACHE", cache)
                .env("GO111MODULE", "off")
                .env("CGO_ENABLED", "0");
            compiler
                .args(["build", "-o"])
                .arg(out)
                .arg(source("oom_victim.go"));
        },
    )
}

/// The same in Python, as far as that can be.
pub fn oom_victim_python() -> Result<Vec<PathBuf>> {
    Ok(vec![
        requirement::tool("python3", "python3-minimal")?,
        source("oom_victim.py"),
    ])
}

/// Puts what tests inside of a VM need into `folder`, by the names under which they look.
pub fn prebuild(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    for name in [
        "parked",
        "oracle",
        "nothing",
        "sandbox",
        "storm",
        "cgroup_storm",
        "escape",
        "grow",
        "misbehave",
        "sleepers",
        "tenant",
    ] {
        fs::copy(c(name)?, folder.join(name)).context("copy a program")?;
        fs::copy(c_static(name)?, folder.join(format!("{name}-static")))
            .context("copy a program")?;
    }
    let name = "oom_oracle";
    fs::copy(c_framed(name)?, folder.join(format!("{name}-framed"))).context("copy a program")?;
    for (built, name) in [
        (oom_victim()?, "oom_victim"),
        (oom_victim_rust()?, "oom_victim-rust"),
        (oom_victim_go()?, "oom_victim-go"),
    ] {
        fs::copy(built, folder.join(name)).context("copy a program")?;
    }
    Ok(())
}

/// A program that takes memory until it is killed for it.
#[derive(Clone, Debug)]
pub struct Leak {
    /// The program.
    pub program: PathBuf,
    /// The functions in which that happens, innermost first, as people write their names.
    pub functions: [&'static str; 3],
}

/// One for each language, each with frame pointers.
pub fn leaks() -> Result<Vec<Leak>> {
    let c = [
        "-O1",
        "-g",
        "-fno-omit-frame-pointer",
        "-fno-optimize-sibling-calls",
    ];
    let cc = build(
        "oom-grow-cc",
        ("g++", "g++"),
        &["oom_grow.cc"],
        |compiler, out| {
            compiler
                .args(c)
                .arg("-o")
                .arg(out)
                .arg(source("oom_grow.cc"));
        },
    )?;
    let rust = build(
        "oom-grow-rust",
        ("rustc", "rustc"),
        &["oom_grow.rs"],
        |compiler, out| {
            compiler.args(["--edition=2024", "-O", "-Cforce-frame-pointers=yes", "-o"]);
            compiler.arg(out).arg(source("oom_grow.rs"));
        },
    )?;
    let go = build(
        "oom-grow-go",
        ("go", "golang-go"),
        &["oom_grow.go"],
        |compiler, out| {
            let cache = machine::target().join("hearth-programs/go");
            compiler
                .env("GOCACHE", cache)
                .env("GO111MODULE", "off")
                .env("CGO_ENABLED", "0");
            compiler
                .args(["build", "-o"])
                .arg(out)
                .arg(source("oom_grow.go"));
        },
    )?;
    let leak = |program, functions| Leak { program, functions };
    Ok(vec![
        leak(
            compile_c("oom_grow", "oom-grow-c", &c)?,
            ["touch", "leak", "main"],
        ),
        leak(cc, ["shop::Cart<int>::touch", "shop::leak", "main"]),
        leak(
            rust,
            [
                "oom_grow::shop::touch",
                "oom_grow::shop::leak",
                "oom_grow::main",
            ],
        ),
        // Go's allocator clears what it gives, so that it is the one that takes it.
        leak(go, ["main.leak", "main.main", "runtime.main"]),
    ])
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("programs")
        .join(name)
}

fn compile_c(name: &str, built_name: &str, flags: &[&str]) -> Result<PathBuf> {
    let text = format!("{name}.c");
    let sources = [text.as_str(), "report.h"];
    build(
        built_name,
        ("gcc", "gcc libc6-dev"),
        &sources,
        |compiler, out| {
            compiler
                .args(flags)
                .args(["-Wall", "-Wextra", "-Werror", "-o"])
                .arg(out);
            compiler.arg(source(&text));
        },
    )
}

fn rust() -> Result<PathBuf> {
    build(
        "oracle-rust",
        ("rustc", "rustc"),
        &["oracle.rs"],
        |compiler, out| {
            compiler
                .args(["--edition=2024", "-O", "-o"])
                .arg(out)
                .arg(source("oracle.rs"));
        },
    )
}

fn go() -> Result<PathBuf> {
    build(
        "oracle-go",
        ("go", "golang-go"),
        &["oracle.go"],
        |compiler, out| {
            let cache = machine::target().join("hearth-programs/go");
            compiler
                .env("GOCACHE", cache)
                .env("GO111MODULE", "off")
                .env("CGO_ENABLED", "0");
            compiler
                .args(["build", "-o"])
                .arg(out)
                .arg(source("oracle.go"));
        },
    )
}

fn java_classes() -> Result<PathBuf> {
    let package = ("javac", "openjdk-17-jdk-headless");
    build("oracle-java", package, &["Oracle.java"], |compiler, out| {
        compiler.arg("-d").arg(out).arg(source("Oracle.java"));
    })
}

/// Builds `name` unless the same sources and command were built before. `line` completes the
/// compiler's command line for an output path.
fn build(
    name: &str,
    (compiler, package): (&str, &str),
    sources: &[&str],
    line: impl Fn(&mut Command, &Path),
) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("HEARTH_PROGRAMS") {
        let built = PathBuf::from(folder).join(name);
        ensure!(built.exists(), "HEARTH_PROGRAMS has no {}", built.display());
        return Ok(built);
    }
    let compiler = requirement::tool(compiler, package)?;
    let mut sketch = Command::new(&compiler);
    line(&mut sketch, Path::new("OUT"));
    let mut hasher = DefaultHasher::new();
    format!("{sketch:?}").hash(&mut hasher);
    for text in sources {
        fs::read(source(text))
            .with_context(|| format!("read {text}"))?
            .hash(&mut hasher);
    }
    let cache = machine::target().join("hearth-programs");
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;
    let cache = cache.canonicalize().context("find the cache of programs")?;
    let folder = cache.join(format!("{:016x}", hasher.finish()));
    let built = folder.join(name);

    // Tests of several processes want the same program: one builds, the others find it.
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(cache.join("lock"))
        .context("open the lock of the programs")?;
    rustix::io::retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
        .context("lock the programs")?;
    if built.exists() {
        return Ok(built);
    }
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let unfinished = folder.join(format!("{name}.unfinished"));
    let mut command = Command::new(&compiler);
    line(&mut command, &unfinished);
    child::run(&mut command, Duration::from_mins(5))
        .and_then(child::Finished::success)
        .with_context(|| format!("build {name}"))?;
    fs::rename(&unfinished, &built).context("keep what was built")?;
    Ok(built)
}
