//! What was decided about functions that failed, and what came of it.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hearth_runtime::id::FunctionName;
use serde::Deserialize;
use utoipa::IntoParams;

use super::Api;
use super::problem::{ProblemDocument, Refusal};
use super::routes::named;
use crate::functions::{Kind, Problem};
use crate::heal::audit::Wanted;

/// Lines of one answer, at most, and where nothing is said.
const MOST: usize = 1000;
const LINES: usize = 100;

/// Which lines are wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HealQuery {
    /// Only of this function.
    function: Option<String>,
    /// How many lines at most, the newest: 1 to 1000, 100 where it is left out.
    #[param(minimum = 1, maximum = 1000)]
    last: Option<usize>,
    /// Only lines before that of this `seq`: the first of an answer asks for those before it.
    before: Option<u64>,
}

impl HealQuery {
    fn wanted(self) -> Result<Wanted, Problem> {
        let last = self.last.unwrap_or(LINES);
        if last == 0 || last > MOST {
            let remedy = "use ?last=NUMBER, 1 to 1000";
            return Err(Problem::field("last", last, "no number of lines", remedy));
        }
        let function: Option<FunctionName> = self.function.as_deref().map(named).transpose()?;
        Ok(Wanted {
            last,
            before: self.before,
            function,
        })
    }
}

/// What was decided about functions that failed, and what came of it, the oldest line first: as
/// `hearth heal log --json` prints it, which also says whether the audit is as it was written.
#[utoipa::path(get, path = "/v1/heal", tag = "functions",
    params(HealQuery),
    responses(
        (status = 200, description =
            "Lines of the audit, each as schema/heal-log.schema.json describes it.",
            body = serde_json::Value, content_type = "application/x-ndjson"),
        (status = "default", description = "A problem.", body = ProblemDocument,
            content_type = "application/problem+json"),
    ))]
pub async fn log(
    State(api): State<Api>,
    query: Result<Query<HealQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Refusal> {
    let remedy = "use ?function=NAME&last=NUMBER&before=NUMBER";
    let Query(query) =
        query.map_err(|error| Problem::new(Kind::Invalid, error.body_text(), remedy))?;
    let lines = api.manager.healings(query.wanted()?).await?;
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, lines).into_response())
}
