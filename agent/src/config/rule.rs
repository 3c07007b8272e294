//! Which programs open starts, as the file has them.

use serde::{Deserialize, Serialize};

use super::units::Period;
use crate::observe::cold_start::{self, ExecutableError, ReadyRule, Role};
use crate::time::Nanos;

/// Name or path pattern of an OCI runtime or VMM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Runtime(String);

impl Runtime {
    /// The rule that it stands for.
    pub fn rule(&self) -> Result<cold_start::StartRule, ExecutableError> {
        cold_start::StartRule::runtime(&self.0)
    }
}

impl TryFrom<String> for Runtime {
    type Error = ExecutableError;

    fn try_from(name: String) -> Result<Self, ExecutableError> {
        let runtime = Self(name);
        runtime.rule().map(|_| runtime)
    }
}

impl From<Runtime> for String {
    fn from(runtime: Runtime) -> Self {
        runtime.0
    }
}

/// A `[[start]]` rule: whose exec (or fork) opens a start, and what is different for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StartKeys")]
pub struct StartRule {
    /// Name or path pattern of the executable.
    pub exe: String,
    /// Function name given to its starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// What makes it ready, where the general rule does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<ReadyRule>,
    /// When it is given up, where the general deadline does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Period>,
    /// The program is a fork server: its forks open starts, its exec does not.
    pub fork_server: bool,
}

/// The keys of a [`StartRule`] before the executable was checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StartKeys {
    exe: String,
    function: Option<String>,
    ready: Option<ReadyRule>,
    deadline: Option<Period>,
    #[serde(default)]
    fork_server: bool,
}

impl TryFrom<StartKeys> for StartRule {
    type Error = ExecutableError;

    fn try_from(keys: StartKeys) -> Result<Self, ExecutableError> {
        let StartKeys {
            exe,
            function,
            ready,
            deadline,
            fork_server,
        } = keys;
        let rule = Self {
            exe,
            function,
            ready,
            deadline,
            fork_server,
        };
        rule.rule().map(|_| rule)
    }
}

impl StartRule {
    /// The rule as the tracker takes it.
    pub fn rule(&self) -> Result<cold_start::StartRule, ExecutableError> {
        let role = if self.fork_server {
            Role::ForkServer
        } else {
            Role::Program
        };
        Ok(cold_start::StartRule {
            ready: self.ready.clone(),
            deadline: self.deadline.map(Nanos::from),
            function: self.function.clone(),
            ..cold_start::StartRule::new(&self.exe, role)?
        })
    }
}

impl From<Period> for Nanos {
    fn from(period: Period) -> Self {
        Self(u64::try_from(period.0.as_nanos()).unwrap_or(u64::MAX))
    }
}
