//! Cgroups of sandboxes against the real kernel: what a limit, a kill or a clean slot is good for
//! shows in what programs inside can do, and in the kernel's own files.

mod ends;
mod limits;
mod scene;
mod slots;
mod whereabouts;
