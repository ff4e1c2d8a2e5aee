//! Which part of an operator's work is done where.
//!
//! The work of an operator is cut into shares, one for each partition of its result. Which shares a process does stands in
//! a small table that is the operator's first child: a cluster hands out the partitions of tables, and with them the
//! shares, as it does with files. On one machine all shares are there.

use std::sync::Arc;

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::cast::as_uint32_array;
use datafusion::common::{Result, internal_err};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, common};

/// The shares that are done here, of how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shares {
    /// Their numbers, one for each partition of the result that is made here.
    pub here: Vec<usize>,
    /// The number of all.
    pub of: usize,
}

impl Shares {
    /// Of each share, whether it is here.
    pub fn mask(&self) -> Vec<bool> {
        (0..self.of).map(|share| self.here.contains(&share)).collect()
    }
}

/// A table of one row a partition: a share, and how many there are.
pub fn table(of: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let fields = ["share", "of"].map(|name| Field::new(name, DataType::UInt32, false));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let number = |number: usize| Arc::new(UInt32Array::from(vec![u32::try_from(number).unwrap_or(u32::MAX)]));
    let partition = |share| {
        let row = RecordBatch::try_new(Arc::clone(&schema), vec![number(share), number(of)])?;
        Ok(vec![row])
    };
    let partitions: Vec<Vec<RecordBatch>> = (0..of).map(partition).collect::<Result<_>>()?;
    let source = MemorySourceConfig::try_new(&partitions, Arc::clone(&schema), None)?;
    Ok(DataSourceExec::from_data_source(source))
}

/// The shares that are left of a [`table`].
pub async fn read(table: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Result<Shares> {
    let mut shares = Shares { here: Vec::new(), of: 0 };
    for partition in 0..table.output_partitioning().partition_count() {
        for batch in common::collect(table.execute(partition, Arc::clone(context))?).await? {
            let (share, of) = (as_uint32_array(batch.column(0))?, as_uint32_array(batch.column(1))?);
            shares.here.extend(share.values().iter().map(|&share| share as usize));
            shares.of = of.values().first().map_or(shares.of, |&of| of as usize);
        }
    }
    match shares.here.len() == table.output_partitioning().partition_count() {
        true => Ok(shares),
        false => internal_err!("a partition without a share"),
    }
}
