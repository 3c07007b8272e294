//! Boots one of Debian's kernels under QEMU, runs one command there, brings back what it said.
//!
//! Emulated throughout: neither `/dev/kvm` nor BPF on the host is needed.

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Component, Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use hearth_vm_init::{COMMAND, ENVIRONMENT, Frame, MODULES};

use crate::agent::Profile;
use crate::initramfs::Initramfs;
use crate::kernels::Kernel;
use crate::sandboxes;
use crate::workspace::Workspace;

/// Where the agent is in the VM.
pub(crate) const AGENT: &str = "/usr/bin/hearth";

/// The environment of every command in the VM.
const BASE_ENVIRONMENT: [(&str, &str); 4] = [
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("TMPDIR", "/tmp"),
    ("HEARTH_BIN", AGENT),
];

/// What carries frames out of the VM, each before what needs it, and what sandboxes mount.
const MODULES_LOADED: [&str; 11] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_console",
    "overlay",
    "llc",
    "stp",
    "bridge",
    "veth",
];

/// What gives a VM its own `/dev/kvm`.
const MODULES_OF_KVM: [&str; 3] = ["irqbypass", "kvm", "kvm-amd"];

/// The emulator.
pub(crate) const QEMU: &str = "qemu-system-x86_64";

/// `panic=-1`: a panic reboots at once, and a reboot ends QEMU. `mitigations=off`: emulation
/// leaks nothing, and patching them in made one boot in four of 6.12 jump to nowhere.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 loglevel=4 panic=-1 mitigations=off";

/// How often a kernel may die before its init runs: an emulator's fault, not the command's.
const BOOTS: usize = 3;

/// Lines of the kernel's messages that a failure shows.
const TAIL: usize = 30;

/// One command in a VM.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) kernel: Kernel,
    /// Program and arguments, by their paths in the VM.
    pub(crate) command: Vec<String>,
    /// Beside what every command in the VM has.
    pub(crate) environment: Vec<(String, String)>,
    /// Host paths and their places in the VM.
    pub(crate) files: Vec<(PathBuf, PathBuf)>,
    /// Whether it runs microVMs of its own: emulated as well, and slower by that.
    pub(crate) runs_microvms: bool,
    /// After this the VM is ended and the job has failed.
    pub(crate) deadline: Duration,
}

/// A file or folder of the host and its place in the VM: `HOST:GUEST`.
pub(crate) fn parse_file(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split_once(':') {
        Some((host, guest)) if !host.is_empty() && guest.starts_with('/') => {
            Ok((host.into(), guest.into()))
        }
        _ => Err("it takes HOST:GUEST, and GUEST is an absolute path in the VM".to_owned()),
    }
}

/// Runs the job; what the command writes goes to `said`, as it comes.
///
/// Returns the command's exit status. Files that it left in `/out` are in [`out`].
pub(crate) fn run(
    workspace: &Workspace,
    job: &Job,
    said: &mut dyn FnMut(&[u8], Stream) -> io::Result<()>,
) -> Result<i32> {
    let image = job.kernel.image(workspace)?;
    // The VM has no libraries but those that its command needs.
    let init = sandboxes::build_static(workspace, "hearth-vm-init", Profile::Dev)?;
    let archive = workspace
        .vm()
        .join(format!("initramfs-{}.cpio", job.kernel));
    pack(workspace, &init, job)?.write(&archive)?;

    let console = workspace.vm().join(format!("console-{}.log", job.kernel));
    // The processor's own virtual machines, for a kernel that has the modules.
    let processor = if job.runs_microvms {
        "max,-cx16,+svm"
    } else {
        "max,-cx16"
    };
    let out = out(workspace, job.kernel);
    let _ = fs::remove_dir_all(&out);
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let until = Instant::now() + job.deadline;
    for boots_left in (0..BOOTS).rev() {
        let _ = fs::remove_file(&console);
        let end = Vm::boot(&image, &archive, &console, processor)
            .and_then(|mut vm| vm.follow(until, &out, said))
            .with_context(|| {
                let messages = tail(&console);
                format!(
                    "the VM with kernel {}; its last messages:\n{messages}\n",
                    job.kernel
                )
            })?;
        match end {
            End::Exit(code) => return Ok(code),
            End::BeforeInit if boots_left > 0 => {
                eprintln!("kernel {} died while booting; booting it again", job.kernel);
            }
            End::BeforeInit => break,
        }
    }
    bail!(
        "kernel {} died while booting, {BOOTS} times; its last messages:\n{}",
        job.kernel,
        tail(&console)
    )
}

/// How a VM ended that did not fail.
enum End {
    /// With the command's exit status.
    Exit(i32),
    /// Before init could say anything.
    BeforeInit,
}

/// Which of a command's two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Where the files arrive that a command leaves in `/out`.
pub(crate) fn out(workspace: &Workspace, kernel: Kernel) -> PathBuf {
    workspace.vm().join(format!("out-{kernel}"))
}

/// Copies what the command writes to this process's own outputs.
pub(crate) fn to_terminal(bytes: &[u8], stream: Stream) -> io::Result<()> {
    match stream {
        Stream::Out => {
            let mut out = io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Stream::Err => io::stderr().lock().write_all(bytes),
    }
}

fn pack(workspace: &Workspace, init: &Path, job: &Job) -> Result<Initramfs> {
    let mut initramfs = Initramfs::default();
    initramfs.add(init, Path::new("/init"))?;
    initramfs.add_busybox()?;
    initramfs.add_folder(Path::new(MODULES))?;
    let mut modules = MODULES_LOADED.to_vec();
    if job.runs_microvms {
        modules.extend(MODULES_OF_KVM);
    }
    for (nr, module) in job.kernel.modules(workspace, &modules)?.iter().enumerate() {
        initramfs.add(module, &Path::new(MODULES).join(format!("{nr:02}.ko")))?;
    }
    for (host, guest) in &job.files {
        initramfs.add(host, guest)?;
    }
    let environment = BASE_ENVIRONMENT
        .iter()
        .map(|&(name, value)| format!("{name}={value}"))
        .chain(
            job.environment
                .iter()
                .map(|(name, value)| format!("{name}={value}")),
        );
    initramfs.add_bytes(ENVIRONMENT, nul_ended(environment))?;
    initramfs.add_bytes(COMMAND, nul_ended(job.command.iter().cloned()))?;
    Ok(initramfs)
}

fn nul_ended(words: impl Iterator<Item = String>) -> Vec<u8> {
    words
        .flat_map(|word| word.into_bytes().into_iter().chain([0]))
        .collect()
}

/// A running QEMU, ended with this value.
struct Vm {
    qemu: Child,
    stream: Option<ChildStdout>,
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Vm {
    fn boot(image: &Path, archive: &Path, console: &Path, processor: &str) -> Result<Self> {
        let mut qemu = Command::new(QEMU);
        qemu.args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
        ])
        // QEMU 7.2 executes stale breakpoints of a kernel that patches itself while another CPU
        // runs, and spoils the flags after cmpxchg16b: one thread, without that instruction.
        .args([
            "-machine",
            "q35",
            "-accel",
            "tcg,thread=single",
            "-cpu",
            processor,
        ])
        .args(["-smp", "2", "-m", "1024"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(archive)
        // A panic reboots at once, and a reboot ends QEMU.
        .args(["-append", KERNEL_COMMAND_LINE])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args([
            "-device",
            "virtio-serial-pci",
            "-chardev",
            "stdio,id=channel,signal=off",
        ])
        .args(["-device", "virtserialport,chardev=channel,nr=1"])
        // Never written to: at its end QEMU would tell the VM that nobody listens.
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
        let mut qemu = qemu.spawn().with_context(|| {
            format!("cannot start {QEMU}; `cargo xtask setup --for vm` installs it")
        })?;
        let stream = qemu.stdout.take();
        Ok(Self { qemu, stream })
    }

    /// Handles frames until the command's end, the VM's end or the deadline.
    fn follow(
        &mut self,
        until: Instant,
        out: &Path,
        said: &mut dyn FnMut(&[u8], Stream) -> io::Result<()>,
    ) -> Result<End> {
        let stream = self.stream.take().context("QEMU has no standard output")?;
        let (sender, frames) = mpsc::sync_channel(16);
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            loop {
                let frame = Frame::read(&mut stream);
                let is_last = !matches!(frame, Ok(Some(_)));
                if sender.send(frame).is_err() || is_last {
                    break;
                }
            }
        });
        let mut booted = false;
        let mut file = None;
        loop {
            let frame = match frames.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(frame) => frame.context("cannot read from the VM")?,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("the command had not ended at its deadline")
                }
                Err(RecvTimeoutError::Disconnected) => None,
            };
            match frame {
                Some(Frame::Stdout(bytes)) => said(&bytes, Stream::Out)?,
                Some(Frame::Stderr(bytes)) => said(&bytes, Stream::Err)?,
                Some(Frame::File(name)) => file = Some(create_below(out, &name)?),
                Some(Frame::Content(bytes)) => file
                    .as_mut()
                    .context("the VM sent content of no file")?
                    .write_all(&bytes)
                    .context("cannot write what the VM brought back")?,
                Some(Frame::Exit(code)) => return Ok(End::Exit(code)),
                Some(Frame::Failed(why)) => return Err(anyhow!(why)),
                Some(Frame::Booted) => booted = true,
                None if !booted => return Ok(End::BeforeInit),
                None => bail!("it ended before its command did"),
            }
        }
    }
}

/// Makes a file that the VM named, below this folder and nowhere else.
fn create_below(out: &Path, name: &str) -> Result<File> {
    let name = Path::new(name);
    if !name
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        bail!(
            "the VM sent a file with the name {}, outside of its folder",
            name.display()
        );
    }
    let path = out.join(name);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    File::create(&path).with_context(|| format!("cannot make {}", path.display()))
}

fn tail(console: &Path) -> String {
    let messages = fs::read(console).unwrap_or_default();
    let messages = String::from_utf8_lossy(&messages);
    let lines: Vec<_> = messages.lines().collect();
    lines[lines.len().saturating_sub(TAIL)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_option_names_both_places() {
        assert_eq!(parse_file("a/b:/c"), Ok(("a/b".into(), "/c".into())));
        assert!(parse_file("a/b").is_err());
        assert!(parse_file("a:c").is_err());
    }

    #[test]
    fn a_vm_cannot_write_outside_of_its_folder() {
        for name in ["../x", "/etc/x", "a/../../x", "./x"] {
            assert!(
                create_below(Path::new("/nonexistent"), name).is_err(),
                "{name}"
            );
        }
    }
}
