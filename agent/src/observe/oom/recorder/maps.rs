//! The text of `/proc/PID/maps`: kept as it is, taken apart when somebody asks.

use std::fs::File;
use std::io::{self, Read as _};

use crate::observe::oom::before::{Vma, VmaFile, VmaList};
use crate::time::Boottime;

/// Bytes of the list that are kept: some 1,400 mappings.
pub(super) const KEPT: usize = 128 * 1024;
/// Bytes up to which what is not kept is still counted.
const COUNTED: usize = 1024 * 1024;

/// The list of one process, as the kernel wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Maps {
    /// When it was read.
    pub(super) at: Boottime,
    /// Whole lines.
    pub(super) text: Box<str>,
    /// Lines beyond those.
    pub(super) more: u64,
}

impl Maps {
    /// Reads that of `pid`. `room` is used again.
    pub(super) fn of(pid: u32, at: Boottime, room: &mut Vec<u8>) -> io::Result<Self> {
        Self::read(File::open(format!("/proc/{pid}/maps"))?, at, room)
    }

    fn read(mut from: impl io::Read, at: Boottime, room: &mut Vec<u8>) -> io::Result<Self> {
        room.clear();
        from.by_ref().take(KEPT as u64).read_to_end(room)?;
        let mut more = 0;
        if room.len() == KEPT {
            let whole = room.iter().rposition(|&byte| byte == b'\n');
            room.truncate(whole.map_or(0, |at| at + 1));
            // The line that was cut ends in what follows.
            let mut rest = [0; 4096];
            let mut counted = 0;
            while counted < COUNTED {
                let length = from.read(&mut rest)?;
                if length == 0 {
                    break;
                }
                counted += length;
                let lines = rest[..length].iter().filter(|&&byte| byte == b'\n');
                more += lines.count() as u64;
            }
        }
        Ok(Self {
            at,
            text: String::from_utf8_lossy(room).into(),
            more,
        })
    }

    /// Taken apart.
    pub(super) fn list(&self) -> VmaList {
        VmaList {
            at: self.at,
            vmas: self.text.lines().filter_map(vma).collect(),
            more: self.more,
        }
    }
}

/// Reads `START-END PERMS OFFSET MAJOR:MINOR INODE   NAME`.
fn vma(line: &str) -> Option<Vma> {
    let mut fields = line.splitn(6, ' ');
    let hex = |text: &str| u64::from_str_radix(text, 16).ok();
    let (start, end) = fields.next()?.split_once('-')?;
    let perms = fields.next()?;
    let offset = fields.next()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok()?;
    let name = fields.next().unwrap_or_default();
    let file = VmaFile {
        major: u32::from_str_radix(major, 16).ok()?,
        minor: u32::from_str_radix(minor, 16).ok()?,
        inode,
    };
    Some(Vma {
        start: hex(start)?,
        end: hex(end)?,
        perms: perms.to_owned(),
        offset: hex(offset)?,
        file: (inode != 0).then_some(file),
        name: name.trim_start().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_taken_apart() {
        let text = "\
55a4c0a00000-55a4c0a02000 r-xp 00001000 fe:01 1573 /opt/my app (deleted)
7ffd1c3f2000-7ffd1c413000 rw-p 00000000 00:00 0                          [stack]
7f0000000000-7f0000001000 ---p 00000000 00:00 0 
nonsense
";
        let maps = Maps::read(text.as_bytes(), Boottime(3), &mut Vec::new()).expect("read");
        let list = maps.list();
        assert_eq!((list.at, list.vmas.len(), list.more), (Boottime(3), 3, 0));
        let code = &list.vmas[0];
        assert_eq!((code.start, code.end), (0x55a4_c0a0_0000, 0x55a4_c0a0_2000));
        assert_eq!((code.offset, &*code.perms), (0x1000, "r-xp"));
        assert_eq!(code.name, "/opt/my app (deleted)");
        let file = code.file.expect("a file");
        assert_eq!((file.major, file.minor, file.inode), (0xfe, 1, 1573));
        assert_eq!((&*list.vmas[1].name, list.vmas[1].file), ("[stack]", None));
        assert_eq!(list.vmas[2].name, "");
    }

    #[test]
    fn a_long_list_is_cut_at_a_line_and_the_rest_counted() {
        let line = "7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \n";
        let lines = 2 * KEPT / line.len();
        let maps = Maps::read(line.repeat(lines).as_bytes(), Boottime(0), &mut Vec::new());
        let maps = maps.expect("read");
        assert!(maps.text.len() <= KEPT && maps.text.ends_with('\n'));
        let list = maps.list();
        assert_eq!(list.vmas.len() as u64 + list.more, lines as u64);
    }

    #[test]
    fn this_process_has_its_own_code_mapped() {
        let maps = Maps::of(std::process::id(), Boottime(0), &mut Vec::new()).expect("own maps");
        let here = this_process_has_its_own_code_mapped as fn() as usize as u64;
        let vma = maps
            .list()
            .vmas
            .into_iter()
            .find(|v| v.start <= here && here < v.end);
        assert!(vma.is_some_and(|vma| vma.perms.contains('x') && vma.file.is_some()));
    }
}
