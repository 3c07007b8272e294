//! From a name to the file that runs: scripts, links, other roots.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::plan_of;
use crate::kernel::image::{FileId, ImageError, Options, Plan, Root, Runtime, plan};

/// A root with one program, `/usr/bin/real`, that `/bin/tool` is an absolute link to.
fn small_root() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for directory in ["usr/bin", "bin", "opt"] {
        fs::create_dir_all(folder.path().join(directory)).unwrap();
    }
    fs::copy("/sbin/ldconfig", folder.path().join("usr/bin/real")).unwrap();
    symlink("/usr/bin/real", folder.path().join("bin/tool")).unwrap();
    folder
}

fn script(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join("opt").join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    Path::new("/opt").join(name)
}

fn planned(folder: &TempDir, path: &Path) -> Result<Plan, ImageError> {
    let options = Options {
        path: Some("/nowhere:/bin".into()),
        ..Options::default()
    };
    plan(&Root::at(folder.path()).unwrap(), path, &options)
}

#[test]
fn links_and_scripts_lead_to_the_program_beneath_the_root() {
    let folder = small_root();
    let real = fs::metadata(folder.path().join("usr/bin/real")).unwrap();
    let expected = FileId {
        dev: real.dev(),
        ino: real.ino(),
    };
    script(&folder, "plain", "#!/bin/tool -x\n");
    for path in [
        PathBuf::from("/bin/tool"),
        PathBuf::from("/../../bin/tool"),
        script(&folder, "direct", "#!/bin/tool\n"),
        script(&folder, "spaced", "#!  /bin/tool   an argument\n"),
        script(&folder, "chained", "#!/opt/plain\n"),
        script(&folder, "env", "#!/usr/bin/env tool\n"),
        script(&folder, "split", "#!/usr/bin/env -S KEY=value tool -u\n"),
        script(&folder, "no_newline", "#!/bin/tool"),
    ] {
        let plan = planned(&folder, &path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        assert_eq!(plan.executable.id(), expected, "{path:?}");
        assert_eq!(
            plan.executable.path(),
            Path::new("/usr/bin/real"),
            "{path:?}"
        );
        let again = fs::metadata(plan.executable.attach_path()).unwrap();
        assert_eq!(again.ino(), expected.ino);
    }
}

#[test]
fn a_script_that_leads_nowhere_says_why() {
    let folder = small_root();
    for (name, text, said) in [
        ("empty", "#!\n", "names nothing"),
        (
            "relative",
            "#!bin/tool\n",
            "relative to an unknown working directory",
        ),
        ("self", "#!/opt/self\n", "interpreters in a row"),
        (
            "absent",
            "#!/usr/bin/env absent\n",
            "in no directory of PATH",
        ),
        ("bare_env", "#!/usr/bin/env -i\n", "names no program"),
    ] {
        let path = script(&folder, name, text);
        let error = planned(&folder, &path).unwrap_err().to_string();
        assert!(error.contains(said), "{name}: {error}");
    }
}

#[test]
fn a_process_is_planned_in_its_own_root() {
    let own = Root::of_process(std::process::id()).unwrap();
    let plan = plan(&own, Path::new("/bin/true"), &Options::default()).unwrap();
    let host = plan_of(Path::new("/bin/true"));
    assert_eq!(plan.executable.id(), host.executable.id());
    assert_eq!(plan.runtime, Runtime::Libc);
    assert_eq!(plan.sites.len(), host.sites.len());
}

#[test]
fn the_kernels_device_numbers_are_those_of_stat() {
    let meta = fs::metadata("/bin/true").unwrap();
    let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let id = FileId::from_kernel(major << 20 | minor, meta.ino());
    assert_eq!(
        id,
        FileId {
            dev: meta.dev(),
            ino: meta.ino()
        }
    );
}

#[test]
fn a_python_of_its_own_is_found_by_the_path_in_its_binary() {
    let folder = tempfile::tempdir().unwrap();
    for directory in ["bin", "lib"] {
        fs::create_dir(folder.path().join(directory)).unwrap();
    }
    let library = folder.path().join("lib/libpython3.99.so.1.0");
    let built = super::compiled::shared(
        "int _PyRun_SimpleFileObject(void) { return printf(\"file\"); }\n\
         int Py_RunMain(void) { return _PyRun_SimpleFileObject(); }\n",
        &library,
    );
    let program = folder.path().join("bin/started");
    super::compiled::linked_with(&built, &program, "-Wl,-rpath,$ORIGIN/../lib");
    // The link's directory is not the program's.
    let link = folder.path().join("started");
    symlink("bin/started", &link).unwrap();
    let plan = plan_of(&link);
    assert_eq!(plan.runtime, Runtime::CPython, "{plan:#?}");
    assert!(
        plan.sites.iter().any(|site| site.file.shown() == library),
        "{plan:#?}"
    );
}
