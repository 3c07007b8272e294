//! A function that ends whenever it is started is left alone for longer and longer.

use anyhow::{Result, ensure};
use serde_json::json;

use super::stage::Stage;

const NAME: &str = "broken";
/// The first pause, in seconds; each one that follows is longer.
const FIRST_PAUSE: f64 = 10.0;

/// Waits until it is left alone for more seconds than these.
fn left_alone(stage: &Stage<'_>, more_than: f64) -> Result<f64> {
    let mut left = 0.0;
    stage.until("it is left alone", || {
        left = stage.figure("hearth_heal_back_off_seconds", NAME)?;
        Ok(left > more_than)
    })?;
    Ok(left)
}

pub(super) fn act(stage: &mut Stage<'_>) -> Result<()> {
    stage.act("A crash loop: left alone for longer and longer")?;
    stage.does(format!(
        "deploy `{NAME}`, which ends as soon as it is started; heal = \"act\""
    ));
    let settings = |environment| {
        json!({
            "max_instances": 2, "policy": "fixed:600", "heal": "act",
            "min_instances": 1, "environment": environment,
        })
    };
    stage.deploy(NAME, settings(json!({ "START": "exit" })))?;
    let first = left_alone(stage, 0.0)?;
    stage.sees(format!(
        "the second start failed, too: it is left alone for another {first:.0} s"
    ));
    let second = left_alone(stage, FIRST_PAUSE)?;
    stage.sees(format!(
        "so did the third: it is left alone for another {second:.0} s"
    ));
    stage.does("deploy a version that works");
    let version = stage.deploy(NAME, settings(json!({})))?;
    let reply = stage.invoke(NAME, &json!({ "do": "echo" }))?.success()?;
    ensure!(reply.json()?["echo"]["do"] == "echo", "{reply}");
    stage.sees(format!("version {version} answers at once"));
    Ok(())
}
