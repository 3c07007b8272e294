//! First process of the VM: mounts what a node has, runs one command, tells the host.

mod command;
mod mounts;

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use hearth_vm_init::{CHANNEL, Frame, LONGEST, MODULES, OUT};
use rustix::system::{RebootCommand, finit_module, reboot};

/// The stream to the host, shared by all that write to it.
type Channel = Arc<Mutex<File>>;

fn main() -> Result<()> {
    if std::process::id() != 1 {
        bail!("this is the first process of a VM; `cargo xtask vm` starts it");
    }
    // Returning from here would be a panic of the kernel: what fails is told, then all ends.
    if let Err(error) = run() {
        eprintln!("init: {error:#}");
    }
    rustix::fs::sync();
    reboot(RebootCommand::PowerOff).context("cannot power off")
}

fn run() -> Result<()> {
    mounts::mount()?;
    load_modules()?;
    let channel = Arc::new(Mutex::new(open_channel()?));
    send(&channel, &Frame::Booted)?;
    let last = match command::run(&channel).and_then(|code| bring_back(&channel).map(|()| code)) {
        Ok(code) => Frame::Exit(code),
        Err(error) => Frame::Failed(format!("{error:#}")),
    };
    send(&channel, &last)
}

/// What is a module in one kernel is built into another: the host sent what this one needs.
fn load_modules() -> Result<()> {
    let mut files: Vec<_> = fs::read_dir(MODULES)
        .with_context(|| format!("cannot list {MODULES}"))?
        .map(|file| Ok(file?.path()))
        .collect::<Result<_>>()?;
    files.sort();
    for path in files {
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        finit_module(&file, c"", 0).with_context(|| format!("cannot load {}", path.display()))?;
    }
    Ok(())
}

/// The device appears when its driver has spoken with the host, a little after boot, and can be
/// opened a moment after that (`ENXIO` until then).
fn open_channel() -> Result<File> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let began = std::time::Instant::now();
    loop {
        match OpenOptions::new().write(true).open(CHANNEL) {
            Err(_) if began.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(10)),
            opened => return opened.with_context(|| format!("cannot open {CHANNEL}")),
        }
    }
}

fn send(channel: &Channel, frame: &Frame) -> Result<()> {
    let mut channel = channel
        .lock()
        .map_err(|_| anyhow::anyhow!("a writer to the host panicked"))?;
    frame
        .write(&mut *channel)
        .context("cannot write to the host")
}

/// Sends every file below [`OUT`].
fn bring_back(channel: &Channel) -> Result<()> {
    let mut folders = vec![Path::new(OUT).to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))?
        {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                send_file(channel, &path)?;
            }
        }
    }
    Ok(())
}

fn send_file(channel: &Channel, path: &Path) -> Result<()> {
    let told = path
        .strip_prefix(OUT)?
        .to_str()
        .context("a name that is not UTF-8")?;
    send(channel, &Frame::File(told.to_owned()))?;
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut buffer = vec![0; LONGEST];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            read => send(channel, &Frame::Content(buffer[..read].to_vec()))?,
        }
    }
}
