//! Panels of a Grafana dashboard and their layout.

use serde_json::{Map, Value, json};

/// Columns of Grafana's grid.
const COLUMNS: u64 = 24;

/// The data source that the reader picked.
pub(super) fn metrics() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

/// One panel, without its place.
pub(super) struct Panel {
    width: u64,
    json: Value,
}

impl Panel {
    /// Curves over time.
    pub(super) fn time_series(title: &str, unit: &str, width: u64) -> Self {
        let options = json!({
            "legend": {
                "calcs": ["lastNotNull", "max"],
                "displayMode": "table",
                "placement": "bottom",
                "showLegend": true,
            },
            "tooltip": { "mode": "multi", "sort": "desc", "hideZeros": true },
        });
        let custom = json!({
            "drawStyle": "line",
            "fillOpacity": 8,
            "lineWidth": 1,
            "showPoints": "auto",
            "spanNulls": false,
        });
        Self::new("timeseries", title, unit, width, &options)
            .set("/fieldConfig/defaults/custom", custom)
    }

    /// One number for the whole range, coloured from `warn` on, red from `bad` on.
    pub(super) fn stat(title: &str, unit: &str, width: u64, warn_bad: Option<(f64, f64)>) -> Self {
        let options = json!({
            "colorMode": if warn_bad.is_some() { "value" } else { "none" },
            "graphMode": "none",
            "justifyMode": "auto",
            "orientation": "auto",
            "percentChangeColorMode": "standard",
            "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
            "showPercentChange": false,
            "textMode": "auto",
            "wideLayout": true,
        });
        let panel = Self::new("stat", title, unit, width, &options);
        let Some((warn, bad)) = warn_bad else {
            return panel;
        };
        panel
            .set(
                "/fieldConfig/defaults/color",
                json!({ "mode": "thresholds" }),
            )
            .set(
                "/fieldConfig/defaults/thresholds",
                json!({ "mode": "absolute", "steps": [
                    { "color": "green", "value": null },
                    { "color": "orange", "value": warn },
                    { "color": "red", "value": bad },
                ]}),
            )
    }

    /// One bar a row of the answer, its columns stacked to 100 %.
    pub(super) fn shares(title: &str, unit: &str, width: u64) -> Self {
        let options = json!({
            "barWidth": 0.9,
            "fullHighlight": false,
            "groupWidth": 0.7,
            "legend": {
                "calcs": [],
                "displayMode": "list",
                "placement": "bottom",
                "showLegend": true,
            },
            "orientation": "horizontal",
            "showValue": "never",
            "stacking": "percent",
            "tooltip": { "mode": "multi", "sort": "desc" },
            "xTickLabelMaxLength": 32,
            "xTickLabelRotation": 0,
        });
        Self::new("barchart", title, unit, width, &options).set(
            "/fieldConfig/defaults/custom",
            json!({ "fillOpacity": 80, "lineWidth": 1 }),
        )
    }

    /// Rows and columns.
    pub(super) fn table(title: &str, unit: &str, width: u64) -> Self {
        let options = json!({ "cellHeight": "sm", "frameIndex": 0, "showHeader": true });
        let custom =
            json!({ "align": "auto", "cellOptions": { "type": "auto" }, "inspect": false });
        Self::new("table", title, unit, width, &options).set("/fieldConfig/defaults/custom", custom)
    }

    fn new(kind: &str, title: &str, unit: &str, width: u64, options: &Value) -> Self {
        let json = json!({
            "type": kind,
            "title": title,
            "datasource": metrics(),
            "fieldConfig": { "defaults": { "unit": unit }, "overrides": [] },
            "options": options,
            "targets": [],
            "transformations": [],
        });
        Self { width, json }
    }

    /// What the reader sees here and what to do about it.
    pub(super) fn describe(self, text: &str) -> Self {
        self.set("/description", json!(text))
    }

    /// Asks for a curve. `legend` may name labels: `{{faas_name}}`.
    pub(super) fn curve(self, expr: &str, legend: &str) -> Self {
        self.target(json!({
            "expr": expr, "legendFormat": legend, "range": true, "format": "time_series",
        }))
    }

    /// Asks for the values at the range's end.
    pub(super) fn value(self, expr: &str) -> Self {
        self.target(json!({ "expr": expr, "instant": true, "format": "time_series" }))
    }

    /// Asks for the values at the range's end, one row each, with their labels as columns.
    pub(super) fn rows(self, expr: &str) -> Self {
        self.target(json!({ "expr": expr, "instant": true, "format": "table" }))
    }

    fn target(mut self, mut target: Value) -> Self {
        let targets = self.list("/targets");
        // A to Z: more than 26 queries in one panel would be a mistake of their own.
        let letter = char::from(b'A' + u8::try_from(targets.len()).unwrap_or(u8::MAX - b'A'));
        target["refId"] = json!(letter.to_string());
        target["datasource"] = metrics();
        targets.push(target);
        self
    }

    /// Stacks the curves.
    pub(super) fn stack(self) -> Self {
        self.set(
            "/fieldConfig/defaults/custom/stacking",
            json!({ "group": "A", "mode": "normal" }),
        )
        .set("/fieldConfig/defaults/custom/fillOpacity", json!(60))
    }

    /// Gives each name the same colour in every panel.
    pub(super) fn by_name(self) -> Self {
        self.set(
            "/fieldConfig/defaults/color",
            json!({ "mode": "palette-classic-by-name" }),
        )
    }

    /// Turns the answer by one step before it is drawn.
    pub(super) fn transform(mut self, id: &str, options: &Value) -> Self {
        self.list("/transformations")
            .push(json!({ "id": id, "options": options }));
        self
    }

    /// Gives one field properties of its own.
    pub(super) fn field(mut self, name: &str, properties: &Value) -> Self {
        let properties: Vec<Value> = properties
            .as_object()
            .into_iter()
            .flatten()
            .map(|(id, value)| json!({ "id": id, "value": value }))
            .collect();
        let matcher = json!({ "id": "byName", "options": name });
        self.list("/fieldConfig/overrides")
            .push(json!({ "matcher": matcher, "properties": properties }));
        self
    }

    /// Sets the member at a JSON pointer; only the last step may be new.
    pub(super) fn set(mut self, pointer: &str, value: Value) -> Self {
        let (parent, member) = pointer
            .rsplit_once('/')
            .expect("a pointer begins with a slash");
        let parent = self.json.pointer_mut(parent).and_then(Value::as_object_mut);
        parent
            .expect("the pointer's parent is an object")
            .insert(member.to_owned(), value);
        self
    }

    fn list(&mut self, pointer: &str) -> &mut Vec<Value> {
        let list = self.json.pointer_mut(pointer).and_then(Value::as_array_mut);
        list.expect("the pointer names a list that every panel has")
    }
}

/// Panels side by side, all `height` high; under a heading if there is one.
pub(super) struct Band {
    pub(super) heading: Option<&'static str>,
    pub(super) height: u64,
    pub(super) panels: Vec<Panel>,
}

/// Places bands below each other and numbers the panels.
pub(super) fn layout(bands: Vec<Band>) -> Vec<Value> {
    let mut placed = Vec::new();
    let mut y = 0;
    for band in bands {
        if let Some(heading) = band.heading {
            let row = json!({ "type": "row", "title": heading, "collapsed": false, "panels": [] });
            place(&mut placed, row, [0, y, COLUMNS, 1]);
            y += 1;
        }
        let mut x = 0;
        for panel in band.panels {
            place(&mut placed, panel.json, [x, y, panel.width, band.height]);
            x += panel.width;
        }
        assert_eq!(x, COLUMNS, "the panels of a band fill the width");
        y += band.height;
    }
    placed
}

fn place(placed: &mut Vec<Value>, mut panel: Value, [x, y, w, h]: [u64; 4]) {
    let members: &mut Map<String, Value> = panel.as_object_mut().expect("a panel is an object");
    members.insert("id".to_owned(), json!(placed.len() + 1));
    members.insert(
        "gridPos".to_owned(),
        json!({ "x": x, "y": y, "w": w, "h": h }),
    );
    placed.push(panel);
}
