//! The promises of a header, tested on what a step has written before it is published.

use std::sync::Arc;

use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::dataframe::DataFrame;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::prelude::{Expr, ident, lit};

use super::steps::Step;
use crate::error::{Error, Result, explain};
use crate::operators::arguments::nearest;
use crate::session::Session;

/// How many offending rows a message shows.
const SHOWN: usize = 3;

/// Whether the columns and conditions of a header exist, before anything runs.
pub fn validate(session: &Session, step: &Step, schema: &DFSchema) -> Result<()> {
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let known = |column: &String, what: &str, line: Option<usize>| {
        if names.contains(&column.as_str()) {
            return Ok(());
        }
        let near = nearest(column, &names).map_or(String::new(), |near| format!(", did you mean '{near}'?"));
        let message =
            format!("{what} names column '{column}', which the table does not have{near}; it has {}", names.join(", "));
        Err(Error::project(&step.file, line, message))
    };
    if let Some((columns, line)) = &step.header.key {
        columns.iter().try_for_each(|column| known(column, "key", Some(*line)))?;
    }
    step.header.partition_by.iter().try_for_each(|column| known(column, "partition_by", None))?;
    for (condition, line) in &step.header.checks {
        session
            .condition(condition, schema)
            .map_err(|e| Error::project(&step.file, Some(*line), format!("check: {}", explain(&e))))?;
    }
    Ok(())
}

/// Tests key and checks. The first that does not hold is the error, with some of the rows at fault.
pub async fn test(session: &Session, step: &Step, table: Arc<dyn TableProvider>) -> Result<()> {
    let frame = session.context().read_table(table).map_err(|e| step.error(&e))?;
    if let Some((columns, line)) = &step.header.key {
        test_key(&frame, columns).await.map_err(|e| at_line(step, *line, e))?;
    }
    for (condition, line) in &step.header.checks {
        test_check(session, &frame, condition).await.map_err(|e| at_line(step, *line, e))?;
    }
    Ok(())
}

/// Why a promise does not hold, or could not be tested.
enum Fault {
    Broken(String),
    Failed(DataFusionError),
}

impl From<DataFusionError> for Fault {
    fn from(error: DataFusionError) -> Self {
        Self::Failed(error)
    }
}

fn at_line(step: &Step, line: usize, fault: Fault) -> Error {
    let message = match fault {
        Fault::Broken(message) => message,
        Fault::Failed(error) => explain(&error),
    };
    Error::project(&step.file, Some(line), message)
}

async fn test_key(frame: &DataFrame, columns: &[String]) -> Result<(), Fault> {
    let key: Vec<Expr> = columns.iter().map(ident).collect();
    let missing = key.iter().cloned().map(Expr::is_null).reduce(Expr::or);
    if let Some(missing) = missing {
        let rows = frame.clone().filter(missing)?;
        let number = rows.clone().count().await?;
        if number > 0 {
            let examples = examples(rows).await?;
            return Err(Fault::Broken(format!(
                "key ({}) is NULL in {number} rows, such as {examples}",
                columns.join(", ")
            )));
        }
    }
    let times = "number of rows";
    let groups = frame.clone().aggregate(key, vec![count(lit(1)).alias(times)])?;
    let repeated = groups.filter(ident(times).gt(lit(1)))?;
    let number = repeated.clone().count().await?;
    if number == 0 {
        return Ok(());
    }
    let examples = examples(repeated).await?;
    Err(Fault::Broken(format!(
        "key ({}) is not unique: {number} values repeat, such as {examples}",
        columns.join(", ")
    )))
}

async fn test_check(session: &Session, frame: &DataFrame, condition: &str) -> Result<(), Fault> {
    let holds = session.condition(condition, frame.schema())?;
    let broken = frame.clone().filter(holds.is_not_true())?;
    let total = broken.clone().aggregate(vec![], vec![count(lit(1))])?.collect().await?;
    let number = total.first().map_or(0, |batch| batch.column(0).as_primitive::<Int64Type>().value(0));
    if number == 0 {
        return Ok(());
    }
    let examples = examples(broken).await?;
    Err(Fault::Broken(format!("check ({condition}) does not hold in {number} rows, such as {examples}")))
}

async fn examples(rows: DataFrame) -> Result<String, DataFusionError> {
    let batches = rows.limit(0, Some(SHOWN))?.collect().await?;
    let shown: Vec<String> = batches.iter().map(row_texts).collect::<Result<Vec<_>, _>>()?.concat();
    Ok(shown.join(", "))
}

/// Each row as `{column: value, ..}`.
fn row_texts(batch: &RecordBatch) -> Result<Vec<String>, DataFusionError> {
    let options = FormatOptions::default().with_null("NULL");
    let columns: Vec<ArrayFormatter> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<_, _>>()?;
    let schema = batch.schema();
    let row = |at: usize| {
        let values = schema
            .fields()
            .iter()
            .zip(&columns)
            .map(|(field, column)| format!("{}: {}", field.name(), column.value(at)));
        format!("{{{}}}", values.collect::<Vec<_>>().join(", "))
    };
    Ok((0..batch.num_rows()).map(row).collect())
}
