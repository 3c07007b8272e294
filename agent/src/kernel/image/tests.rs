//! Plans of real programs against what other tools say of them.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set itself up has failed"
)]

mod attached;
mod compiled;
mod hostile;
mod machine;
mod oracle;
mod paths;

use std::path::Path;

use super::{Boundary, Options, Plan, Root, Site, plan};

fn plan_of(path: &Path) -> Plan {
    let root = Root::host().unwrap();
    plan(&root, path, &Options::default()).unwrap()
}

/// The only site of that boundary.
fn only(plan: &Plan, what: Boundary) -> &Site {
    let sites: Vec<&Site> = plan.sites.iter().filter(|site| site.what == what).collect();
    assert_eq!(sites.len(), 1, "{what:?} of {plan:#?}");
    sites[0]
}
