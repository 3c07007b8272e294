//! The function interface: the AWS Lambda Runtime API, which `lambda_runtime`, `awslambdaric` and
//! custom runtimes speak unmodified, served to one function on the sandbox's own loopback.
//!
//! Nothing here reads or writes a socket: [`http`] makes requests of bytes, [`Session`] says what
//! each of them leads to. `hearth-init` moves the bytes.

pub mod http;
mod route;
mod session;

pub use route::{Call, RouteError, VERSION};
pub use session::{
    Effect, Happening, Invocation, Refused, Session, TOO_LARGE_KIND, UNHANDLED_KIND,
};
