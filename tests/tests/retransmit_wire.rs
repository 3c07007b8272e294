//! TCP segments sent again between two network namespaces, with a wire that loses packets and a
//! filter of the host's own that refuses some: those are in the kernel's count, too.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::daemon::Daemon;
use hearth_tests::metrics::{Sample, Scrape};
use hearth_tests::network::{Namespace, Running, own_counter};
use hearth_tests::{machine, requirement};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketType, accept, bind, connect, getsockname, listen,
    recv, send as send_bytes, socket,
};

const COUNTER: &str = "hearth_tcp_retransmitted_segments_total";
const EVENTS: &str = "hearth_probe_events_total";
const SETTINGS: &str = "signals = ['cold_start', 'retransmit']\nmode = 'sandbox'\n";
const PATIENCE: Duration = Duration::from_mins(1);
/// Of what leaves, one in fifty is refused, which TCP is told; of what arrives, one in twenty is
/// lost.
const RULES: &str = "table inet hearth {
    chain out {
        type filter hook output priority 0;
        meta l4proto tcp numgen random mod 50 0 drop
    }
    chain in {
        type filter hook input priority 0;
        meta l4proto tcp numgen random mod 20 0 drop
    }
}
";

fn run(program: &str, arguments: &str) -> Result<()> {
    let status = Command::new(program)
        .args(arguments.split(' '))
        .status()
        .with_context(|| format!("run {program}"))?;
    ensure!(status.success(), "{program} {arguments}: {status}");
    Ok(())
}

/// One end of the wire, which the other end made.
fn configure(end: u8) -> Result<()> {
    run("ip", &format!("address add 10.99.7.{end}/24 dev wire"))?;
    run(
        "ip",
        &format!("address add fd00:99:7::{end}/64 dev wire nodad"),
    )?;
    run("ip", "link set wire up")?;
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("run nft")?;
    nft.stdin
        .take()
        .context("standard input")?
        .write_all(RULES.as_bytes())
        .context("tell nft the rules")?;
    ensure!(nft.wait().context("wait for nft")?.success(), "nft failed");
    Ok(())
}

/// Takes in what others send, at `address`, until the test ends.
fn receive(at: &Namespace, address: IpAddr) -> Result<u16> {
    at.run(move || {
        let listener = TcpListener::bind((address, 0)).context("listen")?;
        let port = listener.local_addr()?.port();
        thread::spawn(move || {
            for mut connection in listener.incoming().flatten() {
                let _ = std::io::copy(&mut connection, &mut std::io::sink());
            }
        });
        Ok(port)
    })?
    .wait()
}

/// Sends until the caller's namespace has sent so many segments again, refused ones among them.
fn send(from: &Namespace, to: IpAddr, port: u16) -> Result<Running<()>> {
    from.run(move || {
        let again = || own_counter("Tcp", "RetransSegs");
        let failed = || own_counter("TcpExt", "TCPRetransFail");
        let (again_before, failed_before) = (again()?, failed()?);
        let deadline = Instant::now() + PATIENCE;
        while again()? < again_before + 200 || failed()? == failed_before {
            ensure!(Instant::now() < deadline, "too little is lost");
            let mut connection = TcpStream::connect((to, port)).context("connect")?;
            connection.write_all(&vec![0; 1 << 20]).context("write")?;
            connection.shutdown(Shutdown::Write).context("shut down")?;
            connection.read_to_end(&mut Vec::new()).context("read")?;
        }
        Ok(())
    })
}

#[test]
fn both_ends_of_a_lossy_wire_count_what_the_kernel_counts() -> Result<()> {
    requirement::root()?;
    requirement::tool("ip", "iproute2")?;
    requirement::tool("nft", "nftables")?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let ends = [Namespace::new(1500)?, Namespace::new(1500)?];
    let other = ends[1].process();
    ends[0]
        .run(move || {
            let wire = "link add wire type veth peer name wire netns";
            run("ip", &format!("{wire} {other}"))
        })?
        .wait()?;
    for (end, number) in ends.iter().zip(1..) {
        end.run(move || configure(number))?.wait()?;
    }
    for v6 in [false, true] {
        let addresses: [IpAddr; 2] = [1, 2].map(|end: u8| {
            if v6 {
                Ipv6Addr::new(0xfd00, 0x99, 7, 0, 0, 0, 0, u16::from(end)).into()
            } else {
                Ipv4Addr::new(10, 99, 7, end).into()
            }
        });
        let ports = [
            receive(&ends[0], addresses[0])?,
            receive(&ends[1], addresses[1])?,
        ];
        let sending = [
            send(&ends[0], addresses[1], ports[1])?,
            send(&ends[1], addresses[0], ports[0])?,
        ];
        for sending in sending {
            sending.wait()?;
        }
    }
    for end in &ends {
        equal(&daemon, end)?;
    }
    daemon.stop()
}

/// Sockets of another protocol pass the same states and have no count of TCP's in them: an MPTCP
/// socket stands for several of TCP, which are counted on their own.
#[test]
fn sockets_that_are_not_tcp_have_sent_nothing_again() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let daemon = Daemon::start(SETTINGS)?;
    let end = Namespace::new(1500)?;
    let states = |scrape: &Scrape| {
        scrape
            .count(EVENTS, &[("probe", "retransmit")])
            .unwrap_or(0)
    };
    let before = states(&daemon.scrape()?);
    end.run(|| (0..50).try_for_each(|_| connect_and_close()))?
        .wait()?;
    ensure!(
        end.counter("Tcp", "RetransSegs")? == 0,
        "nothing is lost here"
    );
    let deadline = Instant::now() + PATIENCE;
    // Connected and closed, at both ends.
    while states(&daemon.scrape()?) < before + 200 {
        ensure!(Instant::now() < deadline, "the programs saw no socket");
        thread::sleep(Duration::from_millis(100));
    }
    // What they counted is told no later than what they saw.
    let scrape = daemon.scrape()?;
    let netns = end.inode.to_string();
    let of_end = [("netns", netns.as_str())];
    let told: Vec<_> = scrape.matching(COUNTER, &of_end).collect();
    ensure!(told.is_empty(), "{told:?}");
    daemon.stop()
}

/// One MPTCP connection with itself; each end closes.
fn connect_and_close() -> Result<()> {
    let of_mptcp = || {
        let protocol = Some(rustix::net::ipproto::MPTCP);
        socket(AddressFamily::INET, SocketType::STREAM, protocol).context("an MPTCP socket")
    };
    let listener = of_mptcp()?;
    bind(&listener, &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    listen(&listener, 1)?;
    let address = SocketAddr::try_from(getsockname(&listener)?)?;
    let client = of_mptcp()?;
    connect(&client, &address)?;
    let server = accept(&listener)?;
    send_bytes(&client, &[7; 1000], SendFlags::empty())?;
    let mut bytes = [0; 1000];
    recv(&server, &mut bytes[..], RecvFlags::WAITALL)?;
    Ok(())
}

/// Waits until hearth tells of the namespace what the kernel does. Late timers may still count;
/// what is told may be a second late.
fn equal(daemon: &Daemon, end: &Namespace) -> Result<()> {
    let kernel = || end.counter("Tcp", "RetransSegs");
    let netns = end.inode.to_string();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = kernel()?;
        let scrape = daemon.scrape()?;
        let told = |family, destination| {
            let labels = [
                ("netns", netns.as_str()),
                ("network_type", family),
                ("destination", destination),
            ];
            scrape.count(COUNTER, &labels).unwrap_or(0)
        };
        let told = [told("ipv4", "10.99.7.0/24"), told("ipv6", "fd00:99:7::/48")];
        let all = scrape.count(COUNTER, &[("netns", &netns)]).unwrap_or(0);
        let settled = kernel()? == before;
        if settled && told.iter().sum::<u64>() == before && all == before {
            println!(
                "{before} segments, {} of them refused: {told:?}",
                end.counter("TcpExt", "TCPRetransFail")?
            );
            ensure!(told.iter().all(|&family| family >= 200), "{told:?}");
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the kernel counted {before}, hearth {told:?} and {all} in all; missed: {:?}",
            missed(&scrape)
        );
        thread::sleep(Duration::from_millis(100));
    }
}

/// Hits that the kernel skipped, and attempts that hearth took for none.
fn missed(scrape: &Scrape) -> Vec<&Sample> {
    let skipped = scrape.matching("hearth_agent_recursion_misses_total", &[]);
    let labels = &[("probe", "retransmit")];
    let fates = scrape.matching(EVENTS, labels);
    let some = skipped.chain(fates).filter(|sample| sample.value != "0");
    some.collect()
}
