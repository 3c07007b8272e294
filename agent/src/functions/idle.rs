//! How long a sandbox waits for work.

use std::time::Duration;

/// As long as most platforms keep one.
const KEPT: Duration = Duration::from_mins(10);

/// Whether one that has been idle for so long is kept. Pools that are sized by what was measured
/// replace this rule.
pub(super) fn is_kept(idle: Duration) -> bool {
    idle < KEPT
}
