//! That these types may be read from and written to maps by user space.

use crate::{
    Config, ExecRule, LedgerRow, LockCgroup, LockFunction, LockRow, LockSeen, LockSettings,
    LockTotals, LockWait, Offsets, OomConfig, RetransmitKey, RetransmitNamespace, Watch,
};

macro_rules! pod {
    ($($name:ty),*) => {$(
        // SAFETY: `repr(C)`, integers only, no implicit padding: any bytes are a value.
        unsafe impl aya::Pod for $name {}
    )*};
}

pod!(Config, ExecRule, LedgerRow, Offsets, OomConfig, Watch);
pod!(RetransmitKey, RetransmitNamespace);
pod!(LockCgroup, LockRow, LockTotals, LockWait);
pod!(LockFunction, LockSeen, LockSettings);
