//! `[functions]`: whether functions run here, and those that are named.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use hearth_runtime::id::FunctionName;
use serde::de::{DeserializeSeed, Error as _, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Size;
use crate::functions::Definition;

/// Keys of `[functions]` that are no functions: but for `enabled` no function can be called so.
const SETTINGS: &[&str] = &[
    "enabled",
    "state_dir",
    "api_socket",
    "spawner_dir",
    "memory_budget",
];

/// `[functions]`, and `[functions.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Functions {
    /// Whether they run here; where nothing is said, if any is named.
    pub enabled: Option<bool>,
    /// Directory of what was deployed.
    pub state_dir: PathBuf,
    /// Socket of the HTTP API.
    pub api_socket: PathBuf,
    /// Directory of the spawner's sockets.
    pub spawner_dir: PathBuf,
    /// Memory that all sandboxes may have together; four fifths of what the node has where nothing is
    /// said.
    pub memory_budget: Option<Size>,
    /// Deployed at each start.
    pub named: BTreeMap<FunctionName, Definition>,
}

impl Default for Functions {
    fn default() -> Self {
        Self {
            enabled: None,
            state_dir: "/var/lib/hearth/functions".into(),
            api_socket: "/run/hearth/api.sock".into(),
            spawner_dir: "/run/hearth".into(),
            memory_budget: None,
            named: BTreeMap::new(),
        }
    }
}

impl Functions {
    /// Whether they run here.
    #[must_use]
    pub fn are_on(&self) -> bool {
        self.enabled.unwrap_or(!self.named.is_empty())
    }
}

impl Serialize for Functions {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        if let Some(enabled) = self.enabled {
            map.serialize_entry("enabled", &enabled)?;
        }
        map.serialize_entry("state_dir", &self.state_dir)?;
        map.serialize_entry("api_socket", &self.api_socket)?;
        map.serialize_entry("spawner_dir", &self.spawner_dir)?;
        if let Some(memory) = self.memory_budget {
            map.serialize_entry("memory_budget", &memory)?;
        }
        for (name, definition) in &self.named {
            map.serialize_entry(name, &definition.masked())?;
        }
        map.end()
    }
}

/// By hand, and not by `flatten`, which would lose where in the file a mistake is.
impl<'de> Deserialize<'de> for Functions {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Keys;

        impl<'de> Visitor<'de> for Keys {
            type Value = Functions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of settings and of functions")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Functions, A::Error> {
                let mut functions = Functions::default();
                while let Some(key) = map.next_key_seed(Key)? {
                    match key {
                        Named::Setting("enabled") => functions.enabled = Some(map.next_value()?),
                        Named::Setting("state_dir") => functions.state_dir = path(&mut map)?,
                        Named::Setting("api_socket") => functions.api_socket = path(&mut map)?,
                        Named::Setting("memory_budget") => {
                            functions.memory_budget = Some(map.next_value()?);
                        }
                        Named::Setting(_) => functions.spawner_dir = path(&mut map)?,
                        Named::Function(name) => {
                            let definition: Checked = map.next_value()?;
                            functions.named.insert(name, definition.0);
                        }
                    }
                }
                Ok(functions)
            }
        }

        from.deserialize_map(Keys)
    }
}

enum Named {
    Setting(&'static str),
    Function(FunctionName),
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Named;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Named, D::Error> {
        let text = String::deserialize(from)?;
        if let Some(setting) = SETTINGS.iter().find(|setting| **setting == text) {
            return Ok(Named::Setting(setting));
        }
        // Names of functions have no underscore, those of all settings but one do.
        if text.contains('_') {
            return Err(D::Error::unknown_field(&text, SETTINGS));
        }
        text.parse().map(Named::Function).map_err(D::Error::custom)
    }
}

/// A definition that can be.
struct Checked(Definition);

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let definition = Definition::deserialize(from)?;
        definition.check().map_err(D::Error::custom)?;
        Ok(Self(definition))
    }
}

fn path<'de, A: MapAccess<'de>>(map: &mut A) -> Result<PathBuf, A::Error> {
    let path: Absolute = map.next_value()?;
    Ok(path.0)
}

/// A path that means the same wherever it is read.
pub(super) struct Absolute(pub(super) PathBuf);

impl<'de> Deserialize<'de> for Absolute {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let path = PathBuf::deserialize(from)?;
        if crate::functions::source::is_plain(&path) {
            return Ok(Self(path));
        }
        Err(D::Error::custom(format!(
            "\"{}\" is no place for it; write an absolute path without `..`, such as \
             \"/run/hearth\"",
            path.display()
        )))
    }
}
