//! Kills for want of memory: one record for each that the kernel counts, and in it the frames
//! that the victim itself knew. Also run in VMs on the older kernels.

mod captured;
mod languages;
mod scene;
mod shortage;
mod strategies;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hearth::kernel::oom::OomLimits;
use hearth_abi::{
    OomConstraint, OomContent, OomKill, OomKillField, OomSource, OomThread, OomThreadField, OomVma,
    oom_kill, oom_thread, oom_vma,
};
use hearth_tests::{child, machine, programs, requirement};

use captured::{Capture, Captures};
use scene::{LIMIT, Scene, Victim};

const PAGE: u64 = 4096;
const RIP: usize = 16;
const RSP: usize = 19;

fn source(kill: &OomKill, field: OomKillField) -> Option<OomSource> {
    OomSource::from_u8(kill.sources[field as usize])
}

fn thread_source(thread: &OomThread, field: OomThreadField) -> Option<OomSource> {
    OomSource::from_u8(thread.sources[field as usize])
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|&byte| byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

fn victim() -> Result<Vec<PathBuf>> {
    Ok(vec![programs::oom_victim()?])
}

fn frames(thread: &OomThread) -> &[u64] {
    &thread.user_stack[..thread.user_frames as usize]
}

/// Whether a stack is the one that the victim knew: in the function, or called by it, and then
/// its callers, each where it would have gone on.
fn is_known(thread: &OomThread, victim: &Victim) -> bool {
    let frames = frames(thread);
    let own = |address: u64| (victim.begin..victim.end).contains(&address);
    let Some(at) = frames
        .windows(victim.callers.len())
        .position(|some| some == victim.callers)
    else {
        return false;
    };
    // Of a leaf without a frame of its own the caller is beside the stack.
    at >= 1 && (own(frames[at - 1]) || own(thread.leaf))
}

/// What is short enough to be read of a kill.
fn outline(kill: &OomKill) -> String {
    format!(
        "flags {:#x}, constraint {}, memcg {}, limit {}, usage {}, anon {}, file {}, page tables {}, \
         address space {}, adjustment {}, sources {:?}",
        kill.flags,
        kill.constraint,
        kill.memcg,
        kill.limit_pages,
        kill.usage_pages,
        kill.rss_anon_pages,
        kill.rss_file_pages,
        kill.page_table_bytes,
        kill.total_vm_pages,
        kill.oom_score_adj,
        kill.sources,
    )
}

/// What holds of every capture, whoever was killed and however.
fn is_sound(capture: &Capture, scene: &Scene, victim: &Victim) -> Result<()> {
    let kill = capture.kill()?;
    ensure!(kill.victim.tgid == victim.pid);
    ensure!(
        kill.constraint == OomConstraint::Memcg as u16,
        "{}",
        outline(kill)
    );
    ensure!(kill.limit_pages == LIMIT / PAGE, "{}", outline(kill));
    // Other threads' requests are charged for a moment before they are refused too.
    ensure!(
        (LIMIT / PAGE * 9 / 10..LIMIT / PAGE + 256).contains(&kill.usage_pages),
        "{}",
        outline(kill)
    );
    let directory =
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&scene.cgroup.directory)?);
    ensure!(
        kill.memcg == directory && kill.victim.cgroup == directory,
        "{}",
        outline(kill)
    );
    ensure!(
        (kill.flags & oom_kill::MEMSW != 0) != scene.v2,
        "{}",
        outline(kill)
    );
    ensure!(
        kill.uid == 0 && kill.oom_score_adj == adjustment()?,
        "{}",
        outline(kill)
    );
    // What it filled is anonymous, and nearly all that there is; some pages it had before.
    ensure!(
        (LIMIT / PAGE / 2..LIMIT / PAGE + 2048).contains(&kill.rss_anon_pages),
        "{}",
        outline(kill)
    );
    ensure!(
        kill.page_table_bytes > 0 && kill.total_vm_pages > LIMIT / PAGE / 2,
        "{}",
        outline(kill)
    );
    ensure!(kill.asker_frames > 3, "{}", outline(kill));
    for thread in &capture.threads {
        ensure!(thread.id == kill.id || thread.flags & oom_thread::EARLY != 0);
        ensure!(thread.task.start_boottime == kill.victim.start_boottime);
        ensure!(
            thread_source(thread, OomThreadField::UserStack) == Some(OomSource::Read),
            "{:?}",
            thread.sources
        );
        ensure!(frames(thread)[0] == thread.registers[RIP]);
        // Another thread can hold the lock of the mappings at that moment; it is said so.
        let is_whole = thread_source(thread, OomThreadField::Mappings) == Some(OomSource::Read);
        if is_whole || capture.threads.len() == 1 {
            let address = thread.registers[RIP];
            let vma = capture
                .vmas
                .iter()
                .find(|vma| (vma.start..vma.end).contains(&address))
                .with_context(|| format!("no mapping has {address:#x}"))?;
            ensure!(vma.vm_flags & 4 != 0, "{vma:#?}");
        }
    }
    let line: Vec<_> = capture
        .memories
        .iter()
        .filter(|memory| memory.content == OomContent::CommandLine as u16)
        .collect();
    // One that came to its end before the kernel had marked its process tells it too.
    ensure!(!line.is_empty(), "no command line");
    Ok(())
}

/// As every process that a test starts.
fn adjustment() -> Result<i32> {
    let text = std::fs::read_to_string("/proc/self/oom_score_adj").context("own adjustment")?;
    text.trim().parse().context("an adjustment")
}

/// A victim dies in `mode`; its capture has `threads`, one of which is at the place that it knew.
fn dies(program: &[PathBuf], mode: &str, threads: usize) -> Result<Capture> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let mut captures = Captures::start(OomLimits::default())?;
    dies_before(&mut captures, program, mode, Some(threads))
}

/// The same, before these eyes.
fn dies_before(
    captures: &mut Captures,
    program: &[PathBuf],
    mode: &str,
    threads: Option<usize>,
) -> Result<Capture> {
    let scene = Scene::new(mode)?;
    let victim = scene.kill(program, mode)?;
    let capture = captures.whole(victim.pid)?;
    is_sound(&capture, &scene, &victim)?;
    let count = capture.threads.len();
    ensure!(
        threads.is_none_or(|threads| threads == count),
        "{count} threads of {threads:?}"
    );
    ensure!(
        capture
            .threads
            .iter()
            .any(|thread| is_known(thread, &victim)),
        "{victim:#x?} {:#x?}",
        capture
            .threads
            .iter()
            .map(|t| (frames(t), t.leaf))
            .collect::<Vec<_>>()
    );
    let kills = captures.kills();
    let here = kills
        .iter()
        .filter(|kill| kill.memcg == capture.kills[0].memcg);
    ensure!(here.count() as u64 == scene.kills()?, "{kills:#?}");
    captures.balance()?;
    Ok(capture)
}

#[test]
fn a_victim_that_faults_is_where_it_knows_it_is() -> Result<()> {
    let program = victim()?;
    let capture = dies(&program, "fault", 1)?;
    let kill = capture.kill()?;
    ensure!(
        kill.flags & oom_kill::VICTIM_ASKED != 0,
        "{}",
        outline(kill)
    );
    ensure!(kill.asker.tid == kill.victim.tid);
    for register in [RIP, RSP] {
        ensure!(kill.registers[register] == capture.threads[0].registers[register]);
    }
    ensure!(capture.threads[0].flags & oom_thread::LAST != 0);
    ensure!(text(&kill.victim.comm) == "oom_victim", "{}", outline(kill));
    // The file that it runs, as it is found from the root.
    let at = capture.threads[0].registers[RIP];
    let vma = capture
        .vmas
        .iter()
        .find(|vma| (vma.start..vma.end).contains(&at))
        .context("no mapping")?;
    ensure!(vma.flags == oom_vma::FILE, "{vma:#?}");
    let names = &vma.names[..vma.names_length as usize];
    let mut names: Vec<_> = names.split(|&b| b == 0).map(text).collect();
    ensure!(names.pop().as_deref() == Some(""));
    names.reverse();
    let path = PathBuf::from(format!("/{}", names.join("/")));
    ensure!(path == program[0].canonicalize()?, "{}", path.display());
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path)?);
    ensure!(vma.inode == inode, "{vma:#?}");
    // Its own words, with their zeros.
    let line = &capture.memories[0];
    let words = &line.bytes[..line.length as usize];
    let words: Vec<_> = words.split(|&b| b == 0).map(text).collect();
    ensure!(
        words[0] == program[0].to_string_lossy() && words[1] == "fault",
        "{words:?}"
    );
    Ok(())
}

#[test]
fn a_victim_in_a_system_call_is_where_it_knows_it_is() -> Result<()> {
    let capture = dies(&victim()?, "read", 1)?;
    // orig_rax: read.
    ensure!(
        capture.threads[0].registers[15] == 0,
        "{:#x?}",
        capture.threads[0]
    );
    Ok(())
}

#[test]
fn of_a_hundred_threads_each_has_a_record() -> Result<()> {
    let capture = dies(&victim()?, "threads", 100)?;
    let tids: std::collections::HashSet<_> = capture.threads.iter().map(|t| t.task.tid).collect();
    ensure!(tids.len() == 100);
    let last = capture
        .threads
        .iter()
        .filter(|thread| thread.flags & oom_thread::LAST != 0);
    ensure!(last.count() <= 1);
    ensure!(capture.kill()?.threads <= 100);
    ensure!(capture.ends.len() == 1);
    Ok(())
}

#[test]
fn a_frame_is_said_to_have_no_mapping_only_if_it_has_none() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let mut captures = Captures::start(OomLimits::default())?;
    let capture = dies_before(&mut captures, &victim()?, "protect", None)?;
    let mut unreadable = 0;
    for thread in &capture.threads {
        let is_readable = thread_source(thread, OomThreadField::Mappings) == Some(OomSource::Read);
        unreadable += usize::from(!is_readable);
        for (index, address) in frames(thread).iter().enumerate() {
            let has_it = |vma: &OomVma| (vma.start..vma.end).contains(address);
            let has_none = thread.unmapped[index / 64] >> (index % 64) & 1 != 0;
            let is_right = if capture.vmas.iter().any(has_it) {
                !has_none
            } else {
                has_none || !is_readable
            };
            ensure!(
                is_right,
                "frame {index}, {address:#x}, of {:?}: {:#x?}",
                thread.task,
                capture.vmas
            );
        }
    }
    println!("the mappings of {unreadable} threads could not be looked at");
    Ok(())
}

#[test]
fn a_forked_child_is_the_victim_and_not_its_parent() -> Result<()> {
    dies(&victim()?, "child", 1).map(drop)
}

#[test]
fn a_victim_that_waits_is_killed_for_another() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let scene = Scene::new("idle")?;
    let mut captures = Captures::start(OomLimits::default())?;
    let program = victim()?;
    let mut idle = child::Guard(scene.command(&program, "idle").spawn()?);
    let victim = scene.waiting(1)?.remove(0);
    // It asks until it is killed itself, for the limit holds for one as for two.
    child::run(&mut scene.command(&program, "ask"), Duration::from_mins(1))?;
    idle.wait(Duration::from_mins(1))?;
    let capture = captures.whole(victim.pid)?;
    is_sound(&capture, &scene, &victim)?;
    let kill = capture.kill()?;
    ensure!(
        kill.flags & oom_kill::VICTIM_ASKED == 0,
        "{}",
        outline(kill)
    );
    ensure!(kill.asker.tgid != kill.victim.tgid && kill.asker.tgid != 0);
    ensure!(
        is_known(&capture.threads[0], &victim),
        "{:#x?}",
        capture.threads[0]
    );
    ensure!(scene.kills()? == 2, "{}", scene.kills()?);
    captures.balance()
}

#[test]
fn stack_memory_is_taken_where_it_is_asked_for_and_nowhere_else() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    for wanted in [0, 512] {
        let scene = Scene::new("stack")?;
        let limits = OomLimits {
            stack_bytes: wanted,
            ..OomLimits::default()
        };
        let mut captures = Captures::start(limits)?;
        let victim = scene.kill(&self::victim()?, "fault")?;
        let capture = captures.whole(victim.pid)?;
        let thread = &capture.threads[0];
        let stacks: Vec<_> = capture
            .memories
            .iter()
            .filter(|memory| memory.content == OomContent::Stack as u16)
            .collect();
        let told = thread_source(thread, OomThreadField::StackMemory);
        if wanted == 0 {
            ensure!(told == Some(OomSource::Off) && stacks.is_empty());
            continue;
        }
        ensure!(told == Some(OomSource::Read) && stacks.len() == 1);
        ensure!(stacks[0].length == wanted && stacks[0].address == thread.registers[RSP]);
        let words: Vec<u64> = stacks[0]
            .bytes
            .chunks_exact(8)
            .filter_map(|word| Some(u64::from_ne_bytes(word.try_into().ok()?)))
            .collect();
        for caller in &victim.callers {
            ensure!(words.contains(caller), "{caller:#x} is not in {words:#x?}");
        }
    }
    Ok(())
}

#[test]
fn every_field_says_where_it_is_from() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let scene = Scene::new("fields")?;
    let mut captures = Captures::start(OomLimits::default())?;
    let victim = scene.kill(&self::victim()?, "fault")?;
    let capture = captures.whole(victim.pid)?;
    let kill = capture.kill()?;
    let sees_control = captures.strategy("oom:kill").as_deref() == Some("fentry");
    for (field, there) in [
        (OomKillField::Request, sees_control),
        (OomKillField::Points, sees_control),
        (OomKillField::Constraint, true),
        (OomKillField::Memcg, true),
        (OomKillField::Usage, true),
        (OomKillField::Rss, true),
        (OomKillField::Registers, true),
        (OomKillField::VictimStack, true),
        (OomKillField::AskerStack, true),
    ] {
        let told = source(kill, field).context("a source that is not known")?;
        ensure!(
            told.is_there() == there,
            "{}: {}",
            field.name(),
            told.name()
        );
    }
    if sees_control {
        ensure!(
            kill.gfp != 0 && kill.order == 0 && kill.points > 0,
            "{}",
            outline(kill)
        );
        ensure!(kill.total_pages == LIMIT / PAGE, "{}", outline(kill));
    }
    Ok(())
}

#[test]
fn a_group_that_is_killed_together_is_told_together() -> Result<()> {
    requirement::root()?;
    let _machine = machine::shared()?;
    let scene = Scene::new("group")?;
    // Of version 1 there is no such thing.
    if !scene.v2 {
        return Ok(());
    }
    scene.write("memory.oom.group", "1")?;
    scene.write("memory.max", &(2 * LIMIT).to_string())?;
    let mut captures = Captures::start(OomLimits::default())?;
    let program = victim()?;
    let mut idle = Vec::new();
    for _ in 0..2 {
        idle.push(child::Guard(scene.command(&program, "idle").spawn()?));
    }
    scene.waiting(2)?;
    scene.kill(&program, "fault")?;
    let mut group = None;
    for victim in scene.victims()? {
        let capture = captures.whole(victim.pid)?;
        let kill = capture.kill()?;
        ensure!(kill.flags & oom_kill::GROUP != 0, "{}", outline(kill));
        ensure!(kill.group != 0 && kill.group <= kill.id);
        ensure!(*group.get_or_insert(kill.group) == kill.group);
        ensure!(is_known(&capture.threads[0], &victim), "{victim:#x?}");
    }
    let kills = captures.kills();
    let kills = kills.iter().filter(|kill| Some(kill.group) == group);
    ensure!(kills.count() == 3);
    // The kernel counts the one that it has chosen twice: alone, and then with its group.
    ensure!((3..=4).contains(&scene.kills()?), "{}", scene.kills()?);
    captures.balance()
}
