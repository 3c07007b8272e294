//! What a function sees.

use super::scene::{layer, run, script, start};

#[test]
fn it_is_user_1000_on_a_host_of_its_own_with_nothing_but_its_layers() {
    let layer = layer();
    std::fs::write(layer.path().join("greeting"), "hello\n").unwrap();
    let seen = run(&script(layer.path(), "id; hostname; cat /greeting; ls /"));
    let expected = "uid=1000 gid=1000\na-host\nhello\nbin\ndev\ngreeting\nproc\ntmp\n";
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
