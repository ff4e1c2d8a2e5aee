//! The logical node of writing.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use datafusion::common::{DFSchema, DFSchemaRef, Result};
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};

use super::{Target, manifest_schema};

/// Writes the rows of its input to files; its rows are the files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WriteNode {
    input: LogicalPlan,
    target: Target,
    schema: DFSchemaRef,
}

impl WriteNode {
    /// The plan of writing `input` to `target`.
    pub fn plan(input: LogicalPlan, target: Target) -> Result<LogicalPlan> {
        let schema = Arc::new(DFSchema::try_from(manifest_schema())?);
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(Self { input, target, schema }) }))
    }

    /// Where the files go.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

impl PartialOrd for WriteNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (&self.input, &self.target).partial_cmp(&(&other.input, &other.target))
    }
}

impl UserDefinedLogicalNodeCore for WriteNode {
    fn name(&self) -> &str {
        "Write"
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        vec![&self.input]
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Write: {}", self.target)
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, mut inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { input: inputs.swap_remove(0), ..self.clone() })
    }
}
