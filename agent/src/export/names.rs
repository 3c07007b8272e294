//! Function names, bounded in number.

use std::collections::HashSet;
use std::path::Path;

use crate::observe::identity::Identity;

/// Name under which the functions beyond the bound are told.
pub const OTHER: &str = "~other";

/// Name of a start of which nothing is known.
pub const UNKNOWN: &str = "~unknown";

/// The name that a start goes by: of its rule or label, else its unit, else its program.
#[must_use]
pub fn name_of(identity: &Identity) -> String {
    let program = || {
        let path = identity.exe.as_deref().or(identity.argv0.as_deref())?;
        Path::new(path).file_name()?.to_str().map(str::to_owned)
    };
    identity
        .function
        .clone()
        .or_else(|| identity.unit.clone())
        .or_else(program)
        .unwrap_or_else(|| UNKNOWN.to_owned())
}

/// The first so many names; later ones become [`OTHER`].
#[derive(Debug)]
pub(super) struct Names {
    known: HashSet<String>,
    max: usize,
}

impl Names {
    /// Knows at most `max` names.
    #[must_use]
    pub(super) fn new(max: usize) -> Self {
        Self {
            known: HashSet::new(),
            max,
        }
    }

    /// `name`, or [`OTHER`].
    #[must_use]
    pub(super) fn bound(&mut self, name: String) -> String {
        if self.known.contains(&name) {
            return name;
        }
        if self.known.len() >= self.max {
            return OTHER.to_owned();
        }
        self.known.insert(name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_beyond_the_bound_are_other() {
        let mut names = Names::new(2);
        let mut bound = |name: &str| names.bound(name.to_owned());
        assert_eq!(
            [bound("a"), bound("b"), bound("c"), bound("a")],
            ["a", "b", OTHER, "a"]
        );
    }

    #[test]
    fn the_most_telling_name_wins() {
        let mut identity = Identity::default();
        assert_eq!(name_of(&identity), UNKNOWN);
        identity.argv0 = Some("-bash".into());
        assert_eq!(name_of(&identity), "-bash");
        identity.exe = Some("/usr/bin/python3.11".into());
        assert_eq!(name_of(&identity), "python3.11");
        identity.unit = Some("shop.service".into());
        assert_eq!(name_of(&identity), "shop.service");
        identity.function = Some("shop".into());
        assert_eq!(name_of(&identity), "shop");
    }
}
