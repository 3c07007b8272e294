//! Strings out of the kernel's fixed arrays.

use std::borrow::Cow;

/// The bytes before the first zero, or all of them; what is not UTF-8 becomes U+FFFD.
pub(crate) fn until_zero(bytes: &[u8]) -> Cow<'_, str> {
    let end = bytes
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end])
}
