//! What the members of a cluster write about themselves, to stderr.

use std::io::Write;

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

/// What is not told unless it is asked for by name: metrics that do not fit a plan which was planned anew, and rows that were
/// put on disk as they should be.
const QUIET: &str = "ballista_scheduler::display=off,ballista_core::execution_plans=error";

/// Stderr, whether somebody reads it or not: a log that cannot be written is no reason to stop.
struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = std::io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl LogArgs {
    /// Logs from here on.
    pub(super) fn begin(&self) -> crate::error::Result<()> {
        let filter = EnvFilter::try_new(format!("{QUIET},{}", self.log_level))
            .map_err(|e| crate::error::Error::Usage(format!("--log-level {}: {e}", self.log_level)))?;
        let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Stderr);
        match self.log_format {
            Format::Text => logs.with_ansi(false).init(),
            Format::Json => logs.json().init(),
        }
        Ok(())
    }
}
