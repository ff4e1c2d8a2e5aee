//! Results on the screen and in pipes.

use std::io::{IsTerminal, Write};
use std::sync::Arc;

use clap::ValueEnum;
use datafusion::arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches_with_options;
use datafusion::arrow::{csv, json};
use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use datafusion::parquet::arrow::ArrowWriter;
use futures::StreamExt;

use crate::error::{Error, Result};

/// How a result is written to stdout.
#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people; on a terminal at most 40 rows
    Table,
    /// Comma-separated values with a header
    Csv,
    /// One JSON object per line
    Json,
    /// A Parquet file
    Parquet,
}

/// Rows that a terminal shows of a longer result.
const TERMINAL_ROWS: usize = 40;

fn to_stdout(e: std::io::Error) -> Error {
    Error::Io("writing to stdout".to_owned(), e)
}

/// Writes a result to stdout. Returns its number of rows.
pub(super) async fn print(frame: DataFrame, format: Format) -> Result<usize> {
    match format {
        Format::Table => {
            let most = if std::io::stdout().is_terminal() { TERMINAL_ROWS } else { usize::MAX };
            print_table(frame, most).await
        }
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(std::io::stdout().lock());
            let empty = RecordBatch::new_empty(frame.schema().inner().clone());
            // The header comes with the first rows, so that a query that fails has written nothing.
            let rows = each_batch(frame, |batch| writer.write(&flat(batch)?).map_err(engine)).await?;
            if rows == 0 {
                writer.write(&flat(&empty)?).map_err(engine)?;
            }
            Ok(rows)
        }
        Format::Json => {
            let mut writer = json::LineDelimitedWriter::new(std::io::stdout().lock());
            let rows = each_batch(frame, |batch| writer.write(batch).map_err(engine)).await?;
            writer.finish().map_err(engine)?;
            Ok(rows)
        }
        Format::Parquet if std::io::stdout().is_terminal() => {
            Err(Error::Usage("--format parquet writes binary data; send it to a file with > result.parquet".to_owned()))
        }
        Format::Parquet => {
            let schema = frame.schema().inner().clone();
            let mut writer = ArrowWriter::try_new(std::io::stdout(), schema, None).map_err(DataFusionError::from)?;
            let written = |batch: &RecordBatch| writer.write(batch).map_err(|e| DataFusionError::from(e).into());
            let rows = each_batch(frame, written).await?;
            writer.close().map_err(DataFusionError::from)?;
            Ok(rows)
        }
    }
}

/// Lists and structs as text, since CSV knows neither.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let schema = batch.schema();
    let mut columns = batch.columns().to_vec();
    let mut fields: Vec<Field> = schema.fields().iter().map(|field| Field::clone(field)).collect();
    for (field, column) in fields.iter_mut().zip(&mut columns).filter(|(field, _)| field.data_type().is_nested()) {
        let texts = texts(column)?;
        *field = Field::new(field.name(), DataType::Utf8, true);
        *column = Arc::new(texts);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(engine)
}

fn texts(column: &ArrayRef) -> Result<StringArray> {
    let options = FormatOptions::default();
    let texts = ArrayFormatter::try_new(column.as_ref(), &options).map_err(engine)?;
    Ok((0..column.len()).map(|row| column.is_valid(row).then(|| texts.value(row).to_string())).collect())
}

fn engine(error: datafusion::arrow::error::ArrowError) -> Error {
    match error {
        datafusion::arrow::error::ArrowError::IoError(_, e) => to_stdout(e),
        // The writers of CSV and JSON keep only the words of an I/O error.
        other if other.to_string().contains("Broken pipe") => to_stdout(std::io::ErrorKind::BrokenPipe.into()),
        other => Error::Engine(DataFusionError::from(other)),
    }
}

async fn each_batch(frame: DataFrame, mut write: impl FnMut(&RecordBatch) -> Result<()>) -> Result<usize> {
    let mut stream = frame.execute_stream().await?;
    let mut rows = 0;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        rows += batch.num_rows();
        if batch.num_rows() > 0 {
            write(&batch)?;
        }
    }
    Ok(rows)
}

/// Writes a result as columns, the first `most` rows of it.
pub(super) async fn print_table(frame: DataFrame, most: usize) -> Result<usize> {
    let schema = frame.schema().inner().clone();
    let batches = frame.collect().await?;
    if schema.fields().first().is_some_and(|field| field.name() == "plan_type") {
        return print_plans(&batches);
    }
    let total: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let mut shown = vec![RecordBatch::new_empty(schema)];
    let mut left = most;
    for batch in &batches {
        let rows = batch.num_rows().min(left);
        left -= rows;
        shown.push(batch.slice(0, rows));
    }
    let options = FormatOptions::default().with_null("NULL");
    let table = pretty_format_batches_with_options(&shown, &options).map_err(engine)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{table}").map_err(to_stdout)?;
    if total > most {
        writeln!(out, "{} rows, the first {most} shown", grouped(total as u64)).map_err(to_stdout)?;
    }
    Ok(total)
}

/// Writes what EXPLAIN answers as lines, since a plan in a box is wider than any screen.
fn print_plans(batches: &[RecordBatch]) -> Result<usize> {
    let mut rows = 0;
    for batch in batches {
        let (kinds, plans) = (texts(batch.column(0))?, texts(batch.column(1))?);
        for (kind, plan) in kinds.iter().zip(&plans) {
            print_text(&format!("{}:\n{}\n", kind.unwrap_or(""), plan.unwrap_or("").trim_end()))?;
            rows += 1;
        }
    }
    Ok(rows)
}

/// Writes text to stdout.
pub(super) fn print_text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(to_stdout)
}

/// A number with its thousands apart: `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of bytes in the largest unit that leaves a digit before the point.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut units = ["B", "KB", "MB", "GB"].into_iter();
    let mut unit = units.next().unwrap_or("B");
    while value >= 1000.0
        && let Some(next) = units.next()
    {
        value /= 1000.0;
        unit = next;
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") }
}

/// Rows as columns: the first and the last to the left, numbers to the right.
pub(super) fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: Vec<usize> =
        (0..N).map(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0)).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, &width))| match at {
            0 => format!("{cell:<width$}"),
            _ if at == N - 1 => cell.clone(),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 1234567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([999, 1000, 1_250_000].map(size), ["999 B", "1.0 KB", "1.2 MB"]);
    }
}
