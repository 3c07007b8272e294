//! What `cargo xtask build` builds for these tests.

use std::fs::File;

/// The flat guest: beside the agent, which is above the tests, or with them.
pub(crate) fn flat_guest() -> File {
    let test = std::env::current_exe().expect("the path of this test");
    let mut folders = test.ancestors().skip(1).take(2);
    let opened = folders.find_map(|folder| File::open(folder.join("hearth-flat-guest")).ok());
    opened.expect("no hearth-flat-guest: `cargo xtask build` builds it")
}
