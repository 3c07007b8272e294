//! The programs that this machine has.

use std::path::{Path, PathBuf};

use super::oracle::{addresses, entry_of, has, instruction_at, is_emulated, offset_of};
use super::{only, plan_of};
use crate::kernel::image::{Boundary, Plan, Runtime, Site, Step};

/// The site must lie at the symbol that `nm` knows, or at the first instruction after it that
/// the kernel emulates; in either case on one that `objdump` calls so.
fn agrees(site: &Site, dynamic: bool) {
    let file = site.file.shown();
    let known = addresses(file, &site.symbol, dynamic);
    let address = known
        .iter()
        .find(|address| offset_of(file, **address) + site.delay == site.offset)
        .unwrap_or_else(|| panic!("{site:?} is none of {known:x?}"));
    let instruction = instruction_at(file, address + site.delay);
    assert!(is_emulated(&instruction), "{site:?} is on `{instruction}`");
    assert_eq!(site.step, Step::Emulated);
}

fn named<'a>(plan: &'a Plan, symbol: &str) -> &'a Site {
    plan.sites
        .iter()
        .find(|site| site.symbol.starts_with(symbol))
        .unwrap_or_else(|| panic!("no {symbol} in {plan:#?}"))
}

#[test]
fn a_dynamic_program_enters_by_the_c_library() {
    let plan = plan_of(Path::new("/bin/true"));
    assert_eq!(plan.runtime, Runtime::Libc);
    let entry = only(&plan, Boundary::Entry);
    assert_eq!(entry.symbol, "__libc_start_main");
    assert!(entry.main_in_rdi);
    assert!(entry.file.shown().ends_with("libc.so.6"), "{entry:?}");
    agrees(entry, true);
}

#[test]
fn the_stripped_coreutils_tell_main_by_their_start() {
    let plan = plan_of(Path::new("/bin/true"));
    let main = only(&plan, Boundary::Main);
    assert_eq!(
        (main.symbol.as_str(), main.runtime),
        ("main", Runtime::Libc)
    );
    assert_eq!(main.file.id(), plan.executable.id());
}

#[test]
fn python_hands_over_by_file_and_by_string() {
    let Some(python) = real("python3") else {
        return;
    };
    let plan = plan_of(&python);
    assert_eq!(plan.runtime, Runtime::CPython);
    for symbol in [
        "_PyRun_SimpleFileObject",
        "PyRun_SimpleStringFlags",
        "Py_RunMain",
    ] {
        agrees(named(&plan, symbol), true);
    }
    assert!(
        named(&plan, "Py_RunMain").provisional,
        "-m has no symbol of its own"
    );
    assert!(!named(&plan, "_PyRun_SimpleFileObject").provisional);
    agrees(only(&plan, Boundary::Entry), true);
}

#[test]
fn node_starts_execution() {
    let Some(node) = real("node") else { return };
    let plan = plan_of(&node);
    assert_eq!(plan.runtime, Runtime::Node);
    agrees(only(&plan, Boundary::Main), true);
    agrees(only(&plan, Boundary::Entry), true);
}

#[test]
fn java_is_found_beside_its_launcher() {
    let Some(java) = real("java") else { return };
    let plan = plan_of(&java);
    assert_eq!(plan.runtime, Runtime::Jvm, "{plan:#?}");
    let main = only(&plan, Boundary::Main);
    assert!(main.file.shown().ends_with("libjvm.so"), "{main:?}");
    agrees(main, main.symbol.starts_with("JVM_"));
}

#[test]
fn a_static_program_enters_at_its_elf_entry() {
    let ldconfig = Path::new("/sbin/ldconfig");
    if !ldconfig.exists() {
        eprintln!("there is no {}", ldconfig.display());
        return;
    }
    let plan = plan_of(ldconfig);
    assert_eq!(plan.runtime, Runtime::Static);
    let site = only(&plan, Boundary::Entry);
    let entry = entry_of(ldconfig);
    assert_eq!(site.offset, offset_of(ldconfig, entry) + site.delay);
    assert!(
        is_emulated(&instruction_at(ldconfig, entry + site.delay)),
        "{site:?}"
    );
}

/// The file behind a command, if it is installed.
fn real(command: &str) -> Option<PathBuf> {
    let path = PathBuf::from("/usr/bin").join(command);
    if !has(command) || !path.exists() {
        eprintln!("{command} is not installed");
        return None;
    }
    Some(path)
}
