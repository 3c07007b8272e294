//! What a guest finds in its memory when it begins.

pub mod acpi;
pub mod linux;
