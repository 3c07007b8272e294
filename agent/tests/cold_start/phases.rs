//! How marks are cut into phases.

use hearth::observe::cold_start::{ColdStart, Ready, Role, StartRule};
use hearth_abi::{Kind, Part};

use crate::bodies::check;
use crate::story::{SOURCE, Story, VFORK, at, daemon, p, shape, trace};

/// `hearth trace -- app`: app listens.
pub(crate) fn plain() -> Story {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 400, 500], p(1), "/usr/bin/app");
    story.mark(Kind::Listen, 900, p(1)).args = [8080, 2, 0];
    story
}

/// `hearth trace -- sh -c app`: sh forks app, which listens.
pub(crate) fn wrapped() -> Story {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 200, 250], p(1), "/bin/sh");
    story.fork(300, p(1), p(2));
    story.program([350, 400, 500, 600], p(2), "/usr/bin/app");
    story.mark(Kind::Listen, 800, p(2));
    story
}

/// `runc run hello`: re-execs, a double fork whose parents die, a hook, and then `/bin/app`.
pub(crate) fn runc() -> Story {
    let mut story = Story::watched();
    story.exec_of(0, 200, p(1), "/usr/sbin/runc", 1);
    story.fork(1000, p(1), p(2)).args[2] = VFORK;
    story.exec_of(1100, 1200, p(2), "/proc/self/exe", 1);
    story.exec_of(1500, 1600, p(2), "/dev/fd/6", 2);
    story.populated(1700, 50, "/hello");
    story.cgroups = [(2, 50), (3, 50), (4, 50)].into();
    story.part(Part::Cgroup, 1650, 1800, p(1));
    story.fork(2000, p(2), p(3));
    story.fork(2100, p(3), p(4));
    story.mark(Kind::Exit, 2150, p(3));
    story.mark(Kind::Exit, 2200, p(2));
    story.part(Part::Mounts, 2300, 2500, p(4));
    story.fork(3000, p(1), p(5)).args[2] = VFORK;
    story.exec(3010, 3020, p(5), "/usr/bin/hook");
    story.mark(Kind::Exit, 3500, p(5));
    story.program([5000, 5050, 5100, 5200], p(4), "/bin/app");
    story.mark(Kind::Exit, 6000, p(4)).args = [3 << 8, 0, 0];
    story.mark(Kind::Exit, 6100, p(1));
    story
}

fn by_runtime(story: &Story) -> Vec<ColdStart> {
    let mut settings = daemon(false);
    settings.rules = vec![StartRule::runtime("runc").expect("a name")];
    story.starts(settings)
}

#[test]
fn a_plain_program() {
    let start = plain().traced();
    check(&start);
    assert_eq!(
        shape(&start),
        "create 0..100, exec 100..150, link 150..400, runtime_init 400..500, user_init 500..900"
    );
    assert_eq!((start.ready, start.opener), (Ready::Listen, "trace"));
    assert_eq!(start.identity.pid, 1);
    assert_eq!(start.identity.exe.as_deref(), Some("/usr/bin/app"));
    assert_eq!(start.identity.argv0.as_deref(), Some("app"));
}

#[test]
fn a_shell_that_forks_the_program_is_a_wrapper() {
    let mut story = wrapped();
    // What the shell does after that fork is none of the chain's.
    story.exec(450, 460, p(1), "/bin/other");
    let start = story.traced();
    check(&start);
    assert_eq!(
        shape(&start),
        "create 0..100, wrapper 100..350, exec 350..400, link 400..500, \
         runtime_init 500..600, user_init 600..800"
    );
    assert_eq!(start.identity.pid, 2);
    // The wrapper ran in the shell for 200 us and in its child for 50.
    let wrapper = &start.phases[1];
    assert_eq!(wrapper.running_ns.map(|ns| ns.0), Some(250_000));
    assert_eq!(wrapper.minor_faults, Some(250));
}

#[test]
fn a_wrapper_that_execs_the_program() {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 200, 250], p(1), "/usr/bin/env");
    story.program([300, 350, 400, 500], p(1), "/usr/bin/app");
    story.mark(Kind::Exit, 700, p(1));
    let start = story.traced();
    check(&start);
    assert_eq!(
        shape(&start),
        "create 0..100, wrapper 100..300, exec 300..350, link 350..400, \
         runtime_init 400..500, user_init 500..700"
    );
    assert_eq!((start.ready, start.exit_status), (Ready::Exit, Some(0)));
}

#[test]
fn a_script_is_one_exec_under_its_own_name() {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 400, 500], p(1), "/srv/app.py");
    story.mark(Kind::Exit, 700, p(1));
    let start = story.traced();
    assert_eq!(start.phases.len(), 5);
    assert_eq!(start.identity.exe.as_deref(), Some("/srv/app.py"));
}

#[test]
fn a_container_by_runc() {
    let starts = by_runtime(&runc());
    let [start] = &starts[..] else {
        panic!("{starts:#?}")
    };
    check(start);
    assert_eq!(
        shape(start),
        "create 0..5000, exec 5000..5050, link 5050..5100, runtime_init 5100..5200, \
         user_init 5200..6000"
    );
    assert_eq!(
        (start.ready, start.exit_status),
        (Ready::Exit, Some(3 << 8))
    );
    assert_eq!(start.identity.container_id.as_deref(), Some("hello"));
    assert_eq!(start.identity.container_runtime, Some("runc"));
    assert_eq!(start.identity.pid, 4);
    let parts: Vec<_> = start.phases[0]
        .parts
        .iter()
        .map(|part| (part.name, part.pid))
        .collect();
    assert_eq!(parts, [("cgroup", 1), ("mounts", 4)]);
}

#[test]
fn a_container_whose_program_has_a_wrapper() {
    let mut story = runc();
    story.events.truncate(story.events.len() - 2);
    story.fork(5300, p(4), p(6));
    story.program([5400, 5450, 5500, 5600], p(6), "/bin/server");
    story.mark(Kind::Listen, 5900, p(6));
    let starts = by_runtime(&story);
    assert_eq!(
        shape(&starts[0]),
        "create 0..5000, wrapper 5000..5400, exec 5400..5450, link 5450..5500, \
         runtime_init 5500..5600, user_init 5600..5900"
    );
}

#[test]
fn runc_create_and_start_has_the_held_part() {
    let mut story = runc();
    story.events.truncate(story.events.len() - 7);
    story.mark(Kind::Exit, 4000, p(1));
    story.part(Part::Held, 3600, 9000, p(4));
    story.program([9100, 9150, 9200, 9300], p(4), "/bin/app");
    story.mark(Kind::Listen, 9900, p(4));
    // `runc start` is an exec of the runtime too, with an id of its own.
    story.watch = at(8900);
    story.exec_of(8900, 8950, p(7), "/usr/sbin/runc", 1);
    story.mark(Kind::Exit, 9050, p(7));
    let starts = by_runtime(&story);
    let [start] = &starts[..] else {
        panic!("{starts:#?}")
    };
    assert_eq!(start.phases[0].label(), "create");
    assert!(start.phases[0].parts.iter().any(|part| part.name == "held"));
    assert_eq!(start.total_ns.0, 9_900_000);
}

#[test]
fn runc_exec_and_queries_of_runc_open_nothing() {
    let mut settings = daemon(false);
    settings.rules = vec![StartRule::runtime("runc").expect("a name")];
    let mut story = Story::watched();
    story.populated(0, 50, "/hello");
    story.watch = at(10_000);
    story.exec_of(10_000, 10_200, p(1), "/usr/sbin/runc", 1);
    story.fork(10_300, p(1), p(2));
    story.exec_of(10_400, 10_500, p(2), "/proc/self/exe", 1);
    story.cgroups = [(2, 50)].into();
    story.exec(10_600, 10_700, p(2), "/bin/sh");
    story.mark(Kind::Listen, 10_800, p(2));
    story.watch = at(20_000);
    story.exec_of(20_000, 20_200, p(3), "/usr/sbin/runc", 1);
    story.mark(Kind::Exit, 20_300, p(3));
    assert_eq!(story.starts(settings), []);
}

#[test]
fn a_container_that_cannot_exec_its_program_has_exited() {
    let mut story = runc();
    story.events.truncate(story.events.len() - 7);
    story.mark(Kind::Exit, 5000, p(4)).args = [1 << 8, 0, 0];
    story.mark(Kind::Exit, 5100, p(1)).args = [1 << 8, 0, 0];
    let starts = by_runtime(&story);
    let [start] = &starts[..] else {
        panic!("{starts:#?}")
    };
    assert_eq!(
        (start.ready, shape(start).as_str()),
        (Ready::Exited, "create 0..5100")
    );
}

#[test]
fn a_missing_mark_merges_its_neighbours_and_names_them() {
    let tail = "runtime_init 400..500, user_init 500..900";
    for (kind, expected) in [
        (
            Kind::ExecBegin,
            format!("create+exec 0..150, link 150..400, {tail}"),
        ),
        (
            Kind::Exec,
            format!("create 0..100, exec+link 100..400, {tail}"),
        ),
        (
            Kind::Entry,
            "create 0..100, exec 100..150, link+runtime_init 150..500, user_init 500..900".into(),
        ),
        (
            Kind::Main,
            "create 0..100, exec 100..150, link 150..400, runtime_init+user_init 400..900".into(),
        ),
        (
            // The fork: nothing tells how the program came about.
            Kind::Fork,
            "create+wrapper 0..100, exec 100..150, link 150..400, runtime_init 400..500, \
             user_init 500..900"
                .into(),
        ),
    ] {
        let start = plain().without(kind, 0).traced();
        check(&start);
        assert_eq!(shape(&start), expected, "without {kind:?}");
        assert_eq!(start.total_ns.0, 900_000);
    }
}

#[test]
fn a_wrapper_with_losses_claims_nothing_that_was_not_seen() {
    for (kind, nth, expected) in [
        // The fork of the program by the shell.
        (
            Kind::Fork,
            1,
            "create+wrapper 0..350, exec 350..400, link 400..500",
        ),
        // The begin of the shell's exec.
        (
            Kind::ExecBegin,
            0,
            "create+wrapper 0..350, exec 350..400, link 400..500",
        ),
        // The begin of the program's.
        (
            Kind::ExecBegin,
            1,
            "create 0..100, wrapper+exec 100..400, link 400..500",
        ),
        // The program's exec itself: its begin still tells where the wrapper ends.
        (
            Kind::Exec,
            1,
            "create 0..100, wrapper 100..350, exec+link 350..500",
        ),
    ] {
        let start = wrapped().without(kind, nth).traced();
        check(&start);
        let shape = shape(&start);
        assert!(
            shape.starts_with(expected),
            "without {kind:?} {nth}: {shape}"
        );
    }
    // Without any trace of the program's exec its entry still shows that there was one.
    let start = wrapped()
        .without(Kind::ExecBegin, 1)
        .without(Kind::Exec, 1)
        .traced();
    assert!(
        shape(&start).starts_with("create 0..100, wrapper+exec+link 100..500"),
        "{start:#?}"
    );
}

#[test]
fn a_command_that_cannot_be_executed_has_exited() {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.mark(Kind::Exit, 300, p(1)).args = [127 << 8, 0, 0];
    let start = story.traced();
    check(&start);
    assert_eq!(
        (start.ready, shape(&start).as_str()),
        (Ready::Exited, "create 0..300")
    );
    assert_eq!(start.exit_status, Some(127 << 8));
}

#[test]
fn an_exit_is_no_readiness_where_the_rule_wants_more() {
    let mut story = plain();
    story.events.pop();
    story.mark(Kind::Exit, 900, p(1));
    let mut settings = trace();
    settings.ready = "listen".parse().expect("a rule");
    let starts = story.starts(settings);
    assert_eq!(starts[0].ready, Ready::Exited);
    assert_eq!(starts[0].phases.len(), 5);
}

#[test]
fn an_exec_by_a_thread_belongs_to_its_process() {
    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([100, 150, 200, 250], p(1), "/usr/bin/threads");
    // The thread begins; when the exec is done it has the leader's id.
    let begin = story.mark(Kind::ExecBegin, 300, p(1));
    (begin.tid, begin.threads) = (9, 2);
    story.mark(Kind::Exec, 350, p(1)).args = [77, 1, 0];
    story.mark(Kind::Entry, 400, p(1));
    story.mark(Kind::Main, 500, p(1));
    story.mark(Kind::Exit, 700, p(1));
    let start = story.traced();
    check(&start);
    assert_eq!(
        shape(&start),
        "create 0..100, wrapper 100..300, exec 300..350, link 350..400, \
         runtime_init 400..500, user_init 500..700"
    );
}

#[test]
fn vfork_and_posix_spawn_are_forks() {
    let mut story = wrapped();
    for event in &mut story.events {
        if let hearth::kernel::event::Event::Mark(Kind::Fork, mark) = event {
            mark.args[2] = VFORK;
        }
    }
    assert_eq!(shape(&story.traced()), shape(&wrapped().traced()));
}

#[test]
fn a_program_rule_opens_at_its_own_exec() {
    let mut settings = daemon(false);
    settings.rules = vec![StartRule::new("/srv/app", Role::Program).expect("a path")];
    settings.rules[0].function = Some("hello".into());
    let mut story = Story::watched();
    story.program([0, 50, 300, 400], p(1), "/srv/app");
    story.fork(450, p(1), p(2));
    story.mark(Kind::Listen, 900, p(2));
    let starts = story.starts(settings.clone());
    check(&starts[0]);
    assert_eq!(
        shape(&starts[0]),
        "exec 0..50, link 50..300, runtime_init 300..400, user_init 400..900"
    );
    assert_eq!(starts[0].identity.function.as_deref(), Some("hello"));
    assert_eq!(starts[0].opener, "exec");
    // The begin is the start's id, even if its mark is lost.
    let lost = story
        .clone()
        .without(Kind::ExecBegin, 0)
        .starts(settings.clone());
    assert_eq!(shape(&lost[0]), shape(&starts[0]));
    // Another file of that name is no such program.
    let mut other = Story::watched();
    other.program([0, 50, 300, 400], p(1), "/opt/app");
    other.mark(Kind::Listen, 900, p(1));
    assert_eq!(other.starts(settings), []);
}

#[test]
fn a_fork_server_has_no_exec() {
    let mut settings = daemon(false);
    let mut rule = StartRule::new("zygote", Role::ForkServer).expect("a name");
    (rule.function, rule.ready) = (Some("fn".into()), Some("accept".parse().expect("a rule")));
    settings.rules = vec![rule];
    let mut story = Story::watched();
    story.fork(0, p(50), p(1));
    story.mark(Kind::Accept, 700, p(1));
    let starts = story.starts(settings);
    check(&starts[0]);
    assert_eq!(
        (shape(&starts[0]).as_str(), starts[0].opener),
        ("user_init 0..700", "fork")
    );
    assert_eq!(starts[0].ready, Ready::Accept);
    assert_eq!(starts[0].identity.function.as_deref(), Some("fn"));
}

#[test]
fn a_units_cgroup_opens_and_others_do_not() {
    for (path, unit) in [
        ("/system.slice/app.service", Some("app.service")),
        ("/user.slice/user-0.slice/session-3.scope", None),
    ] {
        let mut story = Story::unwatched();
        story.populated(0, 60, path);
        story.watch = at(10);
        story.cgroups = [(5, 60)].into();
        let attach = story.mark(Kind::CgroupAttach, 10, p(5));
        attach.args = [60, 5, p(5).start_boottime];
        story.program([100, 150, 300, 400], p(5), "/usr/bin/app");
        story.mark(Kind::Notify, 800, p(5));
        let mut settings = daemon(false);
        settings.ready = "notify".parse().expect("a rule");
        let starts = story.starts(settings);
        assert_eq!(starts.len(), usize::from(unit.is_some()), "{path}");
        for start in starts {
            check(&start);
            assert_eq!(start.identity.unit.as_deref(), unit);
            assert_eq!(start.identity.cgroup_path.as_deref(), Some(path));
            assert_eq!(start.opener, "cgroup");
            assert!(
                shape(&start).starts_with("create 0..90, exec 90..140"),
                "{}",
                shape(&start)
            );
        }
    }
}

#[test]
fn a_child_cloned_into_a_fresh_cgroup_opens_it_too() {
    let mut story = Story::unwatched();
    story.populated(0, 60, "/system.slice/app.service");
    story.watch = at(10);
    story.cgroups = [(5, 60)].into();
    story.fork(10, p(1), p(5)).flags = 0;
    story.program([100, 150, 300, 400], p(5), "/usr/bin/app");
    story.mark(Kind::Listen, 800, p(5));
    let starts = story.starts(daemon(false));
    assert_eq!((starts.len(), starts[0].opener), (1, "cgroup"));
    assert_eq!(starts[0].identity.unit.as_deref(), Some("app.service"));
}

#[test]
fn marks_without_a_time_or_with_the_same_one_do_no_harm() {
    let mut story = plain();
    for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_text()) {
        story.mark(kind, 0, p(1)).boottime_ns = 0;
    }
    assert_eq!(shape(&story.traced()), shape(&plain().traced()));

    let mut story = Story::watched();
    story.fork(0, p(SOURCE), p(1));
    story.program([0, 0, 0, 0], p(1), "/usr/bin/app");
    story.mark(Kind::Exit, 0, p(1));
    let start = story.traced();
    check(&start);
    assert_eq!(start.total_ns.0, 0);
}

#[test]
fn parts_lie_in_the_phase_that_covers_their_begin() {
    let mut story = plain();
    story.part(Part::Network, 50, 120, p(9));
    story.part(Part::Network, 600, 5000, p(1));
    story.part(Part::Network, 2000, 2100, p(1));
    let start = story.traced();
    assert_eq!(start.phases[0].parts.len(), 1);
    assert_eq!(
        (start.phases[0].parts[0].pid, start.phases[4].parts.len()),
        (9, 1)
    );
    assert_eq!(start.parts_dropped, 1, "the one that began after ready");
}
