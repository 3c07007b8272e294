//! Functions in process sandboxes, by the real spawner, `hearth-init` and runtimes of others: they
//! answer, they fail in every way there is, and nothing of them is left.

mod answers;
mod contained;
mod escape;
mod huge_pages;
mod killed;
mod many;
mod misbehaved;
mod network;
mod never_ready;
mod scene;
