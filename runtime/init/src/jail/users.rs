//! Who `hearth-init` and the function are. On the node each sandbox has two users of its own, that
//! own nothing; inside they are root, without the powers of root, and user 1000.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, LinkNameSpaceType, UnshareFlags, clear_ambient_capability_set,
    move_into_link_name_space, remove_capability_from_bounding_set, set_capabilities,
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use super::fault::{At as _, Fault};

/// The function, inside.
const INNER: u32 = 1000;

/// What `hearth-init` needs until the function's process is there.
const UNTIL_SPAWNED: CapabilitySet = CapabilitySet::KILL
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID);

/// What it needs for good: to end all that the function has started.
const FOR_GOOD: CapabilitySet = CapabilitySet::KILL;

/// Both, on the node, and where they are mapped.
pub(super) struct Users {
    init: u32,
    namespace: Option<OwnedFd>,
}

/// Groups of who started this are none of a sandbox's, and inside they can be given up no more.
pub(super) fn forget_groups() -> Result<(), Fault> {
    set_thread_groups(&[]).at("giving up its groups")
}

/// Nor are the keys of its session. A function can be allowed `keyctl`.
pub(super) fn forget_keys() -> Result<(), Fault> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let own = std::ptr::null::<libc::c_char>();
    // SAFETY: without a name it makes a keyring that nobody else has, and reads nothing.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, own) };
    let error = io::Error::last_os_error();
    // A kernel without keys has none to give up.
    if joined < 0 && error.raw_os_error() != Some(libc::ENOSYS) {
        return Err(error).at("giving up the keys of its session");
    }
    Ok(())
}

impl Users {
    /// With a user namespace, where those are allowed.
    pub(super) fn prepare(init: u32) -> Result<Self, Fault> {
        let namespace = namespace(init).at("making a user namespace")?;
        Ok(Self { init, namespace })
    }

    /// Becomes the root of inside, with what it still needs. Nothing of this can be undone.
    pub(super) fn enter(&self) -> Result<(), Fault> {
        let id = if let Some(namespace) = &self.namespace {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::User))
                .at("entering its user namespace")?;
            0
        } else {
            set_keep_capabilities(true).at("keeping its capabilities")?;
            self.init
        };
        empty_bounding_set().at("giving up capabilities")?;
        become_user(id).at("becoming the user of the sandbox")?;
        // Of the user that was left, and kept by what has no user namespace.
        set_keep_capabilities(false).at("giving up capabilities")?;
        clear_ambient_capability_set().at("giving up capabilities")?;
        keep(UNTIL_SPAWNED).at("giving up capabilities")
    }

    /// Which of both it is.
    pub(super) fn kind(&self) -> &'static str {
        match self.namespace {
            Some(_) => "users",
            None => "users without a namespace",
        }
    }

    /// The function's number, as seen from where this process is now.
    pub(super) fn function(&self) -> u32 {
        match self.namespace {
            Some(_) => INNER,
            None => self.init + 1,
        }
    }

    /// Becomes the function's user: without any capability. Allocates nothing.
    pub(super) fn become_function(&self) -> rustix::io::Result<()> {
        become_user(self.function())
    }

    /// Gives up what only the start needed.
    #[expect(clippy::unused_self, reason = "only who has entered may call it")]
    pub(super) fn spawned(&self) -> rustix::io::Result<()> {
        keep(FOR_GOOD)
    }
}

fn become_user(id: u32) -> rustix::io::Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)
}

fn keep(capabilities: CapabilitySet) -> rustix::io::Result<()> {
    let sets = CapabilitySets {
        effective: capabilities,
        permitted: capabilities,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

/// No program that is run from here on gets a capability, whatever its file says.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // No kernel has this one, nor one after it.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A user namespace: inside 0 is `init`, 1000 is the next one, and there are no others. None where
/// the node allows none.
fn namespace(init: u32) -> io::Result<Option<OwnedFd>> {
    let (mut told, tell) = io::pipe()?;
    let (wait, go) = io::pipe()?;
    // SAFETY: this process has one thread, so that the child may do what it likes.
    let child = unsafe { libc::fork() };
    match child {
        -1 => return Err(io::Error::last_os_error()),
        0 => {
            drop((told, go));
            stay_in_namespace(tell, wait);
        }
        _ => drop((tell, wait)),
    }
    let mut error = [0; 4];
    let made = match told.read_exact(&mut error) {
        Ok(()) => match i32::from_ne_bytes(error) {
            0 => map(child, init).map(Some),
            // Not compiled in, not allowed, none left.
            libc::EINVAL | libc::EPERM | libc::ENOSPC | libc::EUSERS => Ok(None),
            error => Err(io::Error::from_raw_os_error(error)),
        },
        Err(error) => Err(error),
    };
    drop(go);
    waitpid(rustix::process::Pid::from_raw(child), WaitOptions::empty())?;
    made
}

/// The first process of the namespace; it ends when its map is written.
fn stay_in_namespace(mut tell: io::PipeWriter, mut wait: io::PipeReader) -> ! {
    // SAFETY: this process has one thread.
    let made = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER) };
    let error = made.err().map_or(0, Errno::raw_os_error);
    let _ = tell.write_all(&error.to_ne_bytes());
    let _ = wait.read(&mut [0]);
    // SAFETY: ends this process without what its parent wants done at its own end.
    unsafe { libc::_exit(0) }
}

fn map(child: i32, init: u32) -> io::Result<OwnedFd> {
    let of = |name: &str| format!("/proc/{child}/{name}");
    let function = init + 1;
    let map = format!("0 {init} 1\n{INNER} {function} 1\n");
    std::fs::write(of("setgroups"), "deny")?;
    std::fs::write(of("uid_map"), &map)?;
    std::fs::write(of("gid_map"), &map)?;
    Ok(File::open(of("ns/user"))?.into())
}
