//! A dashboard as its readers need it: Grafana its layout, Prometheus its queries.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::root;

/// Names of the files.
const NAMES: [&str; 5] = ["cold-start", "locks", "network", "oom", "pools"];
/// The one whose panels link to traces.
const LINKS: &str = "cold-start";

/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;

#[derive(Deserialize)]
pub(crate) struct Dashboard {
    uid: String,
    panels: Vec<Panel>,
    templating: List<Variable>,
    annotations: List<Annotation>,
    #[serde(skip)]
    pub(crate) json: Value,
    #[serde(skip)]
    pub(crate) name: String,
}

#[derive(Deserialize)]
struct List<T> {
    list: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Panel {
    id: u32,
    #[serde(rename = "type")]
    kind: String,
    title: String,
    #[serde(default)]
    description: String,
    grid_pos: Place,
    #[serde(default)]
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    expr: String,
}

#[derive(Deserialize)]
struct Annotation {
    name: String,
    target: Target,
}

#[derive(Deserialize)]
struct Variable {
    name: String,
    query: Value,
}

#[derive(Clone, Copy, Deserialize)]
struct Place {
    x: u32,
    y: u32,
    w: u32,
    h: u32,
}

impl Place {
    fn overlaps(self, other: Self) -> bool {
        self.x < other.x + other.w
            && other.x < self.x + self.w
            && self.y < other.y + other.h
            && other.y < self.y + self.h
    }
}

/// One query, with everything picked in the dashboard's variables.
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) promql: String,
}

impl Dashboard {
    /// Every one, by the name of its file.
    pub(crate) fn all() -> Result<Vec<Self>> {
        NAMES.iter().map(|name| Self::of(name)).collect()
    }

    fn of(name: &str) -> Result<Self> {
        let text = std::fs::read_to_string(root().join(format!("dashboards/{name}.json")))?;
        let json = serde_json::from_str(&text)?;
        Ok(Self {
            json,
            name: name.to_owned(),
            ..serde_json::from_str(&text)?
        })
    }

    pub(crate) fn queries(&self) -> Result<Vec<Query>> {
        let mut queries = Vec::new();
        let mut push = |place: &str, expr: &str| {
            let promql = expr
                .replace("$__rate_interval", "20s")
                .replace("$__range_s", "300")
                .replace("$__range", "5m")
                .replace("$function", ".*")
                .replace("$lock", ".*")
                .replace("$cgroup", ".*")
                .replace("$instance", ".*");
            let place = place.to_owned();
            queries.push(Query { place, promql });
        };
        for panel in &self.panels {
            for target in &panel.targets {
                push(&panel.title, &target.expr);
            }
        }
        for annotation in &self.annotations.list {
            push(&annotation.name, &annotation.target.expr);
        }
        for variable in &self.templating.list {
            let Some(query) = variable.query.get("query").and_then(Value::as_str) else {
                continue;
            };
            let arguments = query
                .strip_prefix("label_values(")
                .and_then(|rest| rest.strip_suffix(')'))
                .and_then(|rest| rest.rsplit_once(", "))
                .with_context(|| format!("{}: a query of no known form", variable.name))?;
            let (selector, label) = arguments;
            push(&variable.name, &format!("count by ({label}) ({selector})"));
        }
        if let Some(query) = queries.iter().find(|query| query.promql.contains('$')) {
            anyhow::bail!("{}: unknown variable in {}", query.place, query.promql);
        }
        Ok(queries)
    }

    pub(crate) fn check_layout(&self) -> Result<()> {
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for (i, panel) in self.panels.iter().enumerate() {
            let (title, place) = (&panel.title, panel.grid_pos);
            ensure!(
                ids.insert(panel.id),
                "{title}: its id {} is taken",
                panel.id
            );
            ensure!(place.w > 0 && place.h > 0, "{title}: no room");
            ensure!(
                place.x + place.w <= COLUMNS,
                "{title}: beyond the last column"
            );
            for other in &self.panels[i + 1..] {
                ensure!(
                    !place.overlaps(other.grid_pos),
                    "{title} overlaps {}",
                    other.title
                );
            }
            if panel.kind == "row" {
                continue;
            }
            ensure!(titles.insert(title), "{title}: two panels of that title");
            ensure!(!panel.targets.is_empty(), "{title}: asks nothing");
            ensure!(
                panel.description.len() > 40,
                "{title}: does not say what to do"
            );
        }
        let area: u32 = self
            .panels
            .iter()
            .map(|panel| panel.grid_pos.w * panel.grid_pos.h)
            .sum();
        let bottom = self
            .panels
            .iter()
            .map(|panel| panel.grid_pos.y + panel.grid_pos.h)
            .max();
        ensure!(
            Some(area) == bottom.map(|rows| rows * COLUMNS),
            "the layout has holes"
        );
        Ok(())
    }

    /// Nothing in it may name an object of one Grafana: only what the reader picks.
    pub(crate) fn check_sources(&self) -> Result<()> {
        ensure!(
            self.uid == format!("hearth-{}", self.name),
            "links point at the uid: it never changes"
        );
        ensure!(self.json.get("id").is_none(), "`id` belongs to one Grafana");
        let mut below = vec![&self.json];
        while let Some(value) = below.pop() {
            if let Some(source) = value.get("datasource") {
                let uid = source.get("uid").and_then(Value::as_str);
                ensure!(
                    uid == Some("${datasource}"),
                    "a source that nobody picked: {source}"
                );
            }
            match value {
                Value::Array(items) => below.extend(items),
                Value::Object(members) => below.extend(members.values()),
                _ => {}
            }
        }
        Ok(())
    }

    /// The link of a trace id opens Explore with a query for that trace.
    pub(crate) fn check_trace_link(&self) -> Result<()> {
        if self.name != LINKS {
            return Ok(());
        }
        let text = self.json.to_string();
        let (_, rest) = text
            .split_once("/explore?schemaVersion=1&panes=")
            .context("no link")?;
        let (panes, _) = rest.split_once('"').context("the link has an end")?;
        let panes = panes
            .replace("${traces}", "tempo-uid")
            .replace("${__value.raw}", "4bf92f3577b34da6a3ce929d0e0e4736")
            .replace("${__from}", "1700000000000")
            .replace("${__to}", "1700003600000");
        let panes: Value = serde_json::from_str(&percent_decoded(&panes)?)?;
        let pane = &panes["trace"];
        ensure!(pane["datasource"] == "tempo-uid", "{pane}");
        ensure!(
            pane["queries"][0]["datasource"]["uid"] == "tempo-uid",
            "{pane}"
        );
        ensure!(
            pane["queries"][0]["query"] == "4bf92f3577b34da6a3ce929d0e0e4736",
            "{pane}"
        );
        ensure!(pane["range"]["to"] == "1700003600000", "{pane}");
        Ok(())
    }
}

fn percent_decoded(text: &str) -> Result<String> {
    let mut parts = text.split('%');
    let mut decoded = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).context("two digits follow a percent sign")?;
        decoded.push(char::from(u8::from_str_radix(code, 16)?));
        decoded.push_str(&part[2..]);
    }
    Ok(decoded)
}

/// Names of the agent's metrics in a query or rule.
pub(crate) fn metrics_in(promql: &str) -> impl Iterator<Item = String> {
    promql
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.starts_with("hearth_") || word.starts_with("faas_"))
        // A label.
        .filter(|word| *word != "faas_name")
        .map(str::to_owned)
}
