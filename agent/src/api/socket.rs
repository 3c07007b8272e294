//! The socket of the API: of its owner alone.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use axum::Router;
use rustix::fs::Mode;
use tokio::net::{UnixListener, UnixStream};

/// A socket that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error(
        "{} is taken: another hearth serves its functions there; give each its own \
         functions.api_socket", .0.display()
    )]
    Taken(PathBuf),
    /// The kernel does not give it.
    #[error("cannot listen at {}: {error}; name another place in functions.api_socket", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// Listens at `path`, in the place of a socket that nobody serves any more. Before it has its name
/// it is its owner's alone.
pub async fn listen(path: &Path) -> Result<UnixListener, SocketError> {
    if UnixStream::connect(path).await.is_ok() {
        return Err(SocketError::Taken(path.to_owned()));
    }
    bind(path).map_err(|error| SocketError::Io {
        path: path.to_owned(),
        error,
    })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(parent)?;
    }
    let unnamed = path.with_extension("new");
    match std::fs::remove_file(&unnamed) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let former = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(&unnamed);
    rustix::process::umask(former);
    let listener = bound?;
    std::fs::set_permissions(&unnamed, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unnamed, path)?;
    Ok(listener)
}

/// Serves it until the runtime ends.
pub async fn serve(listener: UnixListener, router: Router) {
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("functions are no longer served: {error}");
    }
}
