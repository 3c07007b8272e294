//! `hearth fn record`.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use http::Method;
use http_body_util::BodyExt as _;

use super::client::Client;
use crate::config::Period;

/// Record what the pools are told and what they decide.
#[derive(Debug, Args)]
pub(super) struct Record {
    /// Where to; it is written anew.
    file: PathBuf,
    /// How long, up to 24h; less where it is interrupted.
    #[arg(long = "for", value_name = "TIME", default_value = "10min")]
    time: Period,
}

impl Record {
    pub(super) async fn act(self, client: &Client) -> anyhow::Result<()> {
        let path = format!("/v1/recording?seconds={}", self.time.0.as_secs());
        let response = client.send(Method::GET, &path, &[], Vec::new()).await?;
        let name = self.file.display();
        let unwritable = || format!("{name} cannot be written");
        let mut file = File::create(&self.file).with_context(unwritable)?;
        let mut body = response.into_body();
        let mut lines = 0_u64;
        // What is not a line yet: whenever this is interrupted, the file has whole ones.
        let mut rest = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.with_context(|| {
                format!(
                    "the recording broke off after {lines} lines, which are whole: the pools were \
                     faster, or `hearth run` has ended"
                )
            })?;
            if let Ok(data) = frame.into_data() {
                rest.extend_from_slice(&data);
                let end = rest.iter().rposition(|byte| *byte == b'\n');
                let whole: Vec<u8> = rest.drain(..end.map_or(0, |end| end + 1)).collect();
                lines += whole
                    .iter()
                    .map(|byte| u64::from(*byte == b'\n'))
                    .sum::<u64>();
                file.write_all(&whole).with_context(unwritable)?;
            }
        }
        // The first says what it is.
        let inputs = lines.saturating_sub(1);
        let time = Duration::from_secs(self.time.0.as_secs());
        eprintln!("{inputs} inputs in {time:?}; hearth simulate --trace {name}");
        Ok(())
    }
}
