//! What a function sees.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use hearth_runtime::sandbox::start::HugePages;

use super::scene::{layer, run, script, start};

#[test]
fn it_is_user_1000_on_a_host_of_its_own_with_nothing_but_its_layers() {
    let (below, above) = (layer(), tempfile::tempdir().unwrap());
    fs::write(below.path().join("greeting"), "hello\n").unwrap();
    fs::write(above.path().join("greeting"), "good day\n").unwrap();
    let layers = [below.path(), above.path()];
    let shown = "id; hostname; cat /greeting; ls /";
    let seen = run(&start(&layers, &["sh", "-c", shown]));
    let expected = "uid=1000 gid=1000\na-host\ngood day\nbin\ndev\ngreeting\nproc\ntmp\n";
    assert_eq!((&*seen.out, &*seen.err, &*seen.code), (expected, "", "0"));
}

#[test]
fn no_signal_is_ignored_or_held_back() {
    let layer = layer();
    // Whoever starts this ignores SIGPIPE, as every Rust program does.
    let seen = run(&start(&[layer.path()], &["cat", "/proc/self/status"]));
    for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"] {
        assert!(seen.out.contains(line), "{line} in {}", seen.out);
    }
}

#[test]
fn it_gets_its_arguments_environment_directory_and_limits() {
    let layer = layer();
    let shown = "echo $0 $1; pwd; umask; ulimit -n; ulimit -c; cat /proc/self/oom_score_adj; \
                 cat /proc/self/environ";
    let mut start = start(&[layer.path()], &["sh", "-c", shown, "zero", "one two"]);
    start.program.directory = "/bin".into();
    start.program.environment = [("A", "b c"), ("PATH", "/none:/bin")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    let seen = run(&start);
    let own = fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let score = own.trim().parse::<i32>().unwrap().max(0) + 100;
    let expected = format!("zero one two\n/bin\n0022\n128\n0\n{score}\nA=b c\0PATH=/none:/bin\0");
    // The shell adds what it knows.
    let out = seen.out.replace("PWD=/bin\0", "").replace("SHLVL=1\0", "");
    assert_eq!((&*out, &*seen.err), (&*expected, ""));
}

#[test]
fn proc_says_nothing_of_the_node_and_cannot_be_changed() {
    const MASKED: &[&str] = &[
        "acpi",
        "bus",
        "fs",
        "irq",
        "kallsyms",
        "kcore",
        "key-users",
        "keys",
        "kmsg",
        "sysrq-trigger",
        "timer_list",
        "vmallocinfo",
    ];
    let layer = layer();
    let names = MASKED.join(" ");
    let shown = format!(
        "cd /proc; for name in {names}; do [ -d $name ] && find $name -mindepth 1; \
         [ -f $name ] && cat $name; done; [ -e 1 ] && echo init; grep -c . /proc/meminfo; \
         echo hearth > /proc/sys/kernel/hostname; mkdir /proc/x; true"
    );
    let seen = run(&script(
        layer.path(),
        &shown.replace("grep -c .", "head -c 9"),
    ));
    assert_eq!(seen.out, "MemTotal:", "what programs need is there");
    assert!(
        seen.err.contains("kernel/hostname: Read-only file system"),
        "{}",
        seen.err
    );
    assert_eq!(seen.err.lines().count(), 2, "{}", seen.err);
}

#[test]
fn dev_has_five_devices_that_work_and_no_others() {
    let layer = layer();
    let shown = "ls /dev; head -c 2 /dev/zero | wc -c; head -c 2 /dev/urandom | wc -c; \
                 echo gone > /dev/null; echo out > /dev/stdout; echo err > /dev/stderr; \
                 echo in | cat /dev/stdin; cat; touch /dev/new || rm /dev/null || echo kept";
    let seen = run(&script(layer.path(), shown));
    let names = "fd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\nurandom\nzero\n";
    assert_eq!(
        seen.out,
        format!("{names}2\n2\nout\nin\nkept\n"),
        "{}",
        seen.err
    );
    assert!(seen.err.starts_with("err\n"), "{}", seen.err);
}

#[test]
fn what_it_writes_is_bounded_and_nobody_elses() {
    let layer = layer();
    let shared = layer.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(shared.join("theirs"), "as it was").unwrap();
    fs::set_permissions(shared.join("theirs"), fs::Permissions::from_mode(0o666)).unwrap();
    let full = "dd if=/dev/zero of=/dev/shm/a bs=64k count=4 2>&1 && \
                dd if=/dev/zero of=/tmp/a bs=64k count=8 2>&1 && \
                dd if=/dev/zero of=/shared/b bs=64k count=8";
    let seen = run(&script(layer.path(), full));
    assert_eq!(seen.code, "1");
    assert!(seen.err.contains("No space left on device"), "{}", seen.err);
    let changed = "echo changed > /shared/theirs; cat /shared/theirs; touch /bin/new || \
                   echo no; i=0; while true > /tmp/$i; do i=$((i+1)); done 2> /dev/null; echo $i";
    let seen = run(&script(layer.path(), changed));
    let files: u32 = seen.out.lines().last().unwrap().parse().unwrap();
    assert!((900..1024).contains(&files), "{}", seen.out);
    assert!(seen.out.starts_with("changed\nno\n"), "{}", seen.out);
    let kept = run(&script(
        layer.path(),
        "cat /shared/theirs; ls /shared /tmp /dev/shm",
    ));
    assert_eq!(
        kept.out,
        "as it was/dev/shm:\n\n/shared:\ntheirs\n\n/tmp:\n"
    );
    assert_eq!(fs::read(shared.join("theirs")).unwrap(), b"as it was");
    assert_eq!(fs::read_dir(&shared).unwrap().count(), 1);
}

#[test]
fn links_where_it_has_its_own_are_not_followed() {
    let (layer, elsewhere) = (layer(), tempfile::tempdir().unwrap());
    for name in ["proc", "dev", "tmp"] {
        symlink(elsewhere.path(), layer.path().join(name)).unwrap();
    }
    let shown = "echo a > /tmp/a; cat /tmp/a /proc/self/comm; ls -d /dev/null";
    let seen = run(&script(layer.path(), shown));
    assert_eq!((&*seen.out, &*seen.err), ("a\ncat\n/dev/null\n", ""));
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

#[test]
fn its_clocks_begin_with_it() {
    let layer = layer();
    let seen = run(&start(&[layer.path()], &["cat", "/proc/uptime"]));
    let first = |uptime: &str| uptime.split(' ').next().unwrap().parse::<f64>().unwrap();
    let node = first(&fs::read_to_string("/proc/uptime").unwrap());
    assert!(first(&seen.out) < node / 2.0, "{} of {node}", seen.out);
}

#[test]
fn a_file_that_sets_the_user_sets_none() {
    let layer = layer();
    let program = layer.path().join("bin/become");
    fs::copy("/bin/busybox", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o6755)).unwrap();
    symlink("become", layer.path().join("bin/id-of-root")).unwrap();
    let shown = "ln -s /bin/become /tmp/id; /tmp/id; \
                 echo 'cat /proc/self/status' > /tmp/s; ln -s /bin/become /tmp/sh; /tmp/sh /tmp/s";
    let seen = run(&script(layer.path(), shown));
    assert!(seen.out.starts_with("uid=1000 gid=1000\n"), "{}", seen.out);
    assert!(
        seen.out.contains("CapPrm:\t0000000000000000\n"),
        "{}",
        seen.out
    );
}

#[test]
fn refused_calls_are_counted_by_name() {
    let layer = layer();
    let shown = "unshare -r true; unshare -n true; mount -t tmpfs none /tmp; chroot /tmp; echo $?";
    let seen = run(&script(layer.path(), shown));
    let expected = [("chroot", 1), ("mount", 1), ("unshare", 2)];
    let expected: BTreeMap<_, _> = expected.map(|(name, n)| (name.to_owned(), n)).into();
    assert_eq!(seen.refused, expected, "{}", seen.err);
}

#[test]
fn huge_pages_are_kept_away_where_asked() {
    let layer = layer();
    for (asked, enabled) in [(HugePages::Node, "1"), (HugePages::Never, "0")] {
        let mut start = start(&[layer.path()], &["cat", "/proc/self/status"]);
        start.huge_pages = asked;
        let seen = run(&start).out;
        assert!(
            seen.contains(&format!("THP_enabled:\t{enabled}\n")),
            "{asked:?}: {seen}"
        );
    }
}
