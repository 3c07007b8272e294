//! What the pools are like now, for who watches the node.

use hearth_runtime::pool::Moment;

use super::{Pools, TOLD};
use crate::functions::manager::lock;
use crate::observe::pool::{PoolState, PoolsState};

impl Pools {
    /// All of them.
    pub(in super::super) fn state(&self) -> PoolsState {
        let inner = lock(&self.inner);
        let now = self.clock.now();
        let pools = inner.fleet.pools().filter_map(|(name, pool)| {
            let function = inner.functions.get(name)?;
            let size = pool.size();
            Some(PoolState {
                function: name.to_string(),
                max: pool.settings().max.into(),
                target: size.target.into(),
                ready: size.ready.into(),
                starting: size.starting.into(),
                busy: size.busy.into(),
                waiting: size.waiting.into(),
                idle_bytes: pool.weight().saturating_mul(size.ready.into()),
                back_off: pool.back_off(now).0,
                counts: function.state().tally.counts().clone(),
            })
        });
        let recent = |at: &Moment| now.since(*at) < TOLD;
        let gone = inner.gone.iter().filter(|(at, _)| recent(at));
        let gone = gone.map(|(_, function)| {
            let state = function.state();
            PoolState {
                function: state.deployed.name.to_string(),
                counts: state.tally.counts().clone(),
                ..PoolState::default()
            }
        });
        PoolsState {
            pools: pools.chain(gone).collect(),
            budget_bytes: inner.fleet.budget(),
            used_bytes: inner.fleet.used(),
        }
    }
}
