//! Files that lie: no panic, no endless loop, no reading beyond the bounds.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::compiled::{C, Symbols, go};
use super::oracle::{has, output};
use super::plan_of;
use crate::kernel::image::{ImageError, Options, Root, plan};

/// Plans the bytes as a program; whatever comes out, it comes.
fn plan_bytes(folder: &Path, bytes: &[u8]) {
    let path = folder.join("broken");
    fs::write(&path, bytes).unwrap();
    let root = Root::host().unwrap();
    for allow_single_step in [false, true] {
        let options = Options {
            allow_single_step,
            ..Options::default()
        };
        let _ = plan(&root, &path, &options);
    }
}

/// Runs `cases` of mutations from a fixed seed.
fn mutated(cases: u32, original: &[u8], places: &[std::ops::Range<usize>]) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let places = places.to_vec();
    let place = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let change = prop_oneof![any::<u8>(), Just(0), Just(0xff), Just(0x7f)];
    let changes = prop::collection::vec((place, change), 1..6);
    let cut = prop_oneof![4 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    TestRunner::new_with_rng(config, seed)
        .run(&(changes, cut), |(changes, cut)| {
            let mut bytes = original.to_vec();
            for ((range, at), value) in changes {
                let range = range.get(&places);
                bytes[range.start + at.index(range.len())] = value;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            plan_bytes(folder.path(), &bytes);
            Ok(())
        })
        .unwrap();
}

/// Where `readelf` says that a section lies in the file.
fn section(file: &Path, name: &str) -> std::ops::Range<usize> {
    let table = output(Command::new("readelf").args(["-SW"]).arg(file));
    let line = table
        .lines()
        .find(|line| line.contains(&format!("] {name} ")))
        .unwrap();
    let words: Vec<&str> = line.split_once(']').unwrap().1.split_whitespace().collect();
    let hex = |word| usize::from_str_radix(word, 16).unwrap();
    hex(words[3])..hex(words[3]) + hex(words[4])
}

#[test]
fn broken_elf_files_are_refused_or_planned_without_harm() {
    let built = C::ALL[1].build(Symbols::Kept);
    let bytes = fs::read(&built.path).unwrap();
    let places = [
        0..64,
        64..64 + 13 * 56,
        bytes.len() - 64 * 30..bytes.len(),
        section(&built.path, ".dynamic"),
        section(&built.path, ".dynstr"),
        section(&built.path, ".symtab"),
        section(&built.path, ".text"),
    ];
    mutated(1000, &bytes, &places);
}

#[test]
fn broken_go_function_tables_are_refused_or_planned_without_harm() {
    if !has("go") {
        eprintln!("go is not installed");
        return;
    }
    let built = go(&["-ldflags=-s -w"]);
    let bytes = fs::read(&built.path).unwrap();
    let table = section(&built.path, ".gopclntab");
    mutated(
        150,
        &bytes,
        &[table.start..table.start + 72, table.clone(), 0..64],
    );
}

#[test]
fn a_table_that_claims_more_than_the_file_has_is_named() {
    let built = C::ALL[1].build(Symbols::Kept);
    let mut bytes = fs::read(&built.path).unwrap();
    // e_phoff beyond the end.
    bytes[32..40].copy_from_slice(&(1_u64 << 40).to_le_bytes());
    let path = built.path.with_extension("far");
    fs::write(&path, bytes).unwrap();
    let refused = plan(&Root::host().unwrap(), &path, &Options::default());
    assert!(
        matches!(
            refused,
            Err(ImageError::Broken {
                what: "program headers",
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn what_is_not_a_program_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let root = Root::host().unwrap();
    let refused = |path: &Path| {
        plan(&root, path, &Options::default())
            .unwrap_err()
            .to_string()
    };
    let pipe = folder.path().join("pipe");
    output(Command::new("mkfifo").arg(&pipe));
    assert!(refused(&pipe).contains("not a regular file"));
    assert!(refused(folder.path()).contains("not a regular file"));
    assert!(refused(Path::new("/dev/null")).contains("not a regular file"));
    assert!(refused(&folder.path().join("none")).contains("No such file"));
    let text = folder.path().join("text");
    fs::write(&text, "just words\n").unwrap();
    assert!(refused(&text).contains("neither an ELF file nor a `#!` script"));
    let ring = folder.path().join("ring");
    symlink(&ring, &ring).unwrap();
    assert!(refused(&ring).contains("symbolic link"));
    let arm = folder.path().join("arm");
    let mut bytes = fs::read("/bin/true").unwrap();
    bytes[18] = 183;
    fs::write(&arm, bytes).unwrap();
    assert!(refused(&arm).contains("ELF for machine 183 (64 bit)"));
}

#[test]
fn a_program_whose_libraries_are_missing_keeps_its_main() {
    let built = C::ALL[1].build(Symbols::Kept);
    let empty = tempfile::tempdir().unwrap();
    fs::copy(&built.path, empty.path().join("program")).unwrap();
    let root = Root::at(empty.path()).unwrap();
    let plan = plan(&root, Path::new("/program"), &Options::default()).unwrap();
    let notes = plan.notes.join("\n");
    assert!(notes.contains("library libc.so.6 is not found"), "{notes}");
    assert!(notes.contains("its ELF entry is used"), "{notes}");
    assert_eq!(plan.sites.len(), 2, "{plan:#?}");
    assert_eq!(plan_of(&built.path).sites.len(), 2);
}
