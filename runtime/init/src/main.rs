//! First process in a sandbox: makes it, and serves the function its Runtime API.
//!
//! - [`park`]: what is said with the spawner until the sandbox is claimed.
//! - [`jail`]: what the function can see and do.
//! - [`ground`]: the jail as what the service starts functions in.
//! - [`service`]: between who runs functions and the function.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use hearth_runtime::id::SandboxId;
use rustix::io::FdFlags;

mod ground;
mod jail;
mod park;
mod service;

use ground::Jailed;
use jail::Link;
use park::Spawner;
use service::{Doors, Service};

/// Where the Runtime API is, in the sandbox's own network.
const API: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9001);
/// The socket to the spawner.
const CONTROL: i32 = 3;
/// The socket on which the channel's connections come.
const CHANNEL: i32 = 4;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth-init: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))?;
    // It kills everybody whom it can see.
    ensure!(
        rustix::process::getpid().is_init(),
        "not the first process of a pid namespace: `hearth-spawner` starts this, nobody else"
    );
    let spawner = Spawner::new(given(CONTROL)?);
    let channel = given(CHANNEL)?.into();
    let (ground, api) = prepare(&arguments).inspect_err(|error| {
        spawner.tell_error(&format!("{error:#}"));
    })?;
    if !spawner.wait_for_claim().context("the spawner")? {
        return Ok(());
    }
    let doors = Doors { channel, api };
    let service = Service::new(arguments.sandbox, doors, ground)?;
    service.run().context("no more can be waited for")
}

/// A descriptor that the spawner left open, and nobody else is to have.
fn given(number: i32) -> Result<OwnedFd> {
    // SAFETY: the spawner opened it for this program; this is called once for each.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC)
        .with_context(|| format!("descriptor {number}"))?;
    Ok(descriptor)
}

fn prepare(arguments: &Arguments) -> Result<(Jailed, TcpListener)> {
    let prepared = jail::prepare(arguments.uid, arguments.link)
        .map_err(|fault| anyhow::anyhow!("{}: {}", fault.step, fault.error))?;
    let api = TcpListener::bind(API).context("the Runtime API's address")?;
    let ground = Jailed::new(prepared, arguments.sandbox).context("signals of children")?;
    Ok((ground, api))
}

/// `--sandbox ID --uid N [--address A/LENGTH --gateway G]`, from the spawner and from nobody else.
struct Arguments {
    sandbox: SandboxId,
    uid: u32,
    link: Option<Link>,
}

impl Arguments {
    fn parse(mut given: impl Iterator<Item = String>) -> Result<Self> {
        let (mut sandbox, mut uid, mut address, mut gateway) = (None, None, None, None);
        while let Some(name) = given.next() {
            let value = given.next().with_context(|| format!("{name}: no value"))?;
            match &*name {
                "--sandbox" => sandbox = Some(value.parse()?),
                "--uid" => {
                    let parsed = value.parse();
                    uid = Some(parsed.with_context(|| format!("--uid {value}: no number"))?);
                }
                "--address" => {
                    let (own, length) = value.split_once('/').context("--address: no length")?;
                    address = Some((own.parse()?, length.parse()?));
                }
                "--gateway" => gateway = Some(value.parse()?),
                _ => bail!("{name}: it is not known; is hearth-spawner of another version?"),
            }
        }
        let link = address.zip(gateway);
        Ok(Self {
            sandbox: sandbox.context("--sandbox is missing")?,
            uid: uid.context("--uid is missing")?,
            link: link.map(|((address, length), gateway)| Link {
                address,
                length,
                gateway,
            }),
        })
    }
}
