//! The library of `hearth`, the node agent that makes cold starts visible.
//!
//! Events flow one way: `kernel` (probes, ring, decode) -> `observe` (folds) -> `export`.

pub mod api;
pub mod cli;
pub mod config;
pub mod export;
pub mod functions;
pub mod heal;
pub mod kernel;
pub mod memory;
pub mod observe;
pub mod privilege;
pub mod time;
pub mod web;
