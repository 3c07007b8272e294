//! Uprobes of programs: attached once a file, for every process that maps it.

use std::{
    collections::{HashSet, VecDeque},
    path::Path,
};

use aya::{
    Ebpf,
    programs::{
        Program as Loaded, ProgramError,
        uprobe::{UProbeAttachLocation, UProbeAttachPoint, UProbeLink, UProbeScope},
    },
};
use hearth_abi::site;
use thiserror::Error;

use super::image::{Boundary, FileId, ImageError, Options, Plan, Root, Site, plan};

/// Uprobes that are attached, at most. Each link is a file
/// descriptor (of which a process has 1,024 by default) and a breakpoint; the oldest go first.
const LINKS: usize = 700;

/// An address cannot be watched.
#[derive(Debug, Error)]
pub enum EnrolError {
    /// The file does not tell.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The kernel refused.
    #[error("uprobe on {symbol} in {file}: {source}")]
    Attach {
        /// Function.
        symbol: String,
        /// File.
        file: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The object is not ours.
    #[error("the kernel object has no uprobe program {0}")]
    NoProgram(&'static str),
    /// The symbol of a ready rule is not in its file.
    #[error("ready rule uprobe:{file}:{symbol}: {source}")]
    Ready {
        /// File.
        file: String,
        /// Function.
        symbol: String,
        /// Why.
        source: Box<ProgramError>,
    },
}

/// What is attached.
#[derive(Debug, Default)]
pub struct Uprobes {
    places: HashSet<Place>,
    links: VecDeque<(Place, UProbeLink)>,
    evicted: u64,
    /// Links at the front that stay: those of files that most programs share.
    pinned: usize,
    /// Files that lost a uprobe since somebody asked.
    forgotten: Vec<FileId>,
    /// Of ready rules: attached for as long as the probes are.
    ready: Vec<UProbeLink>,
}

type Place = (FileId, u64, bool);

impl Uprobes {
    /// Uprobes attached now.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.links.len()
    }

    /// Uprobes detached to make room.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// Finds the boundaries of an executable and attaches to those that are not attached yet.
    pub fn enrol(
        &mut self,
        ebpf: &mut Ebpf,
        root: &Root,
        executable: &Path,
        options: &Options,
    ) -> Result<Plan, EnrolError> {
        let plan = plan(root, executable, options)?;
        for site in &plan.sites {
            self.attach(ebpf, site)?;
        }
        Ok(plan)
    }

    /// Attaches to one site, unless it is attached.
    pub fn attach(&mut self, ebpf: &mut Ebpf, site: &Site) -> Result<(), EnrolError> {
        let is_main = site.what == Boundary::Main;
        let place = (site.id, site.offset, is_main);
        if self.places.contains(&place) {
            return Ok(());
        }
        let program = if is_main { "main_reached" } else { "entry" };
        let mut cookie = 0;
        if site.provisional {
            cookie |= site::PROVISIONAL;
        }
        if site.main_in_rdi {
            cookie |= site::MAIN_IN_RDI;
        }
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::AbsoluteOffset(site.offset),
            cookie: Some(cookie),
        };
        let link = attach(ebpf, program, point, &site.file.attach_path())?.map_err(|source| {
            EnrolError::Attach {
                symbol: site.symbol.clone(),
                file: site.file.shown().display().to_string(),
                source,
            }
        })?;
        self.keep(place, link);
        Ok(())
    }

    /// Attaches the uprobe of a ready rule.
    pub fn attach_ready(
        &mut self,
        ebpf: &mut Ebpf,
        file: &Path,
        symbol: &str,
    ) -> Result<(), EnrolError> {
        let point = UProbeAttachPoint {
            location: UProbeAttachLocation::Symbol(symbol),
            cookie: None,
        };
        let link =
            attach(ebpf, "user_probe", point, file)?.map_err(|source| EnrolError::Ready {
                file: file.display().to_string(),
                symbol: symbol.to_owned(),
                source,
            })?;
        self.ready.push(link);
        Ok(())
    }

    /// What is attached now is not detached to make room.
    pub fn pin(&mut self) {
        self.pinned = self.links.len();
    }

    /// Files that lost a uprobe since this was last asked.
    pub fn take_forgotten(&mut self) -> Vec<FileId> {
        std::mem::take(&mut self.forgotten)
    }

    fn keep(&mut self, place: Place, link: UProbeLink) {
        if self.links.len() >= LINKS
            && let Some((oldest, _link)) = self.links.remove(self.pinned.min(LINKS / 2))
        {
            self.places.remove(&oldest);
            // Its file is planned for again when it is next seen.
            self.forgotten.push(oldest.0);
            self.evicted += 1;
        }
        self.places.insert(place);
        self.links.push_back((place, link));
    }
}

fn attach(
    ebpf: &mut Ebpf,
    program: &'static str,
    point: UProbeAttachPoint<'_>,
    file: &Path,
) -> Result<Result<UProbeLink, Box<ProgramError>>, EnrolError> {
    let Some(Loaded::UProbe(loaded)) = ebpf.program_mut(program) else {
        return Err(EnrolError::NoProgram(program));
    };
    Ok(
        crate::privilege::raised(|| loaded.attach(point, file, UProbeScope::AllProcesses))
            .and_then(|id| loaded.take_link(id))
            .map_err(Box::new),
    )
}
