//! `hearth-programs FOLDER`: builds the programs that tests inside of a VM run, into FOLDER.
//! There, `HEARTH_PROGRAMS` names the folder to the tests.

use std::path::Path;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let folder = std::env::args_os()
        .nth(1)
        .context("usage: hearth-programs FOLDER")?;
    hearth_tests::programs::prebuild(Path::new(&folder))
}
