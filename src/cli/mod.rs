//! The commands: one file each. Data goes to stdout, everything else to stderr.

mod check;
#[cfg(feature = "cluster")]
mod cluster;
mod functions;
mod graph;
mod init;
mod limits;
#[cfg(feature = "cluster")]
mod logs;
mod output;
mod progress;
mod run;
mod shell;
mod sql;
mod tune;
mod variables;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::{Error, Result};
use crate::session::Limits;

pub use self::functions::reference;

/// From a Parquet lake to recommendations, in SQL.
#[derive(Debug, Parser)]
#[command(name = "lakeside", version, max_term_width = 100)]
#[command(after_help = "Example: lakeside run sql && lakeside sql -c 'SELECT * FROM recommendations LIMIT 5'")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::InitArgs),
    Run(run::RunArgs),
    Tune(tune::TuneArgs),
    Check(check::CheckArgs),
    Graph(graph::GraphArgs),
    Sql(sql::SqlArgs),
    Functions(functions::FunctionsArgs),
    #[cfg(feature = "cluster")]
    Scheduler(cluster::SchedulerArgs),
    #[cfg(feature = "cluster")]
    Executor(cluster::ExecutorArgs),
    #[cfg(feature = "cluster")]
    Cluster(cluster::ClusterArgs),
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let threads = match &cli.command {
        Command::Run(args) => args.limits.threads(),
        Command::Tune(args) => args.limits.threads(),
        Command::Sql(args) => args.limits.threads(),
        _ => Limits::default().threads(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(dispatch(cli.command)),
        Err(e) => Err(Error::Io("starting threads".to_owned(), e)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read the output has seen enough.
        Err(Error::Io(_, e)) if e.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Init(args) => init::init(&args),
        Command::Run(args) => run::run(&args).await,
        Command::Tune(args) => tune::tune(&args).await,
        Command::Check(args) => check::check(&args).await,
        Command::Graph(args) => graph::graph(&args),
        Command::Sql(args) => sql::sql(&args).await,
        Command::Functions(args) => functions::functions(&args),
        #[cfg(feature = "cluster")]
        Command::Scheduler(args) => cluster::scheduler(&args).await,
        #[cfg(feature = "cluster")]
        Command::Executor(args) => cluster::executor(&args).await,
        #[cfg(feature = "cluster")]
        Command::Cluster(args) => cluster::cluster(&args).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
