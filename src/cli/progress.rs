//! What a long run shows while it goes: bars on a terminal, lines elsewhere.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressFinish, ProgressStyle};

use super::output;
use crate::project::run::{Outcome, Progress, Report};

/// Shows a run: a spinner for each step that is under way, a line for each that is done.
pub(super) struct RunProgress {
    total: usize,
    done: usize,
    bars: Option<(MultiProgress, HashMap<String, ProgressBar>)>,
}

impl RunProgress {
    pub(super) fn new(total: usize) -> Self {
        let bars = std::io::stderr().is_terminal().then(|| (MultiProgress::new(), HashMap::new()));
        Self { total, done: 0, bars }
    }

    /// A line below the steps, on a terminal.
    pub(super) fn line_below(&self) -> Option<ProgressBar> {
        let (all, _) = self.bars.as_ref()?;
        let line = all.add(ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear));
        line.set_style(ProgressStyle::with_template("  {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Some(line)
    }

    pub(super) fn finish(&mut self) {
        if let Some((all, _)) = self.bars.take() {
            let _ = all.clear();
        }
    }

    fn line(&self, text: &str) {
        match &self.bars {
            // A terminal that is gone is no reason to stop a run.
            Some((all, _)) => drop(all.println(text)),
            None => eprintln!("{text}"),
        }
    }
}

impl Progress for RunProgress {
    fn started(&mut self, step: &str) {
        if let Some((all, bars)) = &mut self.bars {
            let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
            let bar = all.add(ProgressBar::new_spinner());
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_message(step.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bars.insert(step.to_owned(), bar);
        }
    }

    fn finished(&mut self, report: &Report) {
        self.done += 1;
        if let Some(bar) = self.bars.as_mut().and_then(|(_, bars)| bars.remove(&report.step)) {
            bar.finish_and_clear();
        }
        let width = self.total.to_string().len();
        let head = format!("[{:>width$}/{}] {:<24}", self.done, self.total, report.step);
        let seconds = report.time.as_secs_f64();
        match &report.outcome {
            Outcome::Published(table) => {
                let (rows, size) = (output::grouped(table.rows), output::size(table.bytes));
                self.line(&format!("{head} {rows:>12} rows {seconds:>7.2} s {size:>10}"));
            }
            Outcome::View => self.line(&format!("{head} {:>12}      {seconds:>7.2} s", "view")),
            Outcome::Failed(error) => self.line(&format!("{head} failed after {seconds:.2} s\nerror: {error}")),
            Outcome::Skipped(missing) => self.line(&format!("{head} skipped, as it needs {missing}")),
        }
    }
}
