//! On which processors a state can go on.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::error::{Refusal, Remedy};

/// Words of features that are kept at most.
pub(super) const MAX_WORDS: usize = 64;
/// Bytes of a name of one, and of a vendor.
pub(super) const MAX_NAME: usize = 32;

/// A processor as a guest sees it, or as a host has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cpu {
    /// Who made it, such as `AuthenticAMD`.
    pub vendor: String,
    /// Its features: 32 of them in each word, by the word's name, such as `00000007.0.ebx`.
    pub features: BTreeMap<String, u32>,
}

impl Cpu {
    /// Whether what was saved on `self` can go on here: the same vendor, and each feature that the
    /// guest was shown.
    pub fn check(&self, here: &Self) -> Result<(), Refusal> {
        let refused = |field: String, found: String, expected: String| Refusal {
            field,
            found,
            expected,
            remedy: Remedy::OtherHost,
        };
        if self.vendor != here.vendor {
            let field = "cpu.vendor".to_owned();
            return Err(refused(field, self.vendor.clone(), here.vendor.clone()));
        }
        for (name, saved) in &self.features {
            let host = here.features.get(name).copied().unwrap_or_default();
            if saved & !host != 0 {
                let missing = saved & !host;
                return Err(refused(
                    format!("cpu.features.{name}"),
                    format!("{saved:#010x}"),
                    format!("within {host:#010x} (missing here: {missing:#010x})"),
                ));
            }
        }
        Ok(())
    }

    /// Of sizes that can be.
    pub(super) fn is_bounded(&self) -> bool {
        let fits =
            |name: &str| name.len() <= MAX_NAME && name.bytes().all(|b| b.is_ascii_graphic());
        fits(&self.vendor)
            && self.features.len() <= MAX_WORDS
            && self.features.keys().all(|name| fits(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(vendor: &str, word: u32) -> Cpu {
        Cpu {
            vendor: vendor.to_owned(),
            features: [("00000001.ecx".to_owned(), word)].into(),
        }
    }

    #[test]
    fn a_guest_goes_on_where_all_of_its_features_are() {
        let saved = cpu("AuthenticAMD", 0b0110);
        assert!(
            saved.check(&cpu("AuthenticAMD", 0b1110)).is_ok(),
            "more is no harm"
        );
        let told = |here: &Cpu| saved.check(here).map_err(|refusal| refusal.to_string());
        let less = told(&cpu("AuthenticAMD", 0b0101)).expect_err("less");
        for word in [
            "cpu.features.00000001.ecx",
            "0x00000006",
            "0x00000005",
            "0x00000002",
        ] {
            assert!(less.contains(word), "{less}");
        }
        let none = Cpu {
            vendor: "AuthenticAMD".to_owned(),
            ..Cpu::default()
        };
        assert!(
            told(&none).is_err(),
            "a word that is not known has no features"
        );
        let other = told(&cpu("GenuineIntel", u32::MAX)).expect_err("another vendor");
        assert!(
            other.contains("cpu.vendor") && other.contains("GenuineIntel"),
            "{other}"
        );
    }
}
