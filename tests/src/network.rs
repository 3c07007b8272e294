//! Network namespaces, and sockets that lose what arrives at them.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::child::Guard;

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace with nothing but its loopback device; a process and a thread are in it. It
/// ends with this value.
#[derive(Debug)]
pub struct Namespace {
    work: mpsc::Sender<Work>,
    child: Guard,
    /// Its inode number.
    pub inode: u64,
}

/// Work under way in a namespace.
#[derive(Debug)]
pub struct Running<T>(mpsc::Receiver<Result<T>>);

impl<T> Running<T> {
    /// What came of it.
    pub fn wait(self) -> Result<T> {
        self.0
            .recv_timeout(Duration::from_mins(4))
            .context("the work in the namespace did not end")?
    }
}

impl Namespace {
    /// A new one; its loopback device sends packets of `mtu` bytes.
    pub fn new(mtu: i32) -> Result<Self> {
        let (tell, told) = mpsc::channel();
        let (work, jobs) = mpsc::channel::<Work>();
        thread::spawn(move || {
            let made = enter(mtu);
            let went_well = made.is_ok();
            // Whoever asked is gone only if the test has failed already.
            let _ = tell.send(made);
            if went_well {
                for work in jobs {
                    work();
                }
            }
        });
        let child = told.recv().context("the thread of the namespace")??;
        Ok(Self {
            work,
            inode: inode(&folder(child.0.id()))?,
            child,
        })
    }

    /// Begins work in it; threads that the work makes are in it, too.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<Running<T>> {
        let (tell, told) = mpsc::channel();
        let work = move || drop(tell.send(work()));
        ensure!(
            self.work.send(Box::new(work)).is_ok(),
            "the thread of the namespace has ended"
        );
        Ok(Running(told))
    }

    /// A counter of the kernel's in it.
    pub fn counter(&self, protocol: &str, name: &str) -> Result<u64> {
        counter(&folder(self.process()), protocol, name)
    }

    /// A process that does nothing but be in it.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.0.id()
    }
}

fn folder(process: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{process}"))
}

/// A counter of the namespace that the calling thread is in.
pub fn own_counter(protocol: &str, name: &str) -> Result<u64> {
    counter(Path::new("/proc/thread-self"), protocol, name)
}

/// A counter of the namespace of a process or thread, by its folder in `/proc`.
pub fn counter(process: &Path, protocol: &str, name: &str) -> Result<u64> {
    for file in ["net/snmp", "net/netstat"] {
        let path = process.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let mut lines = text
            .lines()
            .filter_map(|line| line.strip_prefix(protocol)?.strip_prefix(": "));
        let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
            continue;
        };
        let column = names.split(' ').position(|column| column == name);
        if let Some(value) = column.and_then(|column| values.split(' ').nth(column)) {
            return value.parse().with_context(|| format!("{name} is {value}"));
        }
    }
    bail!("the kernel has no counter {protocol} {name}")
}

/// Inode number of the network namespace of a process or thread, by its folder in `/proc`.
pub fn inode(process: &Path) -> Result<u64> {
    let link = fs::read_link(process.join("ns/net")).context("read the namespace's link")?;
    let link = link.to_string_lossy();
    let inode = link.strip_prefix("net:[").and_then(|l| l.strip_suffix(']'));
    inode.and_then(|inode| inode.parse().ok()).context("a link")
}

fn enter(mtu: i32) -> Result<Guard> {
    // SAFETY: of this thread alone, which was made for it.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    ensure!(
        result == 0,
        "unshare: {}; is this run as root?",
        io::Error::last_os_error()
    );
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).context("a socket for ioctl")?;
    // SAFETY: integers and a pointer that nobody follows: all zeros is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_mtu = mtu;
    ioctl(&socket, libc::SIOCSIFMTU, &request).context("set the MTU of lo")?;
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_UP)?;
    ioctl(&socket, libc::SIOCSIFFLAGS, &request).context("set lo up")?;
    let child = Command::new("sleep").arg("3600").spawn();
    child.map(Guard).context("run sleep in the namespace")
}

fn ioctl(socket: impl AsFd, what: libc::Ioctl, request: &libc::ifreq) -> io::Result<()> {
    // SAFETY: the request is what these take, and outlives the call.
    let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), what, &raw const *request) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Of packets for a socket, those that it loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loses {
    /// All.
    Everything,
    /// None.
    Nothing,
    /// One in so many, by chance.
    OneIn(u32),
}

/// From now on a socket loses packets as if they had not arrived; connections that it accepts
/// inherit that.
pub fn lose(socket: impl AsFd, what: Loses) -> Result<()> {
    const KEEP: u32 = u32::MAX;
    let code = |code: u32, jt, jf, k| -> Result<libc::sock_filter> {
        let code = u16::try_from(code)?;
        Ok(libc::sock_filter { code, jt, jf, k })
    };
    let random = libc::SKF_AD_OFF.wrapping_add(libc::SKF_AD_RANDOM);
    let mut filter = match what {
        Loses::Everything => vec![code(libc::BPF_RET, 0, 0, 0)?],
        Loses::Nothing => vec![code(libc::BPF_RET, 0, 0, KEEP)?],
        Loses::OneIn(many) => vec![
            code(
                libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
                0,
                0,
                random.cast_unsigned(),
            )?,
            code(libc::BPF_ALU | libc::BPF_MOD, 0, 0, many)?,
            code(libc::BPF_JMP | libc::BPF_JEQ, 0, 1, 0)?,
            code(libc::BPF_RET, 0, 0, 0)?,
            code(libc::BPF_RET, 0, 0, KEEP)?,
        ],
    };
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len())?,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions outlive the call, and their sizes are told.
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            libc::socklen_t::try_from(size_of::<libc::sock_fprog>())?,
        )
    };
    ensure!(
        result == 0,
        "attach a filter: {}",
        io::Error::last_os_error()
    );
    Ok(())
}
