//! What a request asks of the Runtime API.

use super::http::{Reply, Request};
use crate::id::RequestId;

/// The version of the API, the first part of every path.
pub const VERSION: &str = "2018-06-01";
/// How much of a text that a function chose is said back to it.
const SAID_BACK: usize = 200;

/// One call of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// `GET /runtime/invocation/next`: give me work; also "I am ready".
    Next,
    /// `POST /runtime/invocation/ID/response`.
    Response(RequestId),
    /// `POST /runtime/invocation/ID/error`.
    Error(RequestId),
    /// `POST /runtime/init/error`: I cannot start.
    InitError,
    /// `GET /runtime/restore/next`: take the snapshot now.
    RestoreNext,
    /// `POST /runtime/restore/error`: the hooks after a restore failed.
    RestoreError,
}

/// Why a request is no call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Not a path of the API.
    #[error(
        "no such path: `{0}`; the Runtime API has /{VERSION}/runtime/invocation/next and its like"
    )]
    Path(String),
    /// Another method.
    #[error("`{method}` on this path: it takes {takes}")]
    Method {
        /// The one that was used.
        method: String,
        /// The one that the path takes.
        takes: &'static str,
    },
    /// The id in the path is none.
    #[error("`{0}` is no request id that was ever given out")]
    Id(String),
}

impl RouteError {
    /// As a reply.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let (status, kind) = match self {
            Self::Path(_) => (404, "NotFound"),
            Self::Method { .. } => (405, "MethodNotAllowed"),
            Self::Id(_) => (400, "InvalidRequestID"),
        };
        Reply::error(status, kind, &self.to_string())
    }
}

impl Call {
    /// The call that a request makes.
    pub fn of(request: &Request) -> Result<Self, RouteError> {
        let target = &*request.target;
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let short = |text: &str| text.chars().take(SAID_BACK).collect::<String>();
        let unknown = || RouteError::Path(short(target));
        let mut parts = path.strip_prefix('/').ok_or_else(unknown)?.split('/');
        if (parts.next(), parts.next()) != (Some(VERSION), Some("runtime")) {
            return Err(unknown());
        }
        let parts: Vec<&str> = parts.collect();
        let id = |text: &str| text.parse().map_err(|_| RouteError::Id(short(text)));
        let (takes, call) = match &*parts {
            ["invocation", "next"] => ("GET", Ok(Self::Next)),
            ["invocation", text, "response"] => ("POST", id(text).map(Self::Response)),
            ["invocation", text, "error"] => ("POST", id(text).map(Self::Error)),
            ["init", "error"] => ("POST", Ok(Self::InitError)),
            ["restore", "next"] => ("GET", Ok(Self::RestoreNext)),
            ["restore", "error"] => ("POST", Ok(Self::RestoreError)),
            _ => return Err(unknown()),
        };
        if request.method != takes {
            let method = short(&request.method);
            return Err(RouteError::Method { method, takes });
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, target: &str) -> Result<Call, RouteError> {
        Call::of(&Request {
            method: method.into(),
            target: target.into(),
            headers: Vec::new(),
            body: None,
            keep_alive: true,
        })
    }

    #[test]
    fn every_call_has_one_path_and_one_method() {
        let id = RequestId::from_u128(5);
        let base = "/2018-06-01/runtime";
        let calls = [
            ("GET", "/invocation/next".to_owned(), Call::Next),
            (
                "POST",
                format!("/invocation/{id}/response"),
                Call::Response(id),
            ),
            ("POST", format!("/invocation/{id}/error"), Call::Error(id)),
            ("POST", "/init/error".to_owned(), Call::InitError),
            ("GET", "/restore/next".to_owned(), Call::RestoreNext),
            ("POST", "/restore/error".to_owned(), Call::RestoreError),
        ];
        for (method, path, expected) in calls {
            let path = format!("{base}{path}");
            assert_eq!(call(method, &path), Ok(expected.clone()));
            assert_eq!(call(method, &format!("{path}?x=/y")), Ok(expected));
            let other = if method == "GET" { "POST" } else { "GET" };
            assert!(
                matches!(call(other, &path), Err(RouteError::Method { takes, .. }) if takes == method)
            );
            assert!(matches!(
                call(method, &format!("{path}/")),
                Err(RouteError::Path(_))
            ));
            assert!(matches!(
                call(method, &format!("/{path}")),
                Err(RouteError::Path(_))
            ));
        }
        let wrong = call("POST", &format!("{base}/invocation/1/response"));
        assert_eq!(wrong, Err(RouteError::Id("1".into())));
        assert_eq!(call("GET", ""), Err(RouteError::Path(String::new())));
    }
}
