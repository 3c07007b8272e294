//! Real uprobes at the planned sites, counted by the kernel: a site that is planned must be
//! passed once by each start, and only then.

use std::ffi::CString;
use std::ffi::c_long;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};

use super::compiled::{C, Symbols, go, rust};
use super::oracle::{has, output};
use super::{Boundary, Site, plan_of};

/// Pages of samples that one CPU holds: 16 bytes each, and nobody else runs that much.
const PAGES: usize = 64;
const PAGE: usize = 4096;

/// Samples of the processes that pass a site, on one CPU.
struct Samples {
    /// Keeps the perf event.
    _event: OwnedFd,
    ring: *const u64,
}

impl Samples {
    fn open(site: &Site, cpu: usize) -> std::io::Result<Self> {
        let kind = fs::read_to_string("/sys/bus/event_source/devices/uprobe/type")?;
        let kind: u64 = kind.trim().parse().unwrap();
        let path = CString::new(site.file.attach_path().to_str().unwrap()).unwrap();
        // struct perf_event_attr, PERF_ATTR_SIZE_VER1: type and size, config, period, sample
        // type (TID), read format, flags, wake-up, uprobe_path, probe_offset.
        let attr: [u64; 9] = [
            kind | 72 << 32,
            0,
            1,
            2,
            0,
            0,
            0,
            path.as_ptr() as u64,
            site.offset,
        ];
        let (anyone, no_group, cloexec): (c_long, c_long, c_long) = (-1, -1, 8);
        // SAFETY: the attribute and the path it points to outlive the call, which copies them.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_perf_event_open,
                attr.as_ptr(),
                anyone,
                c_long::try_from(cpu).unwrap(),
                no_group,
                cloexec,
            )
        };
        if fd < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor.
        let event = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) };
        // SAFETY: a fresh mapping of the event's ring, as perf_event_open(2) sizes it.
        let ring = unsafe {
            let (read, shared) = (libc::PROT_READ, libc::MAP_SHARED);
            libc::mmap(
                std::ptr::null_mut(),
                (1 + PAGES) * PAGE,
                read,
                shared,
                event.as_raw_fd(),
                0,
            )
        };
        assert_ne!(
            ring,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        Ok(Self {
            _event: event,
            ring: ring.cast(),
        })
    }

    /// The process of each hit so far.
    fn processes(&self) -> Vec<u32> {
        // SAFETY: data_head lies at 1024 in the first page of the mapping.
        let head = unsafe { self.ring.add(1024 / 8).read_volatile() };
        let head = usize::try_from(head).unwrap();
        assert!(head <= PAGES * PAGE, "the ring has overrun");
        // SAFETY: the kernel has written that much of the mapping, and will not write it again.
        let bytes = unsafe { std::slice::from_raw_parts(self.ring.cast::<u8>().add(PAGE), head) };
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let mut found = Vec::new();
        let mut at = 0;
        while at < head {
            // perf_event_header: type (9 is a sample), misc, size; then pid and tid.
            if word(at) == 9 {
                found.push(word(at + 8));
            }
            at += usize::from(u16::from_ne_bytes([bytes[at + 6], bytes[at + 7]]));
        }
        found
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        // SAFETY: the mapping that `open` made; no reference into it is left.
        unsafe { libc::munmap(self.ring.cast_mut().cast(), (1 + PAGES) * PAGE) };
    }
}

fn attach(site: &Site) -> std::io::Result<Vec<Samples>> {
    let cpus = std::thread::available_parallelism()?.get();
    (0..cpus).map(|cpu| Samples::open(site, cpu)).collect()
}

/// How often each site is passed by each of three runs of a command.
fn hits<'a>(sites: &'a [Site], command: &mut Command) -> Vec<(&'a Site, [usize; 3])> {
    let attached: Vec<Vec<Samples>> = sites.iter().map(|site| attach(site).unwrap()).collect();
    let runs = [(); 3].map(|()| {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(child.wait().unwrap().success(), "{command:?}");
        child.id()
    });
    let hits = attached.iter().map(|cpus| {
        let passed: Vec<u32> = cpus.iter().flat_map(Samples::processes).collect();
        runs.map(|run| passed.iter().filter(|process| **process == run).count())
    });
    sites.iter().zip(hits).collect()
}

fn may_attach() -> bool {
    let plan = plan_of(Path::new("/bin/true"));
    let opened = attach(&plan.sites[0]);
    if let Err(error) = &opened {
        eprintln!("uprobes cannot be attached here: {error}");
    }
    opened.is_ok()
}

/// Both boundaries exactly once a start.
fn once_each(program: &Path, arguments: &[&str]) {
    let plan = plan_of(program);
    assert_eq!(plan.sites.len(), 2, "{plan:#?}");
    for (site, hits) in hits(&plan.sites, Command::new(program).args(arguments)) {
        assert_eq!(hits, [1; 3], "{site:?}");
    }
}

#[test]
fn each_start_of_a_compiled_program_passes_each_site_once() {
    if !may_attach() {
        return;
    }
    for c in C::ALL {
        once_each(&c.build(Symbols::Kept).path, &[]);
        once_each(&c.build(Symbols::Stripped).path, &[]);
    }
    for flags in [&["-O"][..], &["-Copt-level=0"], &["-O", "-Cstrip=symbols"]] {
        let source = "fn main() { println!(\"{:?}\", std::env::args().count()); }";
        once_each(&rust(flags, source).path, &[]);
    }
    if has("go") {
        once_each(&go(&[]).path, &[]);
        once_each(&go(&["-ldflags=-s -w"]).path, &[]);
        once_each(&go(&["-buildmode=pie", "-ldflags=-s -w"]).path, &[]);
    }
}

#[test]
fn each_start_of_a_runtime_passes_its_hand_over() {
    if !may_attach() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("module.py");
    fs::write(&script, "import json\n").unwrap();
    let script = script.to_str().unwrap();
    let class = "class Started { public static void main(String[] a) { System.out.println(); } }";
    fs::write(folder.path().join("Started.java"), class).unwrap();
    if has("javac") {
        output(
            Command::new("javac")
                .arg("Started.java")
                .current_dir(folder.path()),
        );
    }
    let starts: &[(&str, &[&str], &str)] = &[
        ("python3", &[script], "_PyRun_SimpleFileObject"),
        ("python3", &["-c", "import json"], "PyRun_SimpleStringFlags"),
        ("python3", &["-m", "module"], "Py_RunMain"),
        ("node", &["-e", "1"], "_ZN4node14StartExecution"),
        ("java", &["-cp", ".", "Started"], "jni_CallStaticVoidMethod"),
    ];
    for (command, arguments, symbol) in starts {
        if !has(command) || (*command == "java" && !has("javac")) {
            eprintln!("{command} is not installed");
            continue;
        }
        let plan = plan_of(&Path::new("/usr/bin").join(command));
        let mut run = Command::new(plan.executable.path());
        run.args(*arguments).current_dir(folder.path());
        let hits = hits(&plan.sites, &mut run);
        let entered = hits
            .iter()
            .find(|(site, _)| site.what == Boundary::Entry)
            .unwrap();
        assert_eq!(entered.1, [1; 3], "{entered:?}");
        let handed = hits
            .iter()
            .find(|(site, _)| site.symbol.starts_with(symbol))
            .unwrap();
        assert_eq!(handed.1, [1; 3], "{command} {arguments:?}: {hits:#?}");
        let others = hits.iter().filter(|(site, hits)| {
            site.what == Boundary::Main
                && !site.provisional
                && site.symbol != handed.0.symbol
                && *hits != [0; 3]
        });
        assert_eq!(others.count(), 0, "{command} {arguments:?}: {hits:#?}");
    }
}
