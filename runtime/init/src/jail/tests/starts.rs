//! What a function's owner is told when it does not start, and nodes that lack something.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::scene::{layer, script, spawn, spawn_where, start};

/// What was said instead of a start.
fn refused(start: &hearth_runtime::sandbox::start::Start) -> String {
    spawn(start).err().expect("no start")
}

#[test]
fn a_program_that_cannot_be_run_is_told_with_its_reason() {
    let layer = layer();
    let file = |name: &str, content: &str, mode| {
        let path = layer.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    file("script", "#!/usr/bin/python3\n", 0o755);
    file("plain", "#!/bin/sh\n", 0o644);
    file("text", "no program at all\n", 0o755);
    let cases = [
        ("/none", "No such file or directory"),
        ("none", "no directory of PATH has it"),
        (
            "/script",
            "what is to run it (the program on its `#!` line, or its dynamic loader) is not",
        ),
        ("/plain", "Permission denied"),
        (
            "/text",
            "neither a program for this processor nor a script with `#!`",
        ),
        ("/bin", "Permission denied"),
        ("a\0b", "a NUL byte"),
        ("", "there must be the name of a program"),
    ];
    for (command, why) in cases {
        let told = refused(&start(&[layer.path()], &[command]));
        assert!(
            told.starts_with(&format!("program: `{command}` cannot be run: ")),
            "{told}"
        );
        assert!(told.contains(why), "{told}");
    }
}

#[test]
fn a_directory_or_a_layer_that_is_not_there_is_named() {
    let layer = layer();
    let mut elsewhere = script(layer.path(), "true");
    elsewhere.program.directory = "/none".into();
    let told = refused(&elsewhere);
    assert!(
        told.contains("changing to its directory /none: No such file"),
        "{told}"
    );
    let link = layer.path().join("link");
    symlink(layer.path(), &link).unwrap();
    let none = layer.path().join("none");
    for (path, why) in [
        (&*none, "No such file or directory"),
        (&*link, "name it by a path without links"),
        (&*layer.path().join("bin/busybox"), "Not a directory"),
        ("relative".as_ref(), "not an absolute path"),
    ] {
        let told = refused(&start(&[layer.path(), path], &["true"]));
        let begins = format!("fault: opening the layers: layer {}: ", path.display());
        assert!(told.starts_with(&begins) && told.contains(why), "{told}");
    }
    let told = refused(&start(&[], &["true"]));
    assert!(
        told.contains("layers: there are 0; there must be 1 to"),
        "{told}"
    );
}

#[test]
fn a_call_that_no_function_may_make_is_told_before_anything_is_made() {
    let layer = layer();
    let mut start = script(layer.path(), "true");
    start.syscalls = vec!["mount".into()];
    let told = refused(&start);
    assert!(
        told.contains("system call `mount` reaches out of the sandbox"),
        "{told}"
    );
}

/// As where `user.max_user_namespaces` is 0.
fn no_user_namespaces() {
    let word = |code: u32, jt, jf, k: u32| libc::sock_filter {
        code: code.try_into().unwrap(),
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let (jump, end) = (libc::BPF_JMP | libc::BPF_K, libc::BPF_RET | libc::BPF_K);
    let unshare = u32::try_from(libc::SYS_unshare).unwrap();
    let denied = libc::SECCOMP_RET_ERRNO | libc::ENOSPC.unsigned_abs();
    let mut program = [
        word(load, 0, 0, 0),
        word(jump | libc::BPF_JEQ, 0, 3, unshare),
        word(load, 0, 0, 16),
        word(
            jump | libc::BPF_JSET,
            0,
            1,
            libc::CLONE_NEWUSER.cast_unsigned(),
        ),
        word(end, 0, 0, denied),
        word(end, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: 6,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the six instructions.
    let set = unsafe {
        let filter = libc::SECCOMP_MODE_FILTER;
        libc::prctl(libc::PR_SET_SECCOMP, filter, &raw const program)
    };
    assert_eq!(set, 0);
}

#[test]
fn without_user_namespaces_it_is_another_user_without_power() {
    let layer = layer();
    let shown = "id -u; id -g; cat /proc/self/status; touch /tmp/mine && echo wrote";
    let running = spawn_where(&script(layer.path(), shown), no_user_namespaces).unwrap();
    assert!(
        running.steps.contains("\"users without a namespace\""),
        "{}",
        running.steps
    );
    let user = running.user;
    let seen = running.wait();
    assert!(
        seen.out.starts_with(&format!("{user}\n{user}\n")),
        "{}",
        seen.out
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(
            seen.out.contains(&format!("{set}:\t0000000000000000\n")),
            "{}",
            seen.out
        );
    }
    assert!(seen.out.ends_with("wrote\n"), "{}", seen.err);
}
