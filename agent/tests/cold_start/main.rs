//! From marks to cold starts: tables of hand-made marks, recorded marks of real starts, and
//! any marks at all.

mod any_marks;
#[path = "../../../fuzz/bodies.rs"]
mod bodies;
#[path = "../../../fuzz/captures.rs"]
mod captures;
mod causes;
mod locks;
mod loss;
mod phases;
mod recorded;
mod story;
mod tracker;
