//! What asks for the functions.

use super::super::draw::Draw;
use super::super::trace::{Builder, Trigger};
use super::App;
use super::gaps::Pattern;

/// Shares of functions by what they are asked by, in the order of [`Trigger::ALL`].
pub(super) const FUNCTIONS: [f64; 7] = [55.0, 15.2, 15.6, 6.9, 2.8, 2.2, 2.2];
/// Shares of requests.
pub(super) const REQUESTED: [f64; 7] = [35.9, 33.5, 2.0, 2.3, 0.7, 24.7, 1.0];
/// Where [`Trigger::Timer`] is among all.
const TIMER: usize = 2;

/// Says what asks for each function, so that both functions and requests are shared as published:
/// the busiest function gets the trigger whose functions lack most requests each, and so on. Only
/// what is periodic is asked by a clock.
#[expect(clippy::cast_precision_loss, reason = "a small whole number")]
pub(super) fn assign(apps: &[App], draw: &mut Draw, builder: &mut Builder) {
    let of = |app: &App| {
        let is_periodic = app.pattern == Pattern::Periodic;
        let rate = app.rate;
        let each = app.functions.clone().into_iter();
        each.map(move |(function, share)| (rate * share, is_periodic, function))
    };
    let mut functions: Vec<(f64, bool, u32)> = apps.iter().flat_map(of).collect();
    functions.sort_by(|a, b| b.0.total_cmp(&a.0));
    let rates: f64 = functions.iter().map(|(rate, ..)| rate).sum();
    let mut left = [0_usize; 7];
    for card in draw.deal(&FUNCTIONS, functions.len()) {
        left[card] += 1;
    }
    let mut lacking = REQUESTED.map(|share| share / 100.0 * rates);
    for (rate, is_periodic, function) in functions {
        let each = |trigger: usize| lacking[trigger] / left[trigger] as f64;
        let fits = |&trigger: &usize| left[trigger] > 0 && (trigger != TIMER || is_periodic);
        let most = if is_periodic && fits(&TIMER) {
            TIMER
        } else {
            let most = (0..7).filter(fits);
            most.max_by(|&a, &b| each(a).total_cmp(&each(b)))
                .unwrap_or(0)
        };
        left[most] = left[most].saturating_sub(1);
        lacking[most] -= rate;
        set(builder, function, most);
    }
}

fn set(builder: &mut Builder, function: u32, trigger: usize) {
    if let Some(function) = builder.function_mut(function) {
        function.trigger = Trigger::ALL.get(trigger).copied();
    }
}
