//! Problems as HTTP tells them (RFC 9457).

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::functions::{Kind, Problem};

/// Where each kind is explained, by its word.
const EXPLAINED: &str = "https://github.com/hearth-rs/hearth/blob/main/docs/functions.md#";
/// What such a document is.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What is wrong, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDocument {
    /// Names the kind, and leads to where it is explained.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The status of HTTP.
    pub status: u16,
    /// What is wrong here.
    pub detail: String,
    /// With which field, parameter or header, if one is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Its value, shortened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What to do; empty where `detail` says it.
    pub remedy: String,
    /// After how many seconds another attempt may do better, as the header `Retry-After` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

impl From<Problem> for ProblemDocument {
    fn from(problem: Problem) -> Self {
        Self {
            kind: format!("{EXPLAINED}{}", problem.kind.word()),
            title: problem.kind.title().to_owned(),
            status: problem.kind.status(),
            detail: problem.detail,
            field: problem.field,
            value: problem.value,
            remedy: problem.remedy,
            retry_after: problem.retry_after,
        }
    }
}

impl ProblemDocument {
    /// What was told; none where it is of a kind that this version does not know.
    #[must_use]
    pub fn problem(self) -> Option<Problem> {
        let word = self.kind.strip_prefix(EXPLAINED)?;
        let kind = Kind::ALL.into_iter().find(|kind| kind.word() == word)?;
        Some(Problem {
            kind,
            detail: self.detail,
            field: self.field,
            value: self.value,
            remedy: self.remedy,
            retry_after: self.retry_after,
        })
    }
}

/// A problem as a response.
#[derive(Debug)]
pub struct Refusal(pub Problem);

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let document = ProblemDocument::from(self.0);
        let status = StatusCode::from_u16(document.status);
        let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_string(&document).unwrap_or_default();
        let kind = [(header::CONTENT_TYPE, CONTENT_TYPE)];
        let mut response = (status, kind, body).into_response();
        if let Some(seconds) = document.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_arrives_as_it_was_told() {
        for kind in Kind::ALL {
            let problem = Problem::new(kind, "wrong", "do it right").about("memory", "4B");
            let problem = problem.after(std::time::Duration::from_millis(1500));
            assert_eq!(problem.retry_after, Some(2), "never too early");
            let json = serde_json::to_string(&ProblemDocument::from(problem.clone()));
            let document: ProblemDocument =
                serde_json::from_str(&json.expect("JSON")).expect("a document");
            assert_eq!(document.problem(), Some(problem));
        }
    }

    #[test]
    fn every_kind_is_explained() {
        let text = include_str!("../../../docs/functions.md");
        for kind in Kind::ALL {
            let heading = format!("\n### {}\n", kind.word());
            assert!(
                text.contains(&heading),
                "docs/functions.md lacks {heading:?}"
            );
        }
    }
}
