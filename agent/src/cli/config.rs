//! `hearth config`: check a configuration, or show one.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;

use crate::cli::ConfigFile;
use crate::cli::run::check;
use crate::config::{Config, DEFAULT_PATH, DEFAULTS};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Say whether a file is a valid configuration, and if not what to change.
    Check {
        /// The file [default: /etc/hearth/hearth.toml].
        file: Option<PathBuf>,
    },
    /// Print every setting with its default and what it does; with `--config`, the settings
    /// of that file as hearth understands them. Secrets are masked.
    Show {
        /// Whose settings.
        #[command(flatten)]
        file: ConfigFile,
    },
}

impl Action {
    /// Does it.
    pub fn run(self) -> anyhow::Result<()> {
        let mut out = std::io::stdout().lock();
        match self {
            Self::Check { file } => {
                let path = file.unwrap_or_else(|| PathBuf::from(DEFAULT_PATH));
                let config = Config::load(Some(&path))?;
                for remark in check(&config).with_context(|| path.display().to_string())? {
                    writeln!(out, "{}: {remark}", path.display())?;
                }
                writeln!(out, "{}: valid", path.display())?;
            }
            Self::Show {
                file: ConfigFile { config: None },
            } => out.write_all(DEFAULTS.as_bytes())?,
            Self::Show {
                file: ConfigFile { config },
            } => {
                let config = Config::load(config.as_deref())?;
                let text = toml::to_string(&config).context("cannot write the settings as TOML")?;
                out.write_all(text.as_bytes())?;
            }
        }
        Ok(())
    }
}
