//! Functions that ask for a network, on a bridge of the test's own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hearth_runtime::sandbox::backend::SandboxError;
use hearth_runtime::sandbox::message::NotStarted;
use hearth_runtime::sandbox::start::{Network, Start};
use hearth_tests::node::{Language, Node, PATIENCE};

use crate::scene::{Instance, resources};

/// A bridge with the first address of a network, removed when dropped.
struct Bridge {
    name: String,
    address: Ipv4Addr,
}

impl Bridge {
    /// Names of interfaces are short.
    fn new(number: u8) -> Result<Self> {
        let bridge = Self {
            name: format!("hearth-{number}{}", std::process::id()),
            // Networks that are nobody's: for tests of networks.
            address: Ipv4Addr::new(198, 18, number, 1),
        };
        let (name, address) = (&bridge.name, format!("{}/24", bridge.address));
        ip(&["link", "add", "name", name, "type", "bridge"])?;
        ip(&["address", "add", &address, "dev", name])?;
        ip(&["link", "set", "dev", name, "up"])?;
        Ok(bridge)
    }

    /// As the spawner takes it.
    fn options(&self, length: u8) -> Vec<String> {
        let [a, b, c, _] = self.address.octets();
        let network = format!("{a}.{b}.{c}.0/{length}");
        ["--veth", &self.name, "--addresses", &network]
            .map(str::to_owned)
            .into()
    }

    fn ports(&self) -> Result<Vec<String>> {
        let ports = fs::read_dir(format!("/sys/class/net/{}/brif", self.name))?;
        let name = |port: std::io::Result<fs::DirEntry>| {
            Ok(port?.file_name().to_string_lossy().into_owned())
        };
        ports.map(name).collect()
    }

    /// Links go with their namespaces, a moment after the last process in them.
    fn has_ports(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ports = self.ports()?;
            if ports.len() == count {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{ports:?}, not {count}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = ip(&["link", "del", "dev", &self.name]);
    }
}

fn ip(words: &[&str]) -> Result<()> {
    let mut command = Command::new("busybox");
    let status = command.arg("ip").args(words).status();
    let status = status.context("run busybox: apt install busybox-static")?;
    ensure!(status.success(), "ip {}: {status}", words.join(" "));
    Ok(())
}

fn node(what: &str, bridge: &Bridge, slots: u16) -> Result<Node> {
    let mut node = Node::new(what, None)?;
    node.options = bridge.options(24);
    node.start_spawner(slots)?;
    node.parked(slots.into())?;
    Ok(node)
}

/// Runs lines of shell, which end before they ask for work.
fn script(network: Network, lines: &str) -> Result<Start> {
    let mut start = Language::Shell.start()?;
    let words = ["/bin/busybox", "sh", "-c", lines].map(str::to_owned);
    start.program.command = words.into();
    start.network = network;
    Ok(start)
}

fn log_of(node: &Node, start: &Start) -> Result<String> {
    let mut instance = Instance::claim(node, start, resources())?;
    match instance.start(start, PATIENCE) {
        Err(SandboxError::NotStarted {
            why: NotStarted::Exited { .. },
            ..
        }) => {}
        other => bail!("{other:?}: {}", instance.log),
    }
    let log = instance.log.clone();
    // It may be gone by now.
    let _ = instance.end();
    Ok(log)
}

/// Greets who connects, and takes the greeting of a listener at the other end.
fn greet_and_call_back(listener: &TcpListener) -> Result<String> {
    let (mut stream, peer) = listener.accept()?;
    stream.write_all(b"from the node\n")?;
    drop(stream);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect((peer.ip(), 8000)) {
            Ok(mut stream) => {
                let mut said = String::new();
                stream.read_to_string(&mut said)?;
                return Ok(said);
            }
            Err(error) => ensure!(Instant::now() < deadline, "{peer}: {error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_function_that_asks_for_a_network_reaches_the_node_and_is_reached() -> Result<()> {
    let bridge = Bridge::new(1)?;
    let node = node("veth", &bridge, 1)?;
    let listener = TcpListener::bind((bridge.address, 0))?;
    let port = listener.local_addr()?.port();
    let greeter = thread::spawn(move || greet_and_call_back(&listener));
    let lines = format!(
        "busybox ip address; busybox ip route; busybox nc -w 20 {} {port} </dev/null; \
         echo from the function | busybox nc -l -p 8000",
        bridge.address
    );
    let log = log_of(&node, &script(Network::Veth, &lines)?)?;
    assert!(log.contains("from the node"), "{log}");
    assert!(
        log.contains(&format!("default via {}", bridge.address)),
        "{log}"
    );
    assert!(!log.contains("inet6 fe80"), "only what it was given: {log}");
    let heard = greeter.join().ok().context("the greeter")??;
    assert_eq!(heard, "from the function\n");
    Ok(())
}

#[test]
fn a_function_that_does_not_ask_reaches_nobody_and_functions_not_each_other() -> Result<()> {
    let bridge = Bridge::new(2)?;
    let node = node("apart", &bridge, 1)?;
    let ports = bridge.ports()?;
    let port = ports.first().context("a parked sandbox has a link")?;
    let isolated = fs::read_to_string(format!("/sys/class/net/{port}/brport/isolated"))?;
    assert_eq!(isolated.trim(), "1");
    let listener = TcpListener::bind((bridge.address, 0))?;
    let lines = format!(
        "busybox ip address; busybox nc -w 20 {} {} </dev/null || echo no way",
        bridge.address,
        listener.local_addr()?.port()
    );
    let log = log_of(&node, &script(Network::Loopback, &lines)?)?;
    assert!(log.contains("no way"), "{log}");
    assert!(!log.contains("inet 198.18."), "{log}");
    listener.set_nonblocking(true)?;
    let accepted = listener.accept().map_err(|error| error.kind());
    assert_eq!(accepted.err(), Some(std::io::ErrorKind::WouldBlock));
    Ok(())
}

#[test]
fn no_link_outlives_its_sandbox_nor_a_killed_spawner_what_was_parked() -> Result<()> {
    let bridge = Bridge::new(3)?;
    let mut node = node("links", &bridge, 2)?;
    let start = script(Network::Veth, "exit 0")?;
    for _ in 0..3 {
        log_of(&node, &start)?;
    }
    bridge.has_ports(2)?;
    let claimed = node.spawner()?.claim("a-function".parse()?, resources())?;
    node.kill_spawner()?;
    node.start_spawner(0)?;
    // Whoever is at work keeps its link.
    bridge.has_ports(1)?;
    node.spawner()?.end(claimed.sandbox)?;
    bridge.has_ports(0)
}

#[test]
fn a_network_that_cannot_be_given_is_told_with_the_remedy() -> Result<()> {
    let mut node = Node::new("no-bridge", None)?;
    let bridge = Bridge::new(4)?;
    let of_another = vec!["--addresses".to_owned(), "198.19.0.0/24".to_owned()];
    let said = |options: Vec<String>, slots: u16| -> Result<String> {
        let mut node = Node::new("bad-bridge", None)?;
        node.options = options;
        let output = node.command(slots)?.stderr(Stdio::piped()).output()?;
        assert!(!output.status.success());
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let missing = ["--veth", "hearth-nowhere", "--addresses", "198.18.4.0/24"];
    let elsewhere = [bridge.options(24)[..2].to_vec(), of_another].concat();
    for (options, slots, words) in [
        (missing.map(str::to_owned).into(), 1, "make it (ip link add"),
        (elsewhere, 1, "ip address add 198.19.0.1/24"),
        (bridge.options(29), 16, "use a larger network"),
        (bridge.options(30), 1, "use /8 to /29"),
        (bridge.options(24)[..2].to_vec(), 1, "--addresses <CIDR>"),
    ] {
        let told = said(options, slots)?;
        assert!(told.contains(words), "{words}: {told}");
    }
    node.start_spawner(1)?;
    let start = script(Network::Veth, "exit 0")?;
    let mut instance = Instance::claim(&node, &start, resources())?;
    let told = instance.start(&start, PATIENCE).err();
    let told = told.context("it has started")?.to_string();
    assert!(told.contains("start it with --veth"), "{told}");
    let _ = instance.end();
    Ok(())
}
