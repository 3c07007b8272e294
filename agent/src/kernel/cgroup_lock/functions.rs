//! The functions whose place on a kernel stack means something, and the locks that have a symbol,
//! from the kernel's list of symbols.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
};

use hearth_abi::{ABSENT, LOCK_FUNCTIONS, Lock, LockFunction, Operation, lock_function as means};

/// Names of functions, by what they mean. Compilers add `.constprop.0` and the like.
const OPERATIONS: [(Operation, &[&str]); 10] = [
    (
        Operation::Mkdir,
        &["cgroup_mkdir", "do_mkdirat", "filename_mkdirat"],
    ),
    (
        Operation::Rmdir,
        &["cgroup_rmdir", "do_rmdir", "filename_rmdir"],
    ),
    (
        Operation::Rename,
        &["cgroup1_rename", "do_renameat2", "filename_renameat2"],
    ),
    (
        Operation::Attach,
        &[
            "__cgroup_procs_write",
            "cgroup_procs_write",
            "cgroup_threads_write",
            "__cgroup1_procs_write",
            "cgroup1_procs_write",
            "cgroup1_tasks_write",
            "cgroup_attach_task_all",
        ],
    ),
    (
        Operation::Write,
        &["cgroup_file_write", "kernfs_fop_write_iter"],
    ),
    (
        Operation::Read,
        &[
            "cgroup_seqfile_show",
            "cgroup_seqfile_start",
            "proc_cgroup_show",
            "kernfs_fop_read_iter",
            "kernfs_seq_start",
            "kernfs_fop_readdir",
        ],
    ),
    (Operation::Fork, &["copy_process"]),
    (
        Operation::Exit,
        &[
            "do_exit",
            "exit_signals",
            "begin_new_exec",
            "release_task",
            "__put_task_struct",
        ],
    ),
    (
        Operation::CssRelease,
        &[
            "css_release_work_fn",
            "css_killed_work_fn",
            "css_free_rwork_fn",
            "cgroup_bpf_release",
        ],
    ),
    (
        Operation::Lookup,
        &["do_sys_openat2", "vfs_statx", "vfs_fstatat", "do_faccessat"],
    ),
];

const MEANINGS: [(u32, &[&str]); 5] = [
    (
        means::WAITS,
        &[
            "mutex_lock",
            "__mutex_lock",
            "__mutex_lock_slowpath",
            "mutex_lock_killable",
            "__mutex_lock_killable_slowpath",
            "mutex_lock_interruptible",
            "__mutex_lock_interruptible_slowpath",
            "_raw_spin_lock",
            "_raw_spin_lock_irq",
            "_raw_spin_lock_irqsave",
            "_raw_spin_lock_bh",
            "native_queued_spin_lock_slowpath",
            "__pv_queued_spin_lock_slowpath",
            "queued_spin_lock_slowpath",
            "percpu_down_write",
            "percpu_rwsem_wait",
            "__percpu_down_read",
        ],
    ),
    (
        means::TAKES_MUTEX,
        &[
            "cgroup_kn_lock_live",
            "cgroup_lock_and_drain_offline",
            "css_release_work_fn",
            "css_killed_work_fn",
            "cgroup_bpf_release",
        ],
    ),
    (
        means::TAKES_THREADGROUP,
        &[
            "cgroup_attach_lock",
            "cgroup_procs_write_start",
            "cgroup_update_dfl_csses",
            "cgroup_attach_task_all",
            "exit_signals",
            "cgroup_can_fork",
            "begin_new_exec",
        ],
    ),
    (
        means::TAKES_CSS_SET,
        &[
            "cgroup_post_fork",
            "cgroup_can_fork",
            "cgroup_exit",
            "cgroup_task_exit",
            "cgroup_task_dead",
            "cgroup_release",
            "cgroup_task_release",
            "find_css_set",
            "css_task_iter_start",
            "css_task_iter_next",
            "css_task_iter_end",
            "cgroup_migrate",
            "cgroup_migrate_execute",
            "cgroup_migrate_prepare_dst",
            "proc_cgroup_show",
        ],
    ),
    (means::WAITS_FOR_RCU, &["rcu_sync_enter"]),
];

/// Locks that a kernel with `CONFIG_KALLSYMS_ALL` names.
const LOCKS: [(Lock, &str); 5] = [
    (Lock::CgroupMutex, "cgroup_mutex"),
    (Lock::ThreadgroupRwsem, "cgroup_threadgroup_rwsem"),
    (Lock::CssSetLock, "css_set_lock"),
    (Lock::Rstat, "cgroup_rstat_lock"),
    (Lock::Kernfs, "kernfs_rename_lock"),
];

/// What the list of symbols says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Symbols {
    /// In the order of their addresses.
    pub(super) functions: Vec<LockFunction>,
    /// Locks by address.
    pub(super) locks: Vec<(Lock, u64)>,
}

impl Symbols {
    /// Of the running kernel; empty where the addresses are hidden.
    pub(super) fn of_running_kernel() -> io::Result<Self> {
        Self::read(BufReader::new(File::open("/proc/kallsyms")?))
    }

    fn read(from: impl BufRead) -> io::Result<Self> {
        let mut symbols = Self::default();
        // The list is in the order of addresses: a function ends where the next symbol begins.
        let mut open = None;
        for line in from.lines() {
            let line = line?;
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(_), Some(name), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                // Of a module: the image is over.
                break;
            };
            let Ok(address) = u64::from_str_radix(address, 16) else {
                continue;
            };
            if address == 0 {
                continue;
            }
            if let Some(mut function) = open.take_if(|open: &mut LockFunction| open.begin < address)
            {
                function.end = address;
                symbols.functions.push(function);
            }
            if let Some((lock, _)) = LOCKS.iter().find(|(_, symbol)| *symbol == name) {
                symbols.locks.push((*lock, address));
            } else if let Some(function) = function(name, address) {
                open = Some(function);
            }
        }
        symbols.functions.sort_by_key(|function| function.begin);
        symbols.functions.truncate(LOCK_FUNCTIONS as usize);
        Ok(symbols)
    }

    /// The whole of the programs' table.
    pub(super) fn table(&self) -> impl Iterator<Item = (u32, LockFunction)> {
        let none = LockFunction {
            begin: u64::MAX,
            end: 0,
            operation: ABSENT,
            means: 0,
        };
        let known = self.functions.iter().copied();
        (0..LOCK_FUNCTIONS).zip(known.chain(std::iter::repeat(none)))
    }
}

fn function(symbol: &str, begin: u64) -> Option<LockFunction> {
    let name = symbol.split('.').next().unwrap_or(symbol);
    let has = |names: &[&str]| names.contains(&name);
    let operation = OPERATIONS
        .iter()
        .find(|(_, names)| has(names))
        .map_or(ABSENT, |(operation, _)| *operation as u32);
    let means = MEANINGS
        .iter()
        .filter(|(_, names)| has(names))
        .fold(0, |bits, (bit, _)| bits | bit);
    (operation != ABSENT || means != 0).then_some(LockFunction {
        begin,
        end: begin,
        operation,
        means,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "ffffffff81000000 T _text\n\
        ffffffff81000100 t __cgroup1_procs_write.constprop.0\n\
        ffffffff81000100 t alias\n\
        ffffffff81000200 T cgroup_mkdir\n\
        ffffffff81000300 T mutex_lock\n\
        ffffffff81000380 T other\n\
        ffffffff82000000 D cgroup_mutex\n\
        ffffffffc0000000 t cgroup_rmdir\t[module]\n";

    #[test]
    fn functions_end_where_the_next_symbol_begins() {
        let symbols = Symbols::read(LIST.as_bytes()).expect("text");
        assert_eq!(symbols.locks, [(Lock::CgroupMutex, 0xffff_ffff_8200_0000)]);
        let all: Vec<_> = symbols
            .functions
            .iter()
            .map(|f| (f.begin & 0xfff, f.end & 0xfff, f.operation, f.means))
            .collect();
        assert_eq!(
            all,
            [
                (0x100, 0x200, Operation::Attach as u32, 0),
                (0x200, 0x300, Operation::Mkdir as u32, 0),
                (0x300, 0x380, ABSENT, means::WAITS),
            ]
        );
        let table: Vec<_> = symbols.table().collect();
        assert_eq!(table.len(), LOCK_FUNCTIONS as usize);
        assert!(table.is_sorted_by_key(|(_, function)| function.begin));
    }

    #[test]
    fn hidden_addresses_are_no_symbols() {
        let symbols = Symbols::read("0000000000000000 T cgroup_mkdir\n".as_bytes());
        assert_eq!(symbols.expect("text"), Symbols::default());
    }
}
