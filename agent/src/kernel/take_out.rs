//! Takes an entry out of a per-CPU map together with what it held, in one step: what is counted
//! between a reading and a removal would be lost. aya has that for queues alone.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use aya::Pod;
use aya_obj::generated::bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM;

/// The second member of the union `bpf_attr`, for elements of maps.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Removes the entry and returns the sum over all CPUs that it had; Linux 5.14 and later.
pub(super) fn take_out<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<u64> {
    let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
    let mut values = vec![0u64; cpus];
    let attributes = Element {
        map: u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?,
        padding: 0,
        key: std::ptr::from_ref(key) as u64,
        value: values.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: key and values outlive the call, and are as large as the map has them: a value for
    // each possible CPU.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_LOOKUP_AND_DELETE_ELEM,
            &raw const attributes,
            size_of::<Element>(),
        )
    };
    if result == 0 {
        Ok(values.iter().sum())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use aya::maps::{MapData, PerCpuHashMap, PerCpuValues};
    use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PERCPU_HASH;

    use super::*;

    #[test]
    fn what_an_entry_held_is_returned_and_the_entry_is_gone() {
        let params = aya_obj::Map::new_from_params(BPF_MAP_TYPE_PERCPU_HASH as u32, 4, 8, 4, 0);
        // Whoever may not make maps cannot take anything out of one, either.
        let Ok(data) = MapData::create(params, "hearth_take_out", None) else {
            return;
        };
        let fd = data
            .fd()
            .as_fd()
            .try_clone_to_owned()
            .expect("a descriptor");
        let mut map = PerCpuHashMap::<_, u32, u64>::try_from(aya::maps::Map::PerCpuHashMap(data))
            .expect("a map");
        let cpus = aya::util::nr_cpus().expect("processors");
        let held = PerCpuValues::try_from(vec![5; cpus]).expect("values");
        map.insert(7, held, 0).expect("an entry");
        assert_eq!(take_out(fd.as_fd(), &7).expect("taken"), 5 * cpus as u64);
        assert!(map.get(&7, 0).is_err());
        assert!(take_out(fd.as_fd(), &7).is_err());
    }
}
