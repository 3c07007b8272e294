//! Rust: the user's `main` behind the C `main` that the compiler makes.

use super::elf::{Elf, Symbol};
use super::instruction;
use super::site::Wanted;

/// Candidates that are kept; a program has one or two.
const MAX_CANDIDATES: usize = 64;

/// Functions of a program that may lie between C `main` and the user's code.
#[derive(Debug, Default)]
pub(super) struct Functions {
    mains: Vec<Symbol>,
    begins: Vec<Symbol>,
}

impl Functions {
    /// Keeps the function if its name fits.
    pub(super) fn take(&mut self, name: &str, symbol: impl FnOnce() -> Symbol) {
        let kept = if is_main(name) {
            &mut self.mains
        } else if name.contains("__rust_begin_short_backtrace") {
            &mut self.begins
        } else {
            return;
        };
        if kept.len() < MAX_CANDIDATES {
            kept.push(symbol());
        }
    }

    /// The user's `main`, and what calls it if that is certain.
    ///
    /// C `main` passes the user's on by address, which tells it from other functions whose
    /// mangled names look alike.
    pub(super) fn main(
        &self,
        program: &Elf,
        c_main: &Wanted,
        notes: &mut Vec<String>,
    ) -> Option<(&Symbol, Option<&Symbol>)> {
        let taken = instruction::addresses_taken(&c_main.code, c_main.address);
        let user = self.mains.iter().find(|main| taken.contains(&main.address));
        if user.is_none() && !self.begins.is_empty() {
            notes.push("the user's Rust main is inlined: the C main before it is used".to_owned());
        }
        Some((user?, self.caller(program)))
    }

    /// The standard library's last frame before the user's `main`: the only one of its kind, or
    /// the only one that calls what it is given (threads have one for each closure).
    fn caller(&self, program: &Elf) -> Option<&Symbol> {
        if let [only] = self.begins.as_slice() {
            return Some(only);
        }
        let mut callers = self.begins.iter().filter(|begin| {
            program
                .code(begin.address, begin.size)
                .is_ok_and(|code| instruction::calls_first_argument(&code, begin.address))
        });
        callers.next().filter(|_| callers.next().is_none())
    }
}

/// Whether a mangled name looks like `main` at the root of a crate, in either mangling.
fn is_main(name: &str) -> bool {
    (name.starts_with("_ZN") && name.contains("4main17h"))
        || (name.starts_with("_RNvC") && name.ends_with("4main"))
}
