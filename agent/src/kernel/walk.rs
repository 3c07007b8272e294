//! All entries of a hash map that programs write to meanwhile. Asking for one key after the other
//! begins anew where the last one was evicted, which in a busy map has no end; batches go bucket by
//! bucket, and pass each once. aya has no call for them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapError};
use aya_obj::generated::bpf_cmd::BPF_MAP_LOOKUP_BATCH;

/// Entries of one batch; no bucket of a map with as many buckets as entries has nearly so many.
const BATCH: u32 = 512;

/// The member of the union `bpf_attr` for batches (Linux 5.6).
#[repr(C)]
struct Batch {
    from: u64,
    to: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// A hash map (no per-CPU one) that can be read as a whole.
#[derive(Debug)]
pub(super) struct Walk<K: Pod, V: Pod> {
    map: HashMap<MapData, K, V>,
    /// The same map, for what aya has no call for.
    fd: OwnedFd,
}

impl<K: Pod, V: Pod> TryFrom<Map> for Walk<K, V> {
    type Error = MapError;

    fn try_from(map: Map) -> Result<Self, MapError> {
        let fd = match &map {
            Map::HashMap(data) | Map::LruHashMap(data) => data.fd().as_fd().try_clone_to_owned()?,
            // It says which kind it has found instead.
            _ => return HashMap::<_, K, V>::try_from(map).and(Err(MapError::ElementNotFound)),
        };
        let map = HashMap::try_from(map)?;
        Ok(Self { map, fd })
    }
}

impl<K: Pod, V: Pod> Walk<K, V> {
    /// Every entry, once.
    pub(super) fn entries(&self) -> Result<Vec<(K, V)>, MapError> {
        Ok(entries(self.fd.as_fd())?)
    }

    /// Takes an entry away.
    pub(super) fn remove(&mut self, key: &K) -> Result<(), MapError> {
        self.map.remove(key)
    }
}

/// The entries of a hash map (no per-CPU one), each once; of those that come and go meanwhile some.
fn entries<K: Pod, V: Pod>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    let map = u32::try_from(map.as_raw_fd()).map_err(io::Error::other)?;
    let mut keys = vec![MaybeUninit::<K>::zeroed(); BATCH as usize];
    let mut values = vec![MaybeUninit::<V>::zeroed(); BATCH as usize];
    let mut found = Vec::new();
    // The kernel's own: the bucket to go on with.
    let mut bucket = 0u32;
    let mut from = std::ptr::null();
    loop {
        let mut batch = Batch {
            from: from as u64,
            to: &raw mut bucket as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: BATCH,
            map,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values outlive the call and have place for `count` of each, of the sizes
        // that the map was made with; `from` and `to` are null or `bucket`, which is large enough
        // for what a hash map keeps there.
        let result = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_MAP_LOOKUP_BATCH,
                &raw mut batch,
                size_of::<Batch>(),
            )
        };
        let error = (result != 0).then(io::Error::last_os_error);
        let is_last = error.as_ref().and_then(io::Error::raw_os_error) == Some(libc::ENOENT);
        if let Some(error) = error.filter(|_| !is_last) {
            return Err(error);
        }
        let count = batch.count.min(BATCH) as usize;
        for (key, value) in keys.iter().zip(&values).take(count) {
            // SAFETY: both are Pod, for which any bytes are a value, and these were written.
            found.push(unsafe { (key.assume_init(), value.assume_init()) });
        }
        if is_last {
            return Ok(found);
        }
        from = &raw const bucket;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicBool, Ordering};

    use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_LRU_HASH;

    use super::*;

    #[test]
    fn what_stays_is_found_while_others_come_and_go() {
        let params = aya_obj::Map::new_from_params(BPF_MAP_TYPE_LRU_HASH as u32, 4, 8, 4096, 0);
        // Whoever may not make maps cannot read one, either.
        let Ok(data) = MapData::create(params, "hearth_walk", None) else {
            return;
        };
        let mut map = Walk::<u32, u64>::try_from(Map::LruHashMap(data)).expect("a map");
        let Walk { map: writer, fd } = &mut map;
        assert_eq!(entries::<u32, u64>(fd.as_fd()).expect("entries"), []);
        for key in 0..2000u32 {
            writer.insert(key, u64::from(key) * 3, 0).expect("an entry");
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Others are made and taken away as fast as can be; the first ones stay.
                while !stop.load(Ordering::Relaxed) {
                    for key in 10_000..10_500u32 {
                        writer.insert(key, 1, 0).expect("an entry");
                    }
                    for key in 10_000..10_500u32 {
                        writer.remove(&key).expect("removed");
                    }
                }
            });
            for _ in 0..50 {
                let all: Vec<(u32, u64)> = entries(fd.as_fd()).expect("entries");
                let stayed: BTreeMap<u32, u64> =
                    all.into_iter().filter(|(key, _)| *key < 2000).collect();
                let right = stayed
                    .iter()
                    .all(|(key, value)| u64::from(*key) * 3 == *value);
                assert_eq!((stayed.len(), right), (2000, true));
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
