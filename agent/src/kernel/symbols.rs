//! Names of the kernel's own addresses: read when they are wanted, and forgotten at once.
//!
//! A kernel names more than a hundred thousand symbols, which take tens of megabytes to keep;
//! stacks of the kernel are shown now and then.

use blazesym::MaybeDefault;
use blazesym::symbolize::source::{Kernel, Source};
use blazesym::symbolize::{Input, Symbolized, Symbolizer};
use thiserror::Error;

use crate::memory;

/// Kernel addresses have no names here.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SymbolsError {
    /// The kernel's list of symbols is not to be had.
    #[error("/proc/kallsyms cannot be read: {0}")]
    Unreadable(String),
    /// It is, and it hides the addresses.
    #[error(
        "/proc/kallsyms hides the addresses from this process; it takes CAP_SYSLOG, or 0 in \
         /proc/sys/kernel/kptr_restrict"
    )]
    Hidden,
}

/// What lies at each of `addresses`: `cgroup_mkdir+0x1c2`; `None` where nothing is known to.
pub fn kernel_names(addresses: &[u64]) -> Result<Vec<Option<String>>, SymbolsError> {
    if addresses.is_empty() {
        return Ok(Vec::new());
    }
    let named = look_up(addresses);
    memory::give_back();
    let named = named?;
    if named.iter().all(Option::is_none) {
        return Err(SymbolsError::Hidden);
    }
    Ok(named)
}

fn look_up(addresses: &[u64]) -> Result<Vec<Option<String>>, SymbolsError> {
    let symbolizer = Symbolizer::builder()
        .enable_auto_reload(false)
        .enable_code_info(false)
        .enable_inlined_fns(false)
        .build();
    // What lies on the disk as vmlinux need not be the kernel that runs.
    let kernel = Source::Kernel(Kernel {
        kallsyms: MaybeDefault::Default,
        vmlinux: MaybeDefault::None,
        ..Kernel::default()
    });
    let found = symbolizer
        .symbolize(&kernel, Input::AbsAddr(addresses))
        .map_err(|error| SymbolsError::Unreadable(error.to_string()))?;
    let name = |symbol: Symbolized<'_>| match symbol {
        Symbolized::Sym(symbol) if symbol.offset > 0 => {
            Some(format!("{}+{:#x}", symbol.name, symbol.offset))
        }
        Symbolized::Sym(symbol) => Some(symbol.name.into_owned()),
        Symbolized::Unknown(_) => None,
    };
    Ok(found.into_iter().map(name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_kernels_list_has_its_name() {
        let list = std::fs::read_to_string("/proc/kallsyms").expect("the kernel's symbols");
        let line = list.lines().find(|line| line.ends_with(" T vfs_read"));
        let address = line.and_then(|line| line.split(' ').next()).expect("one");
        let address = u64::from_str_radix(address, 16).expect("a number");
        let names = kernel_names(&[address, address + 4, 1]);
        if address == 0 {
            assert_eq!(names, Err(SymbolsError::Hidden));
            return;
        }
        let wanted = [Some("vfs_read".into()), Some("vfs_read+0x4".into()), None];
        assert_eq!(names.as_deref(), Ok(&wanted[..]));
        assert_eq!(kernel_names(&[]), Ok(Vec::new()));
    }
}
