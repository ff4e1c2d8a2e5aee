//! What the members of a cluster write about themselves, to stderr.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// What is logged, and how
#[derive(Debug, Args)]
pub(super) struct LogArgs {
    /// How lines are written
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    log_format: Format,
    /// What is told: error, warn, info, debug, or a list such as warn,ballista_scheduler=info
    #[arg(long, default_value = "warn", value_name = "FILTER", env = "LAKESIDE_LOG")]
    log_level: String,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Json,
}

impl LogArgs {
    /// Logs from here on.
    pub(super) fn begin(&self) -> crate::error::Result<()> {
        let filter = EnvFilter::try_new(&self.log_level)
            .map_err(|e| crate::error::Error::Usage(format!("--log-level {}: {e}", self.log_level)))?;
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match self.log_format {
            Format::Text => logs.with_ansi(false).init(),
            Format::Json => logs.json().init(),
        }
        Ok(())
    }
}
