//! The agent at work, with programs that start all the time.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hearth_tests::cgroup::Cgroup;
use hearth_tests::daemon::{Daemon, free_address};
use hearth_tests::network::{Loses, Namespace, lose};
use hearth_tests::serving::Serving;
use hearth_tests::storm::Storm;
use tempfile::TempDir;

use crate::functions;

/// A program that is ready by its first listen.
const SHOP: &str = "#!/usr/bin/python3
import socket
server = socket.socket()
server.bind(('127.0.0.1', 0))
server.listen()
";

/// A program that takes a little memory at a time until it is killed for it.
const LEAK: &str = "#!/usr/bin/python3
import time
kept = []
while True:
    kept.append(bytearray(1 << 19))
    time.sleep(0.05)
";

/// `hearth run`, observing `resize` (ready by exit), `shop` (ready by listen) and `report`
/// (ends without the READY=1 that its rule asks for), `leak` again and again killed for want
/// of memory, threads that contend for the cgroup locks, and functions. Ends when dropped.
pub(crate) struct Load {
    pub(crate) daemon: Daemon,
    pub(crate) metrics: SocketAddr,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    _serving: Serving,
    _folder: TempDir,
}

impl Load {
    pub(crate) fn start() -> Result<Self> {
        let folder = TempDir::with_prefix("hearth-dashboards-")?;
        let programs = programs(folder.path())?;
        let [resize, _, report] = &programs;
        let serving = Serving::new("dashboards", 2)?;
        // Nobody listens at the discard port: outcomes of export are told all the same.
        let settings = format!(
            "mode = 'sandbox'\n\
             cgroups = false\n\
             otlp.endpoint = 'http://127.0.0.1:9'\n\
             otlp.interval = '1s'\n\
             start = [\n\
               {{ exe = '{}', function = 'resize' }},\n\
               {{ exe = 'hearth-shop', function = 'shop' }},\n\
               {{ exe = '{}', function = 'report', ready = 'notify' }},\n\
             ]\n{}",
            resize.display(),
            report.display(),
            serving.settings(),
        );
        let metrics = free_address()?;
        let daemon = Daemon::start_at(metrics, &settings)?;
        functions::deploy(&serving)?;
        let stop = Arc::new(AtomicBool::new(false));
        let leak = folder.path().join("leak");
        fs::write(&leak, LEAK)?;
        fs::set_permissions(&leak, fs::Permissions::from_mode(0o700))?;
        let cgroup = Cgroup::create("leak")?;
        limit(&cgroup)?;
        let threads = vec![
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || start_until(&programs, &stop)
            }),
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || leak_until(&leak, &cgroup, &stop)
            }),
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || contend_until(&stop)
            }),
            std::thread::spawn({
                let stop = Arc::clone(&stop);
                move || lose_until(stop)
            }),
            std::thread::spawn({
                let (stop, api) = (Arc::clone(&stop), serving.api());
                move || functions::ask_until(&api, &stop)
            }),
            std::thread::spawn({
                let (stop, api) = (Arc::clone(&stop), serving.api());
                move || functions::fail_until(&api, &stop)
            }),
        ];
        Ok(Self {
            daemon,
            metrics,
            stop,
            threads,
            _serving: serving,
            _folder: folder,
        })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn programs(folder: &Path) -> Result<[PathBuf; 3]> {
    let [resize, shop, report] = ["resize", "hearth-shop", "report"].map(|name| folder.join(name));
    fs::copy("/bin/true", &resize)?;
    fs::copy("/bin/true", &report)?;
    fs::write(&shop, SHOP)?;
    fs::set_permissions(&shop, fs::Permissions::from_mode(0o700))?;
    Ok([resize, shop, report])
}

fn start_until(programs: &[PathBuf], stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        for program in programs {
            let _ = Command::new(program).status();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Bursts, so that what else runs here is not held up all the time.
fn contend_until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let _ = Storm::start("own", "attach", 300).and_then(Storm::finish);
        std::thread::sleep(Duration::from_millis(700));
    }
}

/// Room for a Python and a little more.
fn limit(cgroup: &Cgroup) -> Result<()> {
    let files = ["memory.max", "memory.limit_in_bytes"].map(|name| cgroup.directory.join(name));
    let file = files.iter().find(|file| file.exists());
    fs::write(file.context("a limit of memory")?, "33554432").context("set a limit")
}

fn leak_until(leak: &Path, cgroup: &Cgroup, stop: &AtomicBool) {
    let enter = format!(
        "echo $$ > {}/cgroup.procs; exec {}",
        cgroup.directory.display(),
        leak.display()
    );
    while !stop.load(Ordering::Relaxed) {
        let _ = Command::new("sh").args(["-c", &enter]).status();
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// A namespace in which one packet in eight does not arrive.
fn lose_until(stop: Arc<AtomicBool>) {
    let transfers = move || -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        lose(&listener, Loses::OneIn(8))?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let _ = std::io::copy(&mut connection, &mut std::io::sink());
            }
        });
        while !stop.load(Ordering::Relaxed) {
            TcpStream::connect(address)?.write_all(&vec![0; 1 << 18])?;
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    };
    let namespace = Namespace::new(1500);
    let lost = namespace.and_then(|namespace| namespace.run(transfers)?.wait());
    if let Err(error) = lost {
        eprintln!("nothing is sent again: {error:#}");
    }
}
