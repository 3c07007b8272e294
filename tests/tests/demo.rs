//! The story that `cargo xtask demo` tells, from a burst to the end, asserted act by act.

use anyhow::Result;
use hearth_tests::demo::{self, Narrator, Stop};

/// What the test prints where it fails.
struct Plain;

impl Narrator for Plain {
    fn act(&mut self, title: &str) {
        println!("{title}");
    }

    fn does(&mut self, text: &str) {
        println!("  > {text}");
    }

    fn sees(&mut self, text: &str) {
        println!("    {text}");
    }
}

#[test]
fn every_act_shows_what_it_should() -> Result<()> {
    demo::tell(&mut Plain, &Stop::default())
}
