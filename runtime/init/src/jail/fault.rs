//! What could not be made.

use std::io;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {error}")]
pub(crate) struct Fault {
    /// What was being done.
    pub(crate) step: &'static str,
    /// Why it was not.
    pub(crate) error: io::Error,
}

/// Says at which step something failed.
pub(super) trait At<T> {
    fn at(self, step: &'static str) -> Result<T, Fault>;
}

impl<T, E: Into<Cause>> At<T> for Result<T, E> {
    fn at(self, step: &'static str) -> Result<T, Fault> {
        self.map_err(|cause| Fault {
            step,
            error: cause.into().0,
        })
    }
}

/// Why, as the kernel or as the runtime say it.
pub(super) struct Cause(io::Error);

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl From<rustix::io::Errno> for Cause {
    fn from(error: rustix::io::Errno) -> Self {
        Self(error.into())
    }
}

impl From<hearth_runtime::seccomp::FilterError> for Cause {
    fn from(error: hearth_runtime::seccomp::FilterError) -> Self {
        Self(io::Error::other(error))
    }
}

impl From<hearth_runtime::seccomp::ProfileError> for Cause {
    fn from(error: hearth_runtime::seccomp::ProfileError) -> Self {
        Self(io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}
