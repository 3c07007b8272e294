//! It neither grows nor gives way, whatever comes.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use anyhow::{Context as _, Result, ensure};
use hearth_runtime::sandbox::Resources;
use hearth_runtime::sandbox::spawner::Spawner;
use hearth_tests::node::PATIENCE;

use crate::scene::{MIB, Scene, read, until};

/// Open files, and kilobytes of its own memory.
fn held(pid: u32) -> Result<(usize, u64)> {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    let status = read(format!("/proc/{pid}/status"))?;
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    Ok((files, kilobytes.context("no RssAnon")?))
}

#[test]
fn hundreds_of_claims_and_ends_leave_it_as_it_was() -> Result<()> {
    let scene = Scene::new("churn", 2)?;
    let limits = Resources {
        memory_bytes: Some(64 * MIB),
        ..Resources::default()
    };
    let mut spawner = scene.spawner()?;
    let mut round = |count: usize| -> Result<(usize, u64)> {
        for _ in 0..count {
            let claimed = spawner.claim("resize".parse()?, limits)?;
            spawner.end(claimed.sandbox)?;
        }
        scene.parked(2)?;
        scene.only_parked(2)?;
        held(scene.spawner_pid()?)
    };
    // Buffers have their size after a while.
    let before = round(50)?;
    let cgroups = scene.remains()?.cgroups.len();
    let after = round(200)?;
    // The connection that asked last may not be closed at its end yet.
    until("no more open files than before", || {
        Ok(held(scene.spawner_pid()?)?.0 <= before.0)
    })?;
    ensure!(
        after.1 <= before.1 + 256,
        "{} kB grew to {} kB",
        before.1,
        after.1
    );
    assert_eq!(scene.remains()?.cgroups.len(), cgroups);
    let slots = spawner.slots()?;
    assert_eq!(
        (slots.hits + slots.misses, slots.claimed, slots.stuck),
        (250, 0, 0)
    );
    Ok(())
}

#[test]
fn who_sends_what_is_no_question_loses_its_connection_only() -> Result<()> {
    let scene = Scene::new("junk", 0)?;
    let mut other = scene.spawner()?;
    for junk in [
        &b"GET / HTTP/1.1\r\nHost: localhost:9001\r\n\r\n"[..],
        &[0xff; 200],
    ] {
        let mut stream = UnixStream::connect(scene.places().spawner())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(junk)?;
        // Bytes that were not read when it closed make an error of its end.
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        ensure!(!matches!(closed, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock));
        assert_eq!(rest, b"");
    }
    // A frame that announces more than a question has, and never ends.
    let mut stream = UnixStream::connect(scene.places().spawner())?;
    let mut frame = b"hch\x01".to_vec();
    frame.extend_from_slice(&2_u32.to_le_bytes());
    frame.extend_from_slice(&6_000_000_u32.to_le_bytes());
    stream.write_all(&frame)?;
    let mut sent = 0;
    while sent < 16 * MIB && stream.write_all(&[0; 8 * 1024]).is_ok() {
        sent += 8 * 1024;
    }
    ensure!(sent < 4 * MIB, "it took {sent} bytes");
    assert_eq!(other.slots()?.claimed, 0);
    Ok(())
}

#[test]
fn no_more_clients_than_it_has_room_for() -> Result<()> {
    let scene = Scene::new("clients", 0)?;
    let mut all = (0..64).map(|_| Spawner::connect(&scene.places(), PATIENCE));
    let mut all = all.by_ref().collect::<Result<Vec<_>, _>>()?;
    for client in &mut all {
        client.slots()?;
    }
    let mut one_more = Spawner::connect(&scene.places(), PATIENCE)?;
    let told = one_more.slots().map_err(|error| error.to_string());
    ensure!(told.is_err(), "the 65th is served");
    all.pop();
    // The place is free when it has seen that it is.
    until("another one is served", || {
        let mut next = Spawner::connect(&scene.places(), PATIENCE)?;
        Ok(next.slots().is_ok())
    })?;
    all[0].slots()?;
    Ok(())
}
