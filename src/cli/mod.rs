//! The commands: one file each. Data goes to stdout, everything else to stderr.

mod check;
mod functions;
mod graph;
mod init;
mod output;
mod progress;
mod run;
mod shell;
mod sql;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

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
    Check(check::CheckArgs),
    Graph(graph::GraphArgs),
    Sql(sql::SqlArgs),
    Functions(functions::FunctionsArgs),
}

/// What a command may use of the machine.
#[derive(Debug, Args)]
struct LimitArgs {
    /// Threads to work with, at least 1 [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Memory that queries may take together, such as 4G or 512M [default: no limit]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    memory_limit: Option<usize>,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits { threads: self.threads.map(usize::from), memory: self.memory_limit }
    }
}

fn parse_bytes(text: &str) -> Result<usize, String> {
    let units = [("K", 10), ("M", 20), ("G", 30), ("T", 40)];
    let upper = text.trim().to_uppercase();
    let plain = upper.strip_suffix("IB").or(upper.strip_suffix('B')).unwrap_or(&upper);
    let (digits, shift) = units
        .iter()
        .find_map(|(unit, shift)| plain.strip_suffix(unit).map(|digits| (digits, *shift)))
        .unwrap_or((plain, 0));
    let bytes = digits.trim().parse::<f64>().ok().map(|number| number * f64::from(1u32 << 10).powi(shift / 10));
    match bytes {
        Some(bytes) if bytes >= 1.0 && bytes < usize::MAX as f64 => Ok(bytes as usize),
        _ => Err(format!("'{text}' is not a size; write a number with K, M, G or T, such as 4G")),
    }
}

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let threads = match &cli.command {
        Command::Run(args) => args.limits.limits().threads(),
        Command::Sql(args) => args.limits.limits().threads(),
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
        Command::Check(args) => check::check(&args).await,
        Command::Graph(args) => graph::graph(&args),
        Command::Sql(args) => sql::sql(&args).await,
        Command::Functions(args) => functions::functions(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(parse_bytes("512M"), Ok(512 << 20));
        assert_eq!(parse_bytes("1.5GiB"), Ok(3 << 29));
        assert_eq!(parse_bytes("1000"), Ok(1000));
        assert!(parse_bytes("lots").is_err() && parse_bytes("0").is_err() && parse_bytes("-1G").is_err());
    }

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
