//! From the file that is executed to the ELF file that runs: `#!` lines and `env`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::libraries::file_name;
use super::{ImageError, Root, Target};

/// What the kernel reads of a script to find its interpreter (`BINPRM_BUF_SIZE`).
const FIRST_BYTES: u64 = 256;
/// Interpreters in a row: the kernel allows 5, and `env` adds a turn to each.
const MAX_TURNS: usize = 10;
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file that runs when `exe` is executed, and what is worth saying about the way there.
pub(super) fn executable(
    root: &Root,
    exe: &Path,
    path: Option<&OsStr>,
) -> Result<(Target, Vec<String>), ImageError> {
    let mut notes = Vec::new();
    let mut current = exe.to_owned();
    for _ in 0..MAX_TURNS {
        let target = root.open(&current)?;
        let Some(line) = first_line(&target)? else {
            return Ok((target, notes));
        };
        let script = |what: &str| ImageError::Script {
            path: current.clone(),
            what: what.into(),
        };
        let (interpreter, argument) = split(&line).ok_or_else(|| script("`#!` names nothing"))?;
        if interpreter.is_relative() {
            return Err(script(
                "`#!` names a path relative to an unknown working directory",
            ));
        }
        let next = if file_name(&interpreter) == "env" {
            let name = env_name(&argument)
                .ok_or_else(|| script("`#!` runs env in a way that names no program"))?;
            search(root, &name, path).ok_or_else(|| {
                script(&format!(
                    "`{}` is in no directory of PATH",
                    name.to_string_lossy()
                ))
            })?
        } else {
            interpreter
        };
        notes.push(format!(
            "{} is a script run by {}",
            current.display(),
            next.display()
        ));
        current = next;
    }
    let what = format!("more than {MAX_TURNS} interpreters in a row");
    Err(ImageError::Script {
        path: exe.to_owned(),
        what,
    })
}

/// What follows `#!` on the first line; `None` if the file does not begin so.
fn first_line(target: &Target) -> Result<Option<Vec<u8>>, ImageError> {
    let mut bytes = vec![0; usize::try_from(target.len().min(FIRST_BYTES)).unwrap_or(0)];
    target.read(0, &mut bytes)?;
    let Some(rest) = bytes.strip_prefix(b"#!") else {
        return Ok(None);
    };
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'\n' | 0))
        .unwrap_or(rest.len());
    Ok(Some(rest[..end].to_vec()))
}

/// Interpreter, and all that follows it as the one argument that the kernel makes of it.
fn split(line: &[u8]) -> Option<(PathBuf, Vec<u8>)> {
    let line = line.trim_ascii();
    let end = line
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(line.len());
    let (interpreter, rest) = line.split_at(end);
    let interpreter = PathBuf::from(OsStr::from_bytes(interpreter));
    (!interpreter.as_os_str().is_empty()).then(|| (interpreter, rest.trim_ascii().to_vec()))
}

/// The program that `env ARGUMENT` runs: the first word that is neither an option nor an
/// assignment. Only `-S` splits its argument; without it the whole is the name.
fn env_name(argument: &[u8]) -> Option<OsString> {
    let words: Vec<&[u8]> = argument
        .split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .collect();
    let name = match words.as_slice() {
        [only] if !only.starts_with(b"-") => Some(*only),
        [first, ..] if first.starts_with(b"-S") || first.starts_with(b"--split-string") => words
            .iter()
            .map(|word| word.strip_prefix(b"-S").unwrap_or(word))
            .find(|word| !word.is_empty() && !word.starts_with(b"-") && !word.contains(&b'=')),
        _ => None,
    };
    name.filter(|name| !name.contains(&b'='))
        .map(|name| OsString::from_vec(name.to_vec()))
}

/// `name` in the directories of `path`, as `execvp` finds it.
fn search(root: &Root, name: &OsStr, path: Option<&OsStr>) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(PathBuf::from(name));
    }
    let path = path.unwrap_or(OsStr::new(USUAL_PATH));
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .take(64)
        .map(|directory| directory.join(name))
        .find(|candidate| {
            root.open(candidate)
                .is_ok_and(|found| found.is_executable())
        })
}
