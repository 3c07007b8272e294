//! The story of `hearth run` with functions, from a burst to the end: told on a terminal by
//! `cargo xtask demo`, and asserted by the test of the same name. Whatever is told was read from the
//! agent's API, its metrics, its audit file, or the kernel.

mod burst;
mod crash_loop;
mod leak;
mod stage;

use anyhow::{Context as _, Result};

use crate::node;
use crate::whole::Whole;

use stage::Stage;
pub use stage::{Narrator, Stop};

/// What the node of the story is called.
const NAME: &str = "demo";

/// Tells all of it, on a node of its own that is gone afterwards; fails where an act does not show
/// what it should.
pub fn tell(narrator: &mut dyn Narrator, stop: &Stop) -> Result<()> {
    node::sweep(NAME).context("remove what an earlier run left")?;
    let before = Whole::now("hearth-test-demo-")?;
    let name = told(narrator, stop)?;
    narrator.act("Nothing is left");
    let left = stage::until(stop, "nothing is left", || {
        let more = Whole::now(&name)?.more_than(&before);
        // A namespace of a process that others start just now is another one the next time.
        let again = Whole::now(&name)?.more_than(&before);
        Ok(more.iter().all(|one| !again.contains(one)))
    });
    left.with_context(|| format!("{:?}", Whole::now(&name).map(|now| now.more_than(&before))))?;
    narrator.sees("no process, namespace, cgroup, mount or socket more than before");
    Ok(())
}

/// The acts; the name of the node.
fn told(narrator: &mut dyn Narrator, stop: &Stop) -> Result<String> {
    narrator.act("A node");
    narrator.does("start hearth-spawner, then `hearth run` with functions");
    let mut stage = Stage::set(NAME, narrator, stop)?;
    let name = stage.serving.node.name().to_owned();
    let before = stage.parked()?;
    stage.sees(format!(
        "{before} sandboxes are parked: a cgroup, namespaces and a waiting hearth-init each"
    ));
    burst::act(&mut stage)?;
    leak::act(&mut stage)?;
    crash_loop::act(&mut stage)?;
    burst::pool_shrinks(&mut stage)?;
    stage.end()?;
    Ok(name)
}
