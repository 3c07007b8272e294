//! Real shapes of starts with marks lost, doubled and out of order.

use hearth::kernel::event::Event;
use hearth::observe::cold_start::{Settings, StartRule};
use hearth_abi::Kind;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::bodies::check;
use crate::phases::{plain, runc, wrapped};
use crate::story::{Story, daemon, trace};

fn stories() -> [(Story, Settings); 3] {
    let mut settings = daemon(false);
    settings.rules = vec![StartRule::runtime("runc").expect("a name")];
    [(plain(), trace()), (wrapped(), trace()), (runc(), settings)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_loss_and_any_order_leave_the_sum(
        which in 0..3_usize,
        lost in vec(any::<Index>(), 0..8),
        swapped in vec(any::<(Index, Index)>(), 0..8),
    ) {
        let (mut story, settings) = stories()[which].clone();
        for index in lost {
            if !story.events.is_empty() {
                let index = index.index(story.events.len());
                story.events.remove(index);
            }
        }
        for (a, b) in swapped {
            if !story.events.is_empty() {
                let length = story.events.len();
                story.events.swap(a.index(length), b.index(length));
            }
        }
        story.starts(settings).iter().for_each(check);
    }

    #[test]
    fn the_order_of_arrival_of_marks_makes_no_difference(
        which in 0..2_usize,
        keys in vec(any::<u32>(), 32),
    ) {
        // Names follow their execs; marks may come as they like.
        let (story, settings) = stories()[which].clone();
        let mut shuffled = story.clone();
        let mut keyed: Vec<(u32, Event)> = Vec::new();
        for (index, event) in story.events.iter().enumerate() {
            let follows = matches!(event, Event::Text(Kind::ExecText, _));
            let key = if follows { keyed.last().map_or(0, |&(key, _)| key) } else { keys[index % 32] };
            keyed.push((key, event.clone()));
        }
        keyed.sort_by_key(|&(key, _)| key);
        shuffled.events = keyed.into_iter().map(|(_, event)| event).collect();
        prop_assert_eq!(shuffled.starts(settings.clone()), story.starts(settings));
    }
}
