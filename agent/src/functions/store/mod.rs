//! The functions that were deployed, on disk: each version whole or not there at all.
//!
//! ```text
//! versions/NAME.7.json   one version, and which layers it has
//! layers/DIGEST/         a layer, named by its content and shared by whoever has the same
//! ```
//!
//! A version is published by the name of its file, after its layers. What no version names is
//! garbage, and goes at the next start at the latest.

mod content;
mod folder;
mod layer;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use hearth_runtime::id::FunctionName;
use hearth_runtime::rootfs::image::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::definition::Definition;
use super::problem::{Kind, Problem};
use super::source::Source;
pub use folder::StoreError;
use folder::{Folder, UNFINISHED};
use layer::{Process, Refused};

/// Versions of a function that are kept beside the one that is in use.
const OLD_VERSIONS: usize = 3;

/// One version of a function, as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deployed {
    /// Its name.
    #[schema(value_type = String, example = "shop")]
    pub name: FunctionName,
    /// Counts from 1.
    pub version: u32,
    /// When, in milliseconds since 1970.
    pub deployed_unix_ms: u64,
    /// What was asked for.
    pub definition: Definition,
    /// Its layers, the lowest first, by the digests of their content.
    #[schema(value_type = Vec<String>)]
    pub layers: Vec<Digest>,
    /// What is run.
    pub command: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Where it begins.
    #[schema(value_type = String)]
    pub directory: PathBuf,
}

impl Deployed {
    /// Nothing that a sandbox would notice is different.
    fn is_like(&self, other: &Self) -> bool {
        let Self {
            name,
            version: _,
            deployed_unix_ms: _,
            definition,
            layers,
            command,
            environment,
            directory,
        } = self;
        (name, definition, layers) == (&other.name, &other.definition, &other.layers)
            && (command, environment, directory)
                == (&other.command, &other.environment, &other.directory)
    }

    fn file(&self) -> String {
        format!("{}.{}.json", self.name, self.version)
    }
}

/// Who uses a version right now: it is not removed.
pub type InUse = BTreeSet<(FunctionName, u32)>;

/// The directory of functions, with the right to write to it.
#[derive(Debug)]
pub struct Store {
    root: Folder,
    versions: Folder,
    layers: Folder,
    functions: BTreeMap<FunctionName, BTreeMap<u32, Arc<Deployed>>>,
    /// Records that cannot be read; while there are any, no layer is taken for garbage.
    damaged: Vec<String>,
}

impl Store {
    /// Opens (and makes) `directory`, and removes what somebody who died left unfinished.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let root = Folder::make(directory)?;
        root.lock()?;
        let mut store = Self {
            versions: root.inner("versions")?,
            layers: root.inner("layers")?,
            root,
            functions: BTreeMap::new(),
            damaged: Vec::new(),
        };
        store.versions.sweep()?;
        store.layers.sweep()?;
        for name in store.versions.names()? {
            let bytes = store.versions.read(&name)?;
            match serde_json::from_slice::<Deployed>(&bytes) {
                Ok(version) if version.file() == name => {
                    let of = store.functions.entry(version.name.clone()).or_default();
                    of.insert(version.version, Arc::new(version));
                }
                Ok(_) => store.damaged.push(format!("{name}: of another name")),
                Err(error) => store.damaged.push(format!("{name}: {error}")),
            }
        }
        for damaged in &store.damaged {
            let versions = store.versions.path().display();
            tracing::error!("a function is left out, its record is damaged: {versions}/{damaged}");
        }
        store.collect()?;
        Ok(store)
    }

    /// The version of each function that is in use, by name.
    pub fn current(&self) -> impl Iterator<Item = &Arc<Deployed>> {
        let functions = self.functions.values();
        functions.filter_map(|versions| versions.values().next_back())
    }

    /// One version of one function.
    #[must_use]
    pub fn version(&self, name: &FunctionName, version: u32) -> Option<&Arc<Deployed>> {
        self.functions.get(name)?.get(&version)
    }

    /// Where the layers of a version are, the lowest first.
    #[must_use]
    pub fn paths(&self, version: &Deployed) -> Vec<PathBuf> {
        let layers = version.layers.iter();
        layers
            .map(|digest| self.layers.path().join(digest.digits()))
            .collect()
    }

    /// Copies the layers of `definition`, and makes it the version of `name` that is in use. The
    /// same once more changes nothing. Old versions go, but those `in_use`.
    pub fn deploy(
        &mut self,
        name: &FunctionName,
        definition: &Definition,
        in_use: &InUse,
    ) -> Result<Arc<Deployed>, Problem> {
        definition.check()?;
        let deployed = self.keep(name, definition);
        // Whether it went well or not: layers that nobody names are of no use.
        let collected = self.prune(in_use).and_then(|()| self.collect());
        if let Err(error) = collected {
            tracing::warn!("old versions of functions stay for now: {error}");
        }
        deployed
    }

    fn keep(
        &mut self,
        name: &FunctionName,
        definition: &Definition,
    ) -> Result<Arc<Deployed>, Problem> {
        let mut layers = Vec::new();
        let mut process = Process::default();
        for (index, source) in definition.root.iter().enumerate() {
            let refused = |refused: Refused| layer_problem(index, source, &refused);
            let (path, store) = (source.path(), self.root.path());
            if path.starts_with(store) || store.starts_with(path) {
                let error = std::io::Error::other("it has the store of functions in it");
                return Err(refused(error.into()));
            }
            let (digest, brought) = layer::keep(source, &self.layers).map_err(refused)?;
            layers.push(digest);
            process = brought.unwrap_or(process);
        }
        let old = self.functions.get(name);
        let last = old.and_then(|versions| versions.values().next_back());
        let version = Deployed {
            name: name.clone(),
            version: last.map_or(1, |last| last.version + 1),
            deployed_unix_ms: unix_ms(),
            command: Some(&definition.command)
                .filter(|command| !command.is_empty())
                .unwrap_or(&process.command)
                .clone(),
            environment: environment(&process, definition),
            directory: definition.directory.clone().unwrap_or_else(|| {
                let own = PathBuf::from(&process.directory);
                if own.is_absolute() { own } else { "/".into() }
            }),
            definition: definition.clone(),
            layers,
        };
        if let Some(last) = last
            && last.is_like(&version)
        {
            return Ok(Arc::clone(last));
        }
        // What an image brought is held to the same bounds.
        let as_run = Definition {
            command: version.command.clone(),
            environment: version.environment.clone(),
            directory: Some(version.directory.clone()),
            ..definition.clone()
        };
        as_run.check()?;
        let json = serde_json::to_vec_pretty(&version).map_err(|error| {
            Problem::new(Kind::Store, format!("cannot write {name}: {error}"), "")
        })?;
        let file = version.file();
        self.versions.publish_file(&file, &json)?;
        let version = Arc::new(version);
        let versions = self.functions.entry(name.clone()).or_default();
        versions.insert(version.version, Arc::clone(&version));
        Ok(version)
    }

    /// Removes a function: all of its versions.
    pub fn remove(&mut self, name: &FunctionName) -> Result<(), Problem> {
        // The oldest first: an end in between leaves the one that was in use.
        let versions = self.functions.get(name).cloned().unwrap_or_default();
        for version in versions.values() {
            self.forget(version)?;
        }
        Ok(self.collect()?)
    }

    /// Removes versions that are neither the last few nor `in_use`.
    pub fn prune(&mut self, in_use: &InUse) -> Result<(), StoreError> {
        let mut old = Vec::new();
        for versions in self.functions.values() {
            let versions = versions.values().rev().skip(1 + OLD_VERSIONS);
            old.extend(versions.cloned());
        }
        for version in old {
            if !in_use.contains(&(version.name.clone(), version.version)) {
                self.forget(&version)?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, version: &Deployed) -> Result<(), StoreError> {
        self.versions.remove(&version.file())?;
        if let Some(versions) = self.functions.get_mut(&version.name) {
            versions.remove(&version.version);
            if versions.is_empty() {
                self.functions.remove(&version.name);
            }
        }
        Ok(())
    }

    /// Removes layers that no version names.
    fn collect(&self) -> Result<(), StoreError> {
        if !self.damaged.is_empty() {
            return Ok(());
        }
        let versions = self.functions.values().flat_map(BTreeMap::values);
        let named: BTreeSet<&str> = versions
            .flat_map(|version| version.layers.iter().map(Digest::digits))
            .collect();
        for name in self.layers.names()? {
            if !named.contains(&*name) && !name.starts_with(UNFINISHED) {
                self.layers.remove(&name)?;
            }
        }
        Ok(())
    }
}

fn environment(process: &Process, definition: &Definition) -> BTreeMap<String, String> {
    let own = process.environment.iter();
    let own = own.filter_map(|pair| pair.split_once('='));
    let mut all: BTreeMap<String, String> = own
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    all.extend(definition.environment.clone());
    all
}

fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let remedy = "see to the disk, and try again";
        Self::new(Kind::Store, error.to_string(), remedy)
    }
}

fn layer_problem(index: usize, source: &Source, refused: &Refused) -> Problem {
    if let Refused::Store(error) = refused {
        return Problem::new(Kind::Store, error.to_string(), "see to the disk");
    }
    let remedy = match refused {
        Refused::Source(error) if error.kind() == std::io::ErrorKind::NotFound => {
            "name what is there, as this node sees it"
        }
        Refused::Source(_) | Refused::Store(_) => {
            "a layer has files, directories and links, which hearth can read"
        }
        Refused::Layer(_) | Refused::Image(_) => "",
    };
    let mut problem = Problem::new(Kind::Layer, refused.to_string(), remedy);
    problem = problem.about(format!("root[{index}]"), source);
    problem
}

#[cfg(test)]
mod tests;
