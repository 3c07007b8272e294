//! TCP segments sent again, against the kernel's own count in each network namespace. Runs in the
//! VMs, too: it takes no tools, and nothing of the network but loopback.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::cgroup::Hierarchy;
use hearth_tests::daemon::Daemon;
use hearth_tests::metrics::Scrape;
use hearth_tests::network::{Loses, Namespace, lose, own_counter};
use hearth_tests::{machine, requirement};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

const COUNTER: &str = "hearth_tcp_retransmitted_segments_total";
const SENT: &str = "hearth_tcp_sent_segments_total";
const SETTINGS: &str = "signals = ['cold_start', 'retransmit']\nmode = 'sandbox'\n";
const MTU: i32 = 1500;
/// One that fails takes longer than any that works, on an emulated processor too.
const PATIENCE: Duration = Duration::from_mins(2);

/// What one namespace is to send again, and what shall be told of it.
#[derive(Clone, Copy, Debug)]
struct Case {
    listen: SocketAddr,
    /// Under which address the client knows it.
    connect: std::net::IpAddr,
    family: &'static str,
    destination: &'static str,
}

const CASES: [Case; 3] = [
    Case {
        listen: SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        connect: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        family: "ipv4",
        destination: "127.0.0.0/24",
    },
    Case {
        listen: SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 0),
        connect: std::net::IpAddr::V6(Ipv6Addr::LOCALHOST),
        family: "ipv6",
        destination: "::/48",
    },
    // IPv6 sockets on both sides, and IPv4 between them.
    Case {
        listen: SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
        connect: std::net::IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped()),
        family: "ipv4",
        destination: "127.0.0.0/24",
    },
];

fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn tcp_socket(address: &SocketAddr, flags: SocketFlags) -> Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    socket_with(family, SocketType::STREAM, flags, None).context("a socket")
}

/// Makes the kernel send segments again in the caller's namespace: SYNs and SYN-ACKs, single ones
/// and many at once. All connections are closed after it, on both sides.
fn lose_segments(case: &Case) -> Result<()> {
    let listener = TcpListener::bind(case.listen).context("listen")?;
    let address = SocketAddr::new(case.connect, listener.local_addr()?.port());
    let server = thread::spawn(move || -> Result<()> {
        loop {
            let (mut connection, _) = listener.accept().context("accept")?;
            let mut first = [0];
            connection.read_exact(&mut first).context("read")?;
            lose(&connection, Loses::OneIn(8))?;
            std::io::copy(&mut connection, &mut std::io::sink()).context("read on")?;
            if first == *b"e" {
                return Ok(());
            }
        }
    });

    // No SYN-ACK arrives, until both sides have sent theirs again.
    let client = tcp_socket(&address, SocketFlags::CLOEXEC)?;
    lose(&client, Loses::Everything)?;
    thread::scope(|scope| {
        let connecting = scope.spawn(|| connect(&client, &address));
        until("the handshake is tried again", || {
            Ok(own_counter("TcpExt", "TCPSynRetrans")? >= 2)
        })?;
        lose(&client, Loses::Nothing)?;
        connecting
            .join()
            .ok()
            .context("the client")?
            .context("connect")
    })?;
    say(TcpStream::from(client), b'd')?;

    until("enough is lost", || {
        let again = own_counter("Tcp", "RetransSegs")? >= 200;
        let last = if again { b'e' } else { b'd' };
        say(TcpStream::connect(address).context("connect")?, last)?;
        Ok(again)
    })?;
    server.join().ok().context("the server")?
}

fn say(mut connection: TcpStream, first: u8) -> Result<()> {
    connection.write_all(&[first]).context("write")?;
    connection.write_all(&vec![0; 2 << 20]).context("write")?;
    connection
        .shutdown(std::net::Shutdown::Write)
        .context("shut down")?;
    // Until the other side has read all.
    connection.read_to_end(&mut Vec::new()).context("read")?;
    Ok(())
}

/// Of a namespace and a family, what is told.
fn told(scrape: &Scrape, netns: u64, family: &str) -> u64 {
    let netns = netns.to_string();
    let labels = [("netns", netns.as_str()), ("network_type", family)];
    scrape.count(COUNTER, &labels).unwrap_or(0)
}

/// Waits until hearth tells of `family` in the namespace what the kernel does, and of the other
/// family nothing. Late timers may still count; what is told may be a second late.
fn equal(daemon: &Daemon, namespace: &Namespace, family: &str) -> Result<Scrape> {
    let kernel = || namespace.counter("Tcp", "RetransSegs");
    let mut last = (0, 0, 0);
    let mut found = Scrape::default();
    until("hearth tells what the kernel does", || {
        let before = kernel()?;
        found = daemon.scrape()?;
        let other = if family == "ipv4" { "ipv6" } else { "ipv4" };
        let [own, other] = [family, other].map(|family| told(&found, namespace.inode, family));
        last = (before, own, other);
        Ok(before == own && other == 0 && kernel()? == before)
    })
    .with_context(|| format!("kernel, hearth, hearth of the other family: {last:?}"))?;
    Ok(found)
}

#[test]
fn segments_sent_again_equal_the_kernels_count_in_each_namespace() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let own_path = Hierarchy::memory()?.path_of("self")?;
    let namespaces: Vec<Namespace> = CASES
        .iter()
        .map(|_| Namespace::new(MTU))
        .collect::<Result<_>>()?;
    let running: Vec<_> = CASES
        .iter()
        .zip(&namespaces)
        .map(|(case, namespace)| namespace.run(|| lose_segments(case)))
        .collect::<Result<_>>()?;
    for (work, case) in running.into_iter().zip(&CASES) {
        work.wait().with_context(|| format!("{case:?}"))?;
    }
    for (namespace, case) in namespaces.iter().zip(&CASES) {
        let scrape = equal(&daemon, namespace, case.family).with_context(|| format!("{case:?}"))?;
        let netns = namespace.inode.to_string();
        let labels = [("netns", netns.as_str())];
        let told: Vec<_> = scrape.matching(COUNTER, &labels).collect();
        let [told] = told[..] else {
            panic!("one cgroup and one destination: {told:#?}");
        };
        println!("{told:?}");
        ensure!(told.labels["destination"] == case.destination, "{told:?}");
        ensure!(
            told.labels["cgroup"] == own_path,
            "{told:?}, not {own_path}"
        );
        // Of the namespaces of others too: somebody is in it.
        let kernel = namespace.counter("Tcp", "OutSegs")?;
        until("hearth tells what was sent", || {
            let sent = daemon.scrape()?.count(SENT, &labels);
            Ok(sent.is_ok_and(|sent| sent == kernel))
        })?;
    }
    let scrape = daemon.scrape()?;
    for probe in ["retransmit", "retransmit_synack"] {
        let count = |fate| {
            let labels = [("probe", probe), ("fate", fate)];
            scrape.count("hearth_probe_events_total", &labels)
        };
        ensure!(count("aggregated")? > 0, "{probe} counted nothing");
        ensure!(count("dropped_map")? == 0, "{probe} lost something");
    }
    daemon.stop()
}

/// More destinations than the kernel side keeps apart: what it has to give up is told all the same.
#[test]
fn the_sum_is_right_with_more_destinations_than_are_kept_apart() -> Result<()> {
    const AT_ONCE: u32 = 500;
    const DESTINATIONS: u32 = 2000;
    requirement::root()?;
    // Alone: its destinations fill what any agent keeps apart.
    let _machine = machine::quiet()?;
    let daemon = Daemon::start(SETTINGS)?;
    let namespace = Namespace::new(MTU)?;
    let work = namespace.run(|| {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("listen")?;
        lose(&listener, Loses::Everything)?;
        let port = listener.local_addr()?.port();
        for batch in 0..DESTINATIONS / AT_ONCE {
            let before = own_counter("Tcp", "RetransSegs")?;
            let mut sockets = Vec::new();
            for number in 0..AT_ONCE {
                // Each in a /24 of its own.
                let [_, _, a, b] = (batch * AT_ONCE + number).to_be_bytes();
                let address = SocketAddr::from((Ipv4Addr::new(127, a, b, 1), port));
                let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
                let socket = tcp_socket(&address, flags)?;
                // It is under way; nobody will answer.
                let _ = connect(&socket, &address);
                sockets.push(socket);
            }
            until("each has sent its SYN again", || {
                Ok(own_counter("Tcp", "RetransSegs")? >= before + u64::from(AT_ONCE))
            })?;
        }
        Ok(())
    })?;
    work.wait()?;
    let scrape = equal(&daemon, &namespace, "ipv4")?;
    let netns = namespace.inode.to_string();
    let series = scrape
        .matching(COUNTER, &[("netns", netns.as_str())])
        .count();
    ensure!(series > 100, "{series} series");
    let other = [("netns", netns.as_str()), ("destination", "~other")];
    ensure!(scrape.count(COUNTER, &other)? > 0, "everything was kept");
    println!(
        "{} segments in {series} series",
        namespace.counter("Tcp", "RetransSegs")?
    );
    daemon.stop()
}
