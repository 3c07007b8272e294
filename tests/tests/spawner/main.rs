//! The spawner against the real kernel: what it hands over, what it takes away, and what is left
//! when it is killed, at whatever it does just then. In most sandboxes a program stands in for
//! `hearth-init` that does as the tests tell it.

mod bounds;
mod claims;
mod ends;
mod killed;
mod restarts;
mod scene;
mod tracer;
