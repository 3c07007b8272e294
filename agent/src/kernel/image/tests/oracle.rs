//! What binutils and the compilers say.

use std::path::Path;
use std::process::Command;

/// Standard output of a command that must succeed.
pub(super) fn output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let errors = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

/// Whether a tool is there: tests of runtimes that are not installed say so and end.
pub(super) fn has(tool: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {tool}")])
        .output();
    found.is_ok_and(|found| found.status.success())
}

/// Addresses of the symbols whose name begins so, by `nm`.
pub(super) fn addresses(file: &Path, beginning: &str, dynamic: bool) -> Vec<u64> {
    let mut nm = Command::new("nm");
    nm.arg("--defined-only").arg(file);
    if dynamic {
        nm.arg("-D");
    }
    let mut found: Vec<u64> = output(&mut nm)
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let address = u64::from_str_radix(words.next()?, 16).ok()?;
            let code = matches!(words.next()?, "T" | "t" | "W");
            let name = words.next()?;
            (code && name.split('@').next()?.starts_with(beginning)).then_some(address)
        })
        .collect();
    found.dedup();
    found
}

/// The file offset of an address, by the segments that `readelf` prints.
pub(super) fn offset_of(file: &Path, address: u64) -> u64 {
    let table = output(Command::new("readelf").args(["-lW"]).arg(file));
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).unwrap();
    table
        .lines()
        .filter(|line| line.trim_start().starts_with("LOAD"))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .map(|words| (hex(words[1]), hex(words[2]), hex(words[4])))
        .find(|(_, start, size)| (*start..start + size).contains(&address))
        .map(|(offset, start, _)| address - start + offset)
        .unwrap()
}

/// The ELF entry, by `readelf`.
pub(super) fn entry_of(file: &Path) -> u64 {
    let header = output(Command::new("readelf").arg("-hW").arg(file));
    let line = header
        .lines()
        .find(|line| line.contains("Entry point"))
        .unwrap();
    u64::from_str_radix(line.rsplit("0x").next().unwrap(), 16).unwrap()
}

/// The instruction at an address, by `objdump`: mnemonic and operands.
pub(super) fn instruction_at(file: &Path, address: u64) -> String {
    let text = output(
        Command::new("objdump")
            .args(["-d", "--no-show-raw-insn"])
            .arg(format!("--start-address={address:#x}"))
            .arg(format!("--stop-address={:#x}", address + 16))
            .arg(file),
    );
    let line = text
        .lines()
        .find(|line| line.contains(":\t"))
        .unwrap_or_default()
        .to_owned();
    line.split_once(":\t")
        .map(|(_, text)| text.trim().to_owned())
        .unwrap_or_default()
}

/// Whether the kernel emulates what `objdump` calls so.
pub(super) fn is_emulated(instruction: &str) -> bool {
    let mnemonic = instruction.split_whitespace().next().unwrap_or_default();
    match mnemonic {
        "nop" => instruction == "nop",
        "push" => instruction.contains("%r"),
        "call" | "jmp" => !instruction.contains('*'),
        _ => mnemonic.starts_with('j'),
    }
}
