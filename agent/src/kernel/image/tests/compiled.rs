//! Programs made for the purpose, by the real compilers.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::oracle::{entry_of, has, instruction_at, is_emulated, offset_of, output};
use super::{only, plan_of};
use crate::kernel::image::{Boundary, Root, Runtime, main_site_from_address};

/// A program and the folder that goes with it.
pub(super) struct Built {
    pub(super) path: PathBuf,
    folder: TempDir,
}

/// What is done to a program after linking.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Symbols {
    Kept,
    Stripped,
}

/// How a C program is compiled and linked.
pub(super) struct C(&'static [&'static str]);

impl C {
    pub(super) const ALL: &'static [Self] = &[
        Self(&["-O0"]),
        Self(&["-O2"]),
        Self(&["-O2", "-fcf-protection=full"]),
        Self(&["-O2", "-no-pie", "-fno-pie"]),
        Self(&["-O2", "-static"]),
        Self(&["-O2", "-static-pie"]),
    ];

    pub(super) fn build(&self, symbols: Symbols) -> Built {
        let source = "#include <stdio.h>\n\
            int main(int argc, char **argv) {\n\
                for (int i = 0; i < 3; i++) printf(\"%d %s\\n\", i, argv[0]);\n\
                if (argc > 1) { fflush(stdout); getchar(); }\n\
                return 0;\n\
            }\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let file = folder.path().join("program.c");
        fs::write(&file, source).unwrap();
        output(
            Command::new("gcc")
                .args(self.0)
                .arg("-o")
                .arg(&path)
                .arg(&file),
        );
        let built = Built { path, folder };
        if symbols == Symbols::Stripped {
            built.stripped()
        } else {
            built
        }
    }
}

impl Built {
    /// Strips the program; the one with symbols stays beside it.
    pub(super) fn stripped(self) -> Self {
        fs::copy(&self.path, self.with_symbols()).unwrap();
        output(Command::new("strip").arg(&self.path));
        self
    }

    fn with_symbols(&self) -> PathBuf {
        self.folder.path().join("with_symbols")
    }
}

/// A library of the C source; returns its path.
pub(super) fn shared(source: &str, path: &Path) -> PathBuf {
    let file = path.with_extension("c");
    fs::write(&file, format!("#include <stdio.h>\n{source}")).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    output(
        Command::new("gcc")
            .args([
                "-O2",
                "-shared",
                "-fPIC",
                &format!("-Wl,-soname,{name}"),
                "-o",
            ])
            .args([path, &file]),
    );
    path.to_owned()
}

/// A C program that calls `Py_RunMain` of a library.
pub(super) fn linked_with(library: &Path, path: &Path, flag: &str) {
    let file = path.with_extension("c");
    fs::write(
        &file,
        "int Py_RunMain(void);\nint main(void) { return Py_RunMain(); }\n",
    )
    .unwrap();
    output(
        Command::new("gcc")
            .args(["-O2", flag, "-o"])
            .args([path, &file, library]),
    );
}

/// A Rust program.
pub(super) fn rust(flags: &[&str], source: &str) -> Built {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hello_start");
    let file = folder.path().join("hello_start.rs");
    fs::write(&file, source).unwrap();
    output(
        Command::new("rustc")
            .args(flags)
            .arg("-o")
            .arg(&path)
            .arg(&file),
    );
    Built { path, folder }
}

/// A Go program.
pub(super) fn go(flags: &[&str]) -> Built {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let file = folder.path().join("program.go");
    let source = "package main\nimport \"fmt\"\nfunc main() { fmt.Println(\"started\") }\n";
    fs::write(&file, source).unwrap();
    output(
        Command::new("go")
            .args(["build", "-o"])
            .arg(&path)
            .args(flags)
            .arg(&file),
    );
    Built { path, folder }
}

/// The main site is at the address or just after it, on an instruction that is emulated.
fn main_is_at(program: &Path, address: u64) {
    let plan = plan_of(program);
    let site = only(&plan, Boundary::Main);
    assert_eq!(
        site.offset,
        offset_of(program, address) + site.delay,
        "{plan:#?}"
    );
    let instruction = instruction_at(program, address + site.delay);
    assert!(is_emulated(&instruction), "{site:?} is on `{instruction}`");
    assert!(site.delay < 96);
}

#[test]
fn c_main_is_found_with_and_without_symbols() {
    for c in C::ALL {
        let plain = c.build(Symbols::Kept);
        main_is_at(&plain.path, exact(&plain.path, "main"));
        let stripped = c.build(Symbols::Stripped);
        main_is_at(&stripped.path, exact(&stripped.with_symbols(), "main"));
        assert!(plan_of(&stripped.path).notes.is_empty());
    }
}

#[test]
fn a_start_in_two_steps_as_musl_has_it_tells_main() {
    let source = "int main(void) { return 0; }\n\
        __asm__(\".globl _start\\n_start: xor %rbp,%rbp\\n mov %rsp,%rdi\\n call second\\n\"\n\
        \"second: mov (%rdi),%esi\\n lea main(%rip),%rdi\\n jmp third\\nthird: ret\");\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("program");
    let file = folder.path().join("program.c");
    fs::write(&file, source).unwrap();
    output(
        Command::new("gcc")
            .args(["-nostdlib", "-static", "-o"])
            .args([&path, &file]),
    );
    let built = Built { path, folder }.stripped();
    main_is_at(&built.path, exact(&built.with_symbols(), "main"));
}

#[test]
fn a_static_program_enters_at_its_own_start() {
    for c in &C::ALL[4..] {
        let built = c.build(Symbols::Kept);
        let plan = plan_of(&built.path);
        let entry = only(&plan, Boundary::Entry);
        assert_eq!(plan.runtime, Runtime::Static);
        let expected = offset_of(&built.path, entry_of(&built.path)) + entry.delay;
        assert_eq!(
            (entry.file.id(), entry.offset),
            (plan.executable.id(), expected)
        );
    }
}

#[test]
fn the_main_of_a_rust_program_is_the_users() {
    for flags in [
        &["-O"][..],
        &["-O", "-Csymbol-mangling-version=v0"],
        &["-O", "-Clto=fat"],
    ] {
        let built = rust(
            flags,
            "fn main() { for i in std::env::args() { println!(\"{i}\"); } }",
        );
        main_is_at(&built.path, containing(&built.path, "hello_start4main"));
    }
}

#[test]
fn a_rust_main_that_cannot_be_probed_is_replaced_by_what_comes_before() {
    let quiet = "fn main() { println!(\"{:?}\", std::env::args().count()); }";
    // Not optimised, it begins with a call through a pointer, which is not emulated.
    let built = rust(&["-Copt-level=0"], quiet);
    main_is_at(
        &built.path,
        containing(&built.path, "__rust_begin_short_backtrace"),
    );
    // Without names the best is the C main that the compiler makes.
    let built = rust(&["-O"], quiet).stripped();
    main_is_at(&built.path, exact(&built.with_symbols(), "main"));
}

#[test]
fn the_main_of_a_go_program_is_found_by_its_function_table() {
    if !has("go") {
        eprintln!("go is not installed");
        return;
    }
    for mode in ["-buildmode=exe", "-buildmode=pie"] {
        let plain = go(&[mode]);
        let table = output(Command::new("go").args(["tool", "nm"]).arg(&plain.path));
        let main = table
            .lines()
            .find(|line| line.ends_with(" T main.main"))
            .unwrap();
        let main = u64::from_str_radix(main.split_whitespace().next().unwrap(), 16).unwrap();
        main_is_at(&plain.path, main);
        let stripped = plain.stripped();
        main_is_at(&stripped.path, main);
        let small = go(&[mode, "-ldflags=-s -w"]);
        main_is_at(&small.path, main);
        let planned = plan_of(&small.path);
        assert_eq!(planned.runtime, Runtime::Go);
        assert_eq!(
            only(&planned, Boundary::Entry).file.id(),
            planned.executable.id()
        );
    }
}

#[test]
fn main_is_learnt_from_the_first_argument_of_the_c_librarys_start() {
    for c in [&C::ALL[1], &C::ALL[3]] {
        let built = c.build(Symbols::Stripped);
        let mut child = Command::new(&built.path)
            .arg("wait")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        let stat = fs::read_to_string(proc.join("stat")).unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        let start_code = after_name.split(' ').nth(23).unwrap().parse().unwrap();
        let maps = fs::read_to_string(proc.join("maps")).unwrap();
        let first = u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap();
        let linked = exact(&built.with_symbols(), "main");
        let fixed = output(Command::new("readelf").arg("-h").arg(&built.path)).contains("EXEC");
        let main = if fixed { linked } else { first + linked };
        let root = Root::of_process(child.id()).unwrap();
        let program = root.open(&built.path).unwrap();
        let site = main_site_from_address(&program, start_code, main, false).unwrap();
        let elsewhere = main_site_from_address(&program, start_code, main + (1 << 30), false);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(site.offset, offset_of(&built.path, linked) + site.delay);
        assert!(elsewhere.is_err(), "{elsewhere:?}");
        let planned = plan_of(&built.path);
        assert_eq!(only(&planned, Boundary::Main).offset, site.offset);
    }
}

/// The address of exactly that symbol.
fn exact(program: &Path, name: &str) -> u64 {
    symbol(program, |symbol| symbol == name)
}

/// The address of the function whose mangled name contains this.
fn containing(program: &Path, part: &str) -> u64 {
    symbol(program, |symbol| symbol.contains(part))
}

fn symbol(program: &Path, fits: impl Fn(&str) -> bool) -> u64 {
    let table = output(Command::new("nm").arg(program));
    let line = table
        .lines()
        .find(|line| line.split(' ').nth(2).is_some_and(&fits))
        .unwrap_or_else(|| panic!("not in {table}"));
    u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
}
