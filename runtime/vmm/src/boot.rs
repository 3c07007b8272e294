//! What a guest finds in its memory and in its processor when it begins.

pub mod acpi;
pub mod flat;
pub mod linux;
