//! The longest waits: a few, however many there were.

use super::wait::Wait;

/// The longest waits that were seen, longest first; of equally long ones the first.
#[derive(Clone, Debug)]
pub struct Worst {
    kept: Vec<Wait>,
    most: usize,
    seen: u64,
}

impl Worst {
    /// Keeps at most `most`.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self {
            kept: Vec::new(),
            most,
            seen: 0,
        }
    }

    /// Takes in a wait.
    pub fn add(&mut self, wait: Wait) {
        self.seen += 1;
        let at = self
            .kept
            .partition_point(|kept| kept.length() >= wait.length());
        if at < self.most {
            self.kept.truncate(self.most - 1);
            self.kept.insert(at, wait);
        }
    }

    /// Those kept.
    #[must_use]
    pub fn waits(&self) -> &[Wait] {
        &self.kept
    }

    /// How many were seen, kept or not.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::super::wait::tests::record;
    use super::*;

    #[test]
    fn the_longest_are_kept_in_order() {
        let mut worst = Worst::new(3);
        for length in [5, 1, 9, 7, 9, 2] {
            worst.add(Wait::of(&record(100, 100 + length)).expect("known"));
        }
        let kept: Vec<u64> = worst.waits().iter().map(|wait| wait.length().0).collect();
        assert_eq!((kept, worst.seen()), (vec![9, 9, 7], 6));
    }
}
