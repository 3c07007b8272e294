use super::super::maps::Maps;
use super::*;

const SECOND: u64 = 1_000_000_000;

fn about(path: Option<&str>) -> About {
    About {
        path: path.map(Into::into),
        is_v2: true,
        limit: 1000,
        oom_group: Some(true),
        stat: Some("anon 5\n".into()),
    }
}

fn usage(at: u64, bytes: u64) -> UsageSample {
    UsageSample {
        at: Boottime(at),
        bytes,
        needed_bytes: Some(bytes),
    }
}

fn read(board: &mut Board, id: u64, at: u64, bytes: u64) {
    let reading = Reading {
        usage: usage(at, bytes),
        events: "high 1\nmax 2\n",
        pressure: None,
    };
    board.read(id, &reading);
}

fn mapped(pid: u32, at: u64, bytes: usize) -> Mapped {
    let line = "1000-2000 r-xp 00000000 00:00 0 \n";
    Mapped {
        pid,
        start_ticks: 7,
        maps: Maps {
            at: Boottime(at),
            text: line.repeat(bytes.div_ceil(line.len())).into(),
            more: 0,
        },
    }
}

fn looked(maps: Vec<Mapped>) -> Look {
    Look {
        maps,
        ..Look::default()
    }
}

const VICTIM: Process = Process {
    pid: 9,
    start: None,
};

#[test]
fn what_came_after_the_kill_is_not_told_as_before() {
    let mut board = Board::default();
    board.arm(1, about(Some("/a")), Boottime(SECOND));
    board.begin(1, usage(1, 100));
    for second in 1..10 {
        read(&mut board, 1, second * SECOND, 100 * second);
    }
    let known = board.before(1, VICTIM, Boottime(5 * SECOND));
    let before = known.value().expect("a record");
    assert_eq!(before.usage.len(), 6);
    assert_eq!(before.usage.last(), Some(&usage(5 * SECOND, 500)));
    assert_eq!(before.limit, Known::Value(1000));
    assert_eq!(before.oom_group, Known::Value(true));
    assert_eq!(before.events.value().expect("events")["max"], 2);
    assert_eq!(before.stat.value().expect("stat")["anon"], 5);
    assert_eq!(before.vmas.why().expect("absent").reason, Reason::NotArmed);
    assert_eq!(
        before.pressure.why().expect("absent").reason,
        Reason::Kernel
    );
}

#[test]
fn who_was_not_armed_is_said_not_to_have_been() {
    let mut board = Board::default();
    let reason = |board: &mut Board, id| {
        board
            .before(id, VICTIM, Boottime(SECOND))
            .why()
            .map(|why| why.reason)
    };
    assert_eq!(reason(&mut board, 1), Some(Reason::NotArmed));
    assert_eq!(reason(&mut board, NODE), Some(Reason::NotArmed));
    board.arm(1, about(Some("/a")), Boottime(2 * SECOND));
    read(&mut board, 1, 2 * SECOND, 900);
    assert_eq!(
        reason(&mut board, 1),
        Some(Reason::NotArmed),
        "it was armed too late"
    );
}

#[test]
fn a_record_outlives_its_cgroup_for_a_while() {
    let mut board = Board::default();
    board.arm(1, about(Some("/a")), Boottime(0));
    read(&mut board, 1, SECOND, 900);
    board.look(1, looked(vec![mapped(9, SECOND, 10)]), Boottime(SECOND));
    board.disarm(1, Boottime(2 * SECOND));
    assert!(board.near().is_empty());
    board.sweep(Boottime(61 * SECOND));
    let known = board.before(1, VICTIM, Boottime(2 * SECOND));
    assert_eq!(
        known
            .value()
            .expect("kept")
            .vmas
            .value()
            .expect("a list")
            .vmas
            .len(),
        1
    );
    board.sweep(Boottime(62 * SECOND));
    assert!(
        board
            .before(1, VICTIM, Boottime(2 * SECOND))
            .value()
            .is_none()
    );
}

#[test]
fn a_process_of_the_same_id_is_another_one() {
    let mut board = Board::default();
    board.arm(1, about(Some("/a")), Boottime(0));
    read(&mut board, 1, SECOND, 900);
    board.look(1, looked(vec![mapped(9, SECOND, 10)]), Boottime(SECOND));
    let hz = rustix::param::clock_ticks_per_second();
    let started = |ticks: u64| Process {
        pid: 9,
        start: Some(Boottime(ticks * (SECOND / hz) + 1)),
    };
    let mut list = |victim| {
        let known = board.before(1, victim, Boottime(2 * SECOND));
        known
            .value()
            .is_some_and(|before| before.vmas.value().is_some())
    };
    assert!(list(started(7)) && list(VICTIM));
    assert!(!list(started(8)));
}

#[test]
fn lists_are_bounded_and_the_oldest_go() {
    let mut board = Board::default();
    for id in 1..=30 {
        board.arm(id, about(Some("/a")), Boottime(0));
        let lists = vec![mapped(9, id * SECOND, 100_000)];
        board.look(id, looked(lists), Boottime(id * SECOND));
    }
    assert!(board.maps <= MAPS && board.lists_dropped > 0);
    let has = |id: u64| !board.records[&id].mapped.is_empty();
    assert!(!has(1) && has(30));
}

#[test]
fn ended_records_are_bounded() {
    let mut board = Board::default();
    for id in 1..=ENDED as u64 + 3 {
        board.arm(id, about(Some("/a")), Boottime(0));
        board.disarm(id, Boottime(id));
    }
    assert_eq!((board.records.len(), board.records_dropped), (ENDED, 3));
    assert!(!board.records.contains_key(&3) && board.records.contains_key(&4));
}

#[test]
fn the_nearest_is_told_first() {
    let mut board = Board::default();
    for (id, path, bytes) in [
        (1, Some("/a"), 850),
        (2, Some("/b"), 950),
        (NODE, None, 900),
    ] {
        board.arm(id, about(path), Boottime(0));
        read(&mut board, id, SECOND, bytes);
    }
    let near = board.near();
    let paths: Vec<_> = near.iter().map(|near| near.path.as_deref()).collect();
    assert_eq!(paths, [Some("/b"), None, Some("/a")]);
    assert!((near[0].share - 0.95).abs() < 1e-9);
}
