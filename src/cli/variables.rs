//! Variables of a project, as commands are given them.

use std::path::PathBuf;

use clap::Args;

use crate::error::Result;
use crate::project::config::settings_of;

/// What a project's variables are set to.
#[derive(Debug, Args)]
pub(super) struct VariableArgs {
    /// Set a variable of the project
    #[arg(long, value_name = "NAME=VALUE")]
    var: Vec<String>,
    /// Set the variables that a file has under [vars], such as the tuned.toml of `lakeside tune`; --var comes after it
    #[arg(long, value_name = "FILE")]
    vars: Option<PathBuf>,
}

impl VariableArgs {
    /// Whether none is set.
    pub(super) fn is_empty(&self) -> bool {
        self.var.is_empty() && self.vars.is_none()
    }

    /// The `name=value` settings, later ones counting.
    pub(super) fn settings(&self) -> Result<Vec<String>> {
        let mut settings = self.vars.as_deref().map(settings_of).transpose()?.unwrap_or_default();
        settings.extend(self.var.iter().cloned());
        Ok(settings)
    }
}
