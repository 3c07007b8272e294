//! Where the files of a capture's mappings are on this node, and which builds they are.
//!
//! The victim is gone, and with it its mount namespace's name: its files are looked for under the
//! path that it saw, from the agent's own root and from the roots of what else lives in its
//! cgroup, and count only if they are the very inode that the kernel named.

use std::path::Path;

use super::model::{Capture, Known, Mapping, Reason, VmaFile};
use crate::kernel::image::{self, FileId, ImageError, Root, Target};

/// Processes of the victim's cgroup through whose eyes is looked.
const OTHERS: usize = 4;

/// Fills in path and build id of each mapping; `others` are processes of the victim's cgroup.
pub(super) fn resolve(capture: &mut Capture, others: &[u32]) {
    let others = others.iter().take(OTHERS).map(|&pid| Root::of_process(pid));
    let roots: Vec<Root> = std::iter::once(Root::host())
        .chain(others)
        .flatten()
        .collect();
    for mapping in &mut capture.mappings {
        let Some(file) = mapping.vma.file else {
            continue;
        };
        match find(mapping, file, &roots) {
            Ok(target) => {
                mapping.path = Known::Value(target.shown().display().to_string());
                mapping.build_id = image::build_id(&target).map_or_else(
                    || Known::absent(Reason::NotApplicable, "the file has no build id"),
                    Known::Value,
                );
            }
            Err(why) => {
                mapping.build_id = Known::absent(Reason::Gone, "the file was not found");
                mapping.path = why;
            }
        }
    }
}

fn find(mapping: &Mapping, file: VmaFile, roots: &[Root]) -> Result<Target, Known<String>> {
    let name = &mapping.vma.name;
    if !name.starts_with('/') {
        let why = "its path is longer than the kernel side keeps";
        return Err(Known::absent(Reason::Full, why));
    }
    let mut why = (
        Reason::Gone,
        format!("there is no {name} on this node any more"),
    );
    for root in roots {
        match root.open(Path::new(name)) {
            Ok(target) if is(&target, file) => return Ok(target),
            Ok(_) => {
                let another = "is another file now, or that of a container";
                why = (
                    Reason::Gone,
                    format!("{name} {another}: its inode is not {}", file.inode),
                );
            }
            Err(ImageError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            }
            Err(error) => why = (Reason::Unreadable, error.to_string()),
        }
    }
    Err(Known::absent(why.0, why.1))
}

/// Whether `target` is the file that the kernel named. Overlays show another device to `stat`
/// than the one that the kernel maps from, and the same inode number.
#[must_use]
pub fn is(target: &Target, file: VmaFile) -> bool {
    let id = FileId {
        dev: rustix::fs::makedev(file.major, file.minor),
        ino: file.inode,
    };
    target.id() == id || (target.id().ino == id.ino && target.is_in_overlay())
}
