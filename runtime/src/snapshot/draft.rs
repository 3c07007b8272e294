//! A snapshot that is being made, and how it is published: as a whole, in one step.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FlockOperation, flock, fstat};
use rustix::io::Errno;

use super::cpu::Cpu;
use super::error::{Refusal, Remedy, SnapshotError};
use super::file::{self, DISK, Fault, MANIFEST, MEMORY, STATE};
use super::folder::Folder;
use super::id::{Generation, Key, SnapshotId};
use super::manifest::{FORMAT, Kind, Manifest, Part, Region};
use super::sealed::{Record, SEALED, Sealed};
use super::step::step;
use super::store::{Lock, Snapshot, Store};
use crate::id::SandboxId;

/// What the names of snapshots begin with that are being made.
pub(super) const UNFINISHED: &str = ".new-";
/// A process that is being started may have a copy of any descriptor until its first program runs.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// A snapshot that is being made: empty files, to be filled. Dropped before it is published, nothing is
/// left of it.
#[derive(Debug)]
pub struct Draft {
    /// The guest's memory. [`write_memory`](super::write_memory) leaves out what is zero.
    pub memory: File,
    /// The processor's and the devices' state.
    pub state: File,
    /// The guest's writable layer, where it has one.
    pub disk: Option<File>,
    place: Place,
}

/// Where one is made.
#[derive(Debug)]
struct Place {
    store: Store,
    key: Key,
    name: String,
    /// Locked for as long as we live, so that nobody takes it for a leftover.
    folder: Folder,
    /// It has got its name.
    is_published: bool,
}

/// What its maker knows of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// When it was taken.
    pub kind: Kind,
    /// What took it, with its version.
    pub producer: String,
    /// Version of the state's own format.
    pub state_format: u32,
    /// The processor that the guest saw.
    pub cpu: Cpu,
    /// Where in the guest the memory is, in the order of the file.
    pub regions: Vec<Region>,
}

impl Store {
    /// Begins one, with a disk or without: empty files, to be filled and then published.
    pub fn begin(&self, key: &Key, has_disk: bool) -> Result<Draft, SnapshotError> {
        // Sixteen random digits.
        let random = SandboxId::random()
            .map_err(|error| SnapshotError::io(self.directory(), "find a new name", error))?;
        let name = format!("{UNFINISHED}{random}");
        // From the first moment on that others see it, it is locked.
        let lock = self.lock()?;
        step();
        let folder = self.root.make(&name)?;
        step();
        flock(folder.fd(), FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| self.root.failed("lock", &name, error))?;
        drop(lock);
        let place = Place {
            store: self.clone(),
            key: key.clone(),
            name,
            folder,
            is_published: false,
        };
        step();
        Ok(Draft {
            memory: place.folder.new_file(MEMORY)?,
            state: place.folder.new_file(STATE)?,
            disk: has_disk.then(|| place.folder.new_file(DISK)).transpose()?,
            place,
        })
    }
}

impl Draft {
    /// Publishes it as the newest generation of its key. Whoever else has one of its files open for
    /// writing must have closed it. Older generations go, as far as nobody uses them.
    pub fn publish(self, description: Description) -> Result<Snapshot, SnapshotError> {
        let Self {
            memory,
            state,
            disk,
            place,
        } = self;
        let has_disk = disk.is_some();
        // Our own right to write to them goes first.
        drop((memory, state, disk));
        step();
        place.publish(has_disk, description)
    }
}

impl Place {
    fn publish(
        mut self,
        has_disk: bool,
        description: Description,
    ) -> Result<Snapshot, SnapshotError> {
        let (memory, memory_record) = self.seal(MEMORY)?;
        let (state, _) = self.seal(STATE)?;
        let disk = has_disk.then(|| self.seal(DISK)).transpose()?;
        let mut manifest = Manifest {
            format: FORMAT,
            key: self.key.clone(),
            generation: Generation(1),
            kind: description.kind,
            created_unix_ms: unix_ms(),
            producer: description.producer,
            state_format: description.state_format,
            cpu: description.cpu,
            regions: description.regions,
            state,
            memory,
            disk: disk.map(|(part, _)| part),
        };
        let lock = self.store.lock()?;
        self.store
            .make_room(&lock, &self.key, self.folder.disk_bytes()?)?;
        let newest = self.store.of(&self.key)?;
        let newest = newest
            .first()
            .map_or(Generation(0), |newest| newest.generation);
        manifest.generation = newest.next();
        let bytes = manifest.to_bytes().map_err(|error| {
            let mut refusal = Refusal::from(error);
            refusal.remedy = Remedy::Mend;
            SnapshotError::Unpublished(refusal)
        })?;
        let snapshot = Snapshot {
            key: self.key.clone(),
            generation: manifest.generation,
            id: SnapshotId::of_manifest(&bytes),
        };
        let sealed = Sealed {
            snapshot: snapshot.id,
            memory: memory_record,
            disk: disk.map(|(_, record)| record),
        };
        self.folder.write_new(SEALED, &sealed.to_bytes())?;
        step();
        self.folder.write_new(MANIFEST, &bytes)?;
        step();
        self.folder.sync()?;
        self.put(&lock, &snapshot)?;
        // It is published whether or not old ones can be removed now; the next gc sees to them.
        let _ = self
            .store
            .collect(&lock, &self.key, self.store.bounds.generations);
        Ok(snapshot)
    }

    /// Gives it its name.
    fn put(&mut self, _lock: &Lock, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        let root = &self.store.root;
        let of_key = self.key.directory();
        step();
        if root.any(&of_key)?.is_none() {
            root.make(&of_key)?;
            step();
            root.sync()?;
        }
        let of_key = root.inner(&of_key).map_err(|fault| fault.of(snapshot))?;
        step();
        root.rename(&self.name, &of_key, &snapshot.directory())?;
        self.is_published = true;
        step();
        of_key.sync()?;
        root.sync()
    }

    /// Has the file on disk, for reading only, and nobody to write to it any more; then reads it.
    fn seal(&self, name: &'static str) -> Result<(Part, Record), SnapshotError> {
        let refused = |fault: Fault| match fault {
            Fault::Refused(refusal) => SnapshotError::Unpublished(refusal),
            Fault::Failed(error) => error,
            Fault::Gone => self.folder.failed("open", name, Errno::NOENT),
        };
        let (file, _) = file::open(&self.folder, name).map_err(refused)?;
        if !has_no_writer(&file).map_err(|error| self.folder.failed("lease", name, error))? {
            let refusal = Refusal::new(
                format!("{name} for writing"),
                "open in some process",
                "closed before it is published",
                Remedy::Mend,
            );
            return Err(SnapshotError::Unpublished(refusal));
        }
        step();
        let bytes = file.metadata().map_or(0, |metadata| metadata.len());
        file.sync_all()
            .map_err(|error| self.folder.unwritten(name, bytes, &error))?;
        step();
        let path = self.folder.path().join(name);
        let digest = file::digest(&file);
        let (digest, bytes) = digest.map_err(|error| SnapshotError::io(&path, "read", error))?;
        let status = fstat(&file).map_err(|error| self.folder.failed("look at", name, error))?;
        Ok((Part { digest, bytes }, Record::of(&status)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_published {
            // What is left goes at the next start.
            let _ = self.store.root.destroy(&self.name);
        }
    }
}

/// Whether no process has it open for writing, or mapped so that writes reach it.
fn has_no_writer(file: &File) -> rustix::io::Result<bool> {
    for _ in 0..TRIES {
        match lease(file, libc::F_RDLCK) {
            Ok(()) => {
                lease(file, libc::F_UNLCK)?;
                return Ok(true);
            }
            Err(Errno::AGAIN) => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// A lease for reading is had by who opened a file that nobody can write to.
fn lease(file: &File, kind: libc::c_int) -> rustix::io::Result<()> {
    // SAFETY: a call on a descriptor that is open for as long as `file` lives; it takes a number.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, kind) };
    if result == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    Err(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}
