//! A kill in one sentence, and sizes as people read them.

use super::limit::Limit;
use super::model::{Capture, Constraint, Known};

/// Who was killed and why, in one sentence without its full stop.
#[must_use]
pub fn of(capture: &Capture) -> String {
    let victim = &capture.victim;
    let own = capture.asker.pid == victim.pid;
    let who = if own {
        "itself".to_owned()
    } else {
        format!("{} ({})", capture.asker.comm, capture.asker.pid)
    };
    format!(
        "{} ({}) was killed for want of memory: {}, asked for by {who}",
        victim.comm,
        victim.pid,
        why(capture),
    )
}

/// What ran out.
fn why(capture: &Capture) -> String {
    let size = |known: &Known<u64>| known.value().map(|bytes| size(*bytes));
    let kill = &capture.kill;
    match kill.constraint {
        Constraint::Global => "the node had none left".to_owned(),
        Constraint::Cpuset => "the memory nodes of its cpuset had none left".to_owned(),
        Constraint::MemoryPolicy => "the memory nodes of its policy had none left".to_owned(),
        Constraint::Unknown => "what ran out is not known".to_owned(),
        Constraint::Cgroup => {
            let path = capture
                .cgroup
                .path
                .value()
                .map_or("its cgroup", String::as_str);
            let hit = Limit::hit(kill);
            let of = match hit {
                Limit::Memory => "",
                Limit::MemoryAndSwap => " for memory and swap",
            };
            match (size(hit.usage(kill)), size(hit.bytes(kill))) {
                (Some(usage), Some(limit)) => format!("{path} used {usage} of {limit}{of}"),
                (_, Some(limit)) => format!("{path} reached its limit of {limit}{of}"),
                _ => format!("{path}, or a cgroup above it, reached its limit"),
            }
        }
    }
}

/// A number of bytes, to a tenth of the largest unit that it fills.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let fits = units.into_iter().find(|(unit, _)| bytes >= *unit);
    let Some((unit, name)) = fits else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10 + u128::from(unit) / 2) / u128::from(unit);
    match tenths % 10 {
        0 => format!("{} {name}", tenths / 10),
        tenth => format!("{}.{tenth} {name}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::oom::samples;

    #[test]
    fn a_sentence_says_what_is_known() {
        let mut capture = samples::whole();
        assert_eq!(
            of(&capture),
            "shop (4711) was killed for want of memory: /shop used 64 MiB of 64 MiB, asked for \
             by itself"
        );
        capture.asker.pid = 1;
        capture.asker.comm = "other".into();
        capture.kill.constraint = Constraint::Global;
        assert_eq!(
            of(&capture),
            "shop (4711) was killed for want of memory: the node had none left, asked for by \
             other (1)"
        );
    }

    #[test]
    fn a_sentence_says_which_limit_was_hit() {
        let mut capture = samples::whole();
        capture.kill.swap_with_memory = true;
        capture.kill.swap_usage_bytes = Known::Value(127 << 20);
        capture.kill.swap_limit_bytes = Known::Value(127 << 20);
        let sentence = of(&capture);
        let expected = "/shop used 127 MiB of 127 MiB for memory and swap, asked for by itself";
        assert!(sentence.ends_with(expected), "{sentence}");
    }

    #[test]
    fn sizes_have_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            (u64::MAX, "17179869184 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
