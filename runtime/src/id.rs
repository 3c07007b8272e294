//! Names of things, each parsed in one place.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not of the form that ids of sandboxes have.
    #[error(
        "sandbox id `{0}`: must be 16 lowercase hexadecimal digits, as `hearth fn show` prints"
    )]
    Sandbox(String),
    /// Not of the form that ids of requests have.
    #[error(
        "request id `{0}`: must be a UUID in lowercase, like 8476a536-e9f4-41e8-9739-2dfe598c3fcd"
    )]
    Request(String),
    /// Not a name that slots have.
    #[error("slot name `{0}`: must be `slot-` and 4 to 10 digits, like slot-0042")]
    Slot(String),
    /// Not a name that a function may have.
    #[error(
        "function name `{0}`: must be 1 to 63 lowercase letters, digits and hyphens, \
         beginning with a letter and not ending with a hyphen"
    )]
    Function(String),
}

/// One sandbox, for as long as it is known: it keeps its id when it is restored (see [`Epoch`]).
///
/// 64 random bits. It becomes the name of directories, sockets and cgroups, so that nothing else
/// but sixteen lowercase hexadecimal digits is ever one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SandboxId(u64);

/// Counts the lives of one sandbox, from 1; a restore begins a new one. What a former life still
/// sends is told by it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u32);

/// One invocation of a function; what the function knows as its request id. Zero is none.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RequestId(u128);

/// One slot of the pool: a number that tells nothing of who is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct SlotName(pub u32);

/// What a function is called by; also a label of DNS, so that it can be part of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct FunctionName(Arc<str>);

fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
    }
    Ok(bytes)
}

/// `text` has just the digits that `{:x}` writes.
fn is_lowercase_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl SandboxId {
    /// A new one.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        random().map(u64::from_ne_bytes).map(Self)
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SandboxId({self})")
    }
}

impl FromStr for SandboxId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Sandbox(text.chars().take(64).collect());
        if text.len() != 16 || !is_lowercase_hex(text) {
            return Err(wrong());
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| wrong())
    }
}

impl RequestId {
    /// A new one: a random UUID (version 4).
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn random() -> std::io::Result<Self> {
        let bits = u128::from_be_bytes(random()?);
        let version = 0x4 << 76;
        let variant = 0b10 << 62;
        Ok(Self(
            bits & !(0xf << 76) & !(0b11 << 62) | version | variant,
        ))
    }

    /// The id as a number, for the channel's header; 0 is none.
    #[must_use]
    pub const fn as_u128(self) -> u128 {
        self.0
    }

    /// The id that [`as_u128`](Self::as_u128) gave.
    #[must_use]
    pub const fn from_u128(bits: u128) -> Self {
        Self(bits)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let mut rest = &*digits;
        for length in [8, 4, 4, 4] {
            let (group, later) = rest.split_at(length);
            write!(f, "{group}-")?;
            rest = later;
        }
        f.write_str(rest)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestId({self})")
    }
}

impl FromStr for RequestId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Request(text.chars().take(64).collect());
        let hyphens = [8, 13, 18, 23];
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| {
                hyphens.contains(&at) == (byte == b'-')
                    && (byte == b'-' || byte.is_ascii_hexdigit())
            });
        let digits = text.replace('-', "");
        if !well_formed || !is_lowercase_hex(&digits) {
            return Err(wrong());
        }
        u128::from_str_radix(&digits, 16)
            .map(Self)
            .map_err(|_| wrong())
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot-{:04}", self.0)
    }
}

impl FromStr for SlotName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let wrong = || IdError::Slot(text.chars().take(64).collect());
        let digits = text.strip_prefix("slot-").ok_or_else(wrong)?;
        let slot = Self(digits.parse().map_err(|_| wrong())?);
        // One spelling each: neither a sign nor more zeros than are written.
        if slot.to_string() == text {
            Ok(slot)
        } else {
            Err(wrong())
        }
    }
}

impl FunctionName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for FunctionName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let fits = (1..=63).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-')
            && text
                .bytes()
                .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(IdError::Function(text.chars().take(80).collect()))
        }
    }
}

macro_rules! as_text {
    ($($id:ty),*) => {$(
        impl From<$id> for String {
            fn from(id: $id) -> Self {
                id.to_string()
            }
        }

        impl TryFrom<String> for $id {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
    )*};
}

as_text!(SandboxId, RequestId, SlotName, FunctionName);

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ids_are_read_as_they_are_written(bits: u64, request: u128, slot: u32) {
            prop_assert_eq!(SlotName(slot).to_string().parse(), Ok(SlotName(slot)));
            prop_assert_eq!(SandboxId(bits).to_string().parse(), Ok(SandboxId(bits)));
            prop_assert_eq!(RequestId(request).to_string().parse(), Ok(RequestId(request)));
        }

        #[test]
        fn what_is_read_is_written_back_the_same(text in "\\PC{0,40}") {
            if let Ok(id) = text.parse::<SandboxId>() {
                prop_assert_eq!(id.to_string(), &*text);
            }
            if let Ok(id) = text.parse::<RequestId>() {
                prop_assert_eq!(id.to_string(), &*text);
            }
            if let Ok(name) = text.parse::<FunctionName>() {
                prop_assert_eq!(name.as_str(), &*text);
            }
        }
    }

    #[test]
    fn nothing_that_could_be_a_path_is_an_id() {
        for text in [
            "",
            ".",
            "..",
            "../../../etc/pw",
            "0123456789abcde/",
            "0123456789ABCDEF",
            "+123456789abcdef",
        ] {
            assert!(text.parse::<SandboxId>().is_err(), "{text}");
            assert!(text.parse::<FunctionName>().is_err(), "{text}");
        }
        for text in ["a", "resize-image", "f2"] {
            assert!(text.parse::<FunctionName>().is_ok(), "{text}");
        }
        for text in ["2f", "-f", "f-", "F", "f_g", "f.g", &"f".repeat(64)] {
            assert!(text.parse::<FunctionName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_slot_has_one_spelling() {
        assert_eq!("slot-0042".parse(), Ok(SlotName(42)));
        assert_eq!("slot-12345".parse(), Ok(SlotName(12345)));
        for text in [
            "slot-42",
            "slot-00042",
            "slot-+042",
            "slot-4294967296",
            "slot-",
            "0042",
        ] {
            assert!(text.parse::<SlotName>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_id_is_a_random_uuid() {
        let text = RequestId::random().unwrap().to_string();
        assert_eq!((&text[14..15], text.len()), ("4", 36));
        assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"), "{text}");
        assert_ne!(RequestId::random().unwrap().to_string(), text);
        assert!(
            "8476a536-e9f4-41e8-9739-2dfe598c3fcd"
                .parse::<RequestId>()
                .is_ok()
        );
        assert!(
            "8476a536e9f441e897392dfe598c3fcd"
                .parse::<RequestId>()
                .is_err()
        );
        assert!(
            "8476A536-e9f4-41e8-9739-2dfe598c3fcd"
                .parse::<RequestId>()
                .is_err()
        );
    }
}
