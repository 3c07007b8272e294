//! Puts the kernel object, deflated, where the library embeds it from.
//!
//! The object has a toolchain of its own, so cargo cannot build it here: see
//! `cargo xtask build`.

use std::env;
use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::ZlibEncoder;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=HEARTH_BPF_OBJECT");
    let object = if let Some(path) = env::var_os("HEARTH_BPF_OBJECT") {
        PathBuf::from(path)
    } else {
        let agent = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
        agent.join("../target/bpf/hearth.bpf.o")
    };
    println!("cargo::rerun-if-changed={}", object.display());
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("hearth.bpf.o.z");
    if let Err(error) = deflate(&object, &embedded) {
        println!(
            "cargo::error=no kernel object at {} ({error}): run `cargo xtask build`, or name one \
             in HEARTH_BPF_OBJECT",
            object.display()
        );
    }
    Ok(())
}

fn deflate(object: &Path, embedded: &Path) -> io::Result<()> {
    let mut encoder = ZlibEncoder::new(File::create(embedded)?, Compression::best());
    encoder.write_all(&fs::read(object)?)?;
    encoder.finish()?;
    Ok(())
}
