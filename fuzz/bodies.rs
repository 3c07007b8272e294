//! What the fuzz targets do with their bytes, and what must hold whatever these are. The
//! agent's tests run the same without a fuzzer.

use hearth::kernel::event::Event;
use hearth::observe::cold_start::end::{self, End};
use hearth::observe::cold_start::fold::{About, fold as fold_start};
use hearth::observe::cold_start::start::{Opening, Process, Stamped, Start};
use hearth::observe::cold_start::{
    ColdStart, Limits, Mode, ReadyRule, Role, Settings, StartRule, Tracker,
};
use hearth::observe::identity::CgroupNames;
use hearth::time::{Boottime, Nanos};
use hearth_abi::{Counters, Kind, Mark, Opener, TEXT_LONG, TEXT_SHORT, Text};

/// Any bytes decode to an event or to an error, never to a panic; and an event has a form.
pub(crate) fn decode(data: &[u8]) {
    if let Ok(event) = Event::decode(data) {
        let _ = format!("{event:?}");
    }
}

/// Any marks in any order give starts whose phases are contiguous and sum to the total.
pub(crate) fn fold(data: &[u8]) {
    let mut bytes = Bytes(data);
    let events: Vec<Event> = std::iter::from_fn(|| bytes.event()).take(512).collect();
    fold_whole(&events, data.first().copied().unwrap_or(0));
    track(&events, data.last().copied().unwrap_or(0));
}

/// What holds of every start.
pub(crate) fn check(start: &ColdStart) {
    let mut at = start.begin;
    let mut sum = 0;
    assert!(!start.phases.is_empty());
    for phase in &start.phases {
        assert_eq!(phase.begin, at, "contiguous");
        assert!(phase.end >= phase.begin);
        at = phase.end;
        sum += phase.duration().0;
        assert!(phase.merged.is_empty() || phase.merged[0] == phase.name);
        assert_ne!(phase.merged.len(), 1);
        let causes = [
            phase.running_ns,
            phase.queued_ns,
            phase.io_ns,
            phase.blocked_ns,
        ];
        if let [Some(running), Some(queued), Some(io), Some(blocked)] = causes {
            assert_eq!(running.0 + queued.0 + io.0 + blocked.0, phase.duration().0);
        }
        for part in &phase.parts {
            assert!(phase.begin <= part.begin && part.begin < phase.end && part.begin <= part.end);
        }
    }
    assert_eq!(sum, start.total_ns.0, "phases sum to the total");
    let names = start
        .phases
        .iter()
        .flat_map(|phase| match &phase.merged[..] {
            [] => vec![phase.name],
            merged => merged.to_vec(),
        });
    let names: Vec<_> = names.collect();
    assert!(
        names.is_sorted_by(|a, b| a < b),
        "in order, each once: {names:?}"
    );
    serde_json::to_string(start).expect("every start has a JSON form");
}

fn fold_whole(events: &[Event], how: u8) {
    let marks: Vec<Stamped> = events
        .iter()
        .filter_map(|event| match *event {
            Event::Mark(kind, mark) => Some(Stamped { kind, mark }),
            Event::Text(..) | Event::Oom(_) | Event::LockWait(_) => None,
        })
        .collect();
    let openers = [
        Opener::Trace,
        Opener::Exec,
        Opener::Cgroup,
        Opener::Fork,
        Opener::Claim,
    ];
    let roles = [Role::Program, Role::Runtime, Role::ForkServer];
    let opening = Opening {
        opener: openers[usize::from(how) % openers.len()],
        begin: Boottime(u64::from(how) % 16 * 8),
        role: roles[usize::from(how) % roles.len()],
        process: (how & 64 == 0).then_some(process(how)),
    };
    let start = Start::new(opening, marks, [], u64::from(how >> 7));
    for rule in [ReadyRule::default(), "accept".parse().expect("a rule")] {
        let late = Boottime(u64::from(how));
        let end = end::find(&start, &rule).unwrap_or_else(|| End::not_ready(&start, late));
        check(&fold_start(&start, &end, &About::default()).start);
    }
}

fn track(events: &[Event], how: u8) {
    let mode = if how & 1 == 0 {
        Mode::Daemon {
            every_exec: how & 2 == 0,
        }
    } else {
        Mode::Trace { source: 1 }
    };
    let mut settings = Settings::new(mode);
    settings.deadline = Nanos(200);
    settings.grace = Nanos(u64::from(how) % 8);
    settings.limits = Limits {
        starts: 4,
        marks_per_start: 24,
        bytes: 32 << 10,
        ended: 4,
    };
    settings.rules = ["runc", "app"]
        .into_iter()
        .flat_map(StartRule::runtime)
        .collect();
    settings.rules[1].role = Role::Program;
    let mut tracker = Tracker::new(settings, CgroupNames::new());
    let mut now = 0;
    for event in events {
        tracker.accept(event);
        if let Event::Mark(_, mark) = event {
            now = now.max(mark.boottime_ns);
        }
        for finished in tracker.advance(Boottime(now)) {
            check(&finished.start);
        }
        let stats = tracker.stats();
        assert!(stats.open <= 4 && stats.bytes <= 32 << 10, "{stats:?}");
    }
    for finished in tracker.advance(Boottime(u64::MAX)) {
        check(&finished.start);
    }
    let stats = tracker.stats();
    assert_eq!((stats.open, stats.bytes), (0, 0));
    assert_eq!(
        stats.opened,
        stats.finished + stats.gone.values().sum::<u64>()
    );
}

fn process(byte: u8) -> Process {
    Process {
        tgid: u32::from(byte % 6) + 1,
        start_boottime: u64::from(byte % 3),
    }
}

/// Reads events out of bytes; few distinct values, so that marks meet.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// Mostly small, at times huge.
    fn number(&mut self) -> Option<u64> {
        Some(match self.byte()? {
            255 => u64::MAX,
            254 => u64::MAX / 2,
            small => u64::from(small),
        })
    }

    fn event(&mut self) -> Option<Event> {
        let kind = Kind::ALL[usize::from(self.byte()?) % Kind::ALL.len()];
        let stamper = process(self.byte()?);
        let at = self.number()?;
        if kind.is_text() {
            let files = [
                "/usr/sbin/runc",
                "/proc/self/exe",
                "/bin/app",
                "/docker/x",
                "",
            ];
            let file = files[usize::from(self.byte()?) % files.len()].as_bytes();
            let mut long = [0; TEXT_LONG];
            long[..file.len()].copy_from_slice(file);
            let text = Text {
                kind: kind as u16,
                flags: 0,
                tgid: stamper.tgid,
                boottime_ns: at,
                start_boottime: stamper.start_boottime,
                id: u64::from(self.byte()? % 4),
                long,
                short: [b'x'; TEXT_SHORT],
            };
            return Some(Event::Text(kind, text));
        }
        let other = process(self.byte()?);
        let flags = u16::from(self.byte()? % 64);
        let more = self.byte()?;
        let args = match kind {
            Kind::Fork => [
                u64::from(other.tgid),
                other.start_boottime,
                u64::from(more) << 8,
            ],
            Kind::CgroupAttach => [
                u64::from(more % 4),
                u64::from(other.tgid),
                other.start_boottime,
            ],
            _ => [u64::from(more % 8), self.number()?, 0],
        };
        let total = self.number()?;
        let mark = Mark {
            kind: kind as u16,
            flags,
            cpu: 0,
            boottime_ns: at,
            tid: stamper.tgid,
            tgid: stamper.tgid,
            start_boottime: stamper.start_boottime,
            parent: other.tgid,
            threads: u32::from(more % 3),
            cgroup: u64::from(more % 4),
            watch: u64::from(self.byte()? % 4) * 8,
            args,
            counters: Counters {
                nvcsw: u32::from(more % 2),
                running_ns: total,
                blocked_ns: total / 2,
                read_bytes: total,
                ..Counters::default()
            },
        };
        Some(Event::Mark(kind, mark))
    }
}
