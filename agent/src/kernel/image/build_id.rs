//! What tells one build of a program from another of the same name: its build id.

use super::Target;
use super::elf::Elf;

/// Sections that hold it: of linkers, and of Go's own.
const SECTIONS: [&str; 2] = [".note.gnu.build-id", ".note.go.buildid"];
/// The longest such section.
const LONGEST: u64 = 4096;
/// Header of a note: length of its name, length of its content, type.
const HEADER: usize = 12;

/// The build id of the ELF file `target`, in hexadecimal; `None` where it has none.
#[must_use]
pub fn build_id(target: &Target) -> Option<String> {
    let elf = Elf::open(target.clone()).ok()?;
    SECTIONS.iter().find_map(|name| {
        let section = elf.section(name)?;
        let mut note = vec![0; usize::try_from(section.size.min(LONGEST)).ok()?];
        elf.target().read(section.offset, &mut note).ok()?;
        content(&note)
    })
}

/// The content of the first note.
fn content(note: &[u8]) -> Option<String> {
    let word = |at: usize| {
        let bytes = note.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let begin = HEADER.checked_add(word(0)?.checked_next_multiple_of(4)?)?;
    let content = note.get(begin..begin.checked_add(word(4)?)?)?;
    let digits = content.iter().map(|byte| format!("{byte:02x}"));
    Some(digits.collect()).filter(|id: &String| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::kernel::image::Root;

    #[test]
    fn the_build_id_is_that_of_readelf() {
        let shell = std::fs::canonicalize("/bin/sh").expect("a shell");
        let target = Root::host().expect("a root").open(&shell).expect("opens");
        let ours = build_id(&target);
        let Ok(readelf) = Command::new("readelf").arg("-n").arg(&shell).output() else {
            assert!(ours.is_some_and(|id| id.len() == 40));
            return;
        };
        let text = String::from_utf8_lossy(&readelf.stdout).into_owned();
        let id = text
            .split("Build ID: ")
            .nth(1)
            .map(|rest| rest[..40].to_owned());
        assert_eq!(ours, id);
    }

    #[test]
    fn a_broken_note_has_no_content() {
        for note in [
            &b""[..],
            &[4, 0, 0, 0],
            &[0xff; 16],
            &[4, 0, 0, 0, 0xff, 0, 0, 0],
        ] {
            assert_eq!(content(note), None);
        }
    }
}
