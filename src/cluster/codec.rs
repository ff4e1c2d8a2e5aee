//! Our nodes and tables in plans that go from one machine to another; everything else is left to Ballista's codecs.
//!
//! What is ours begins with [`OURS`], so that neither side takes the other's bytes for its own.

use std::io::Cursor;
use std::sync::Arc;

use ballista_core::serde::{BallistaLogicalExtensionCodec, BallistaPhysicalExtensionCodec};
use datafusion::arrow::compute::SortOptions;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::catalog::{MemTable, TableProvider};
use datafusion::common::{DataFusionError, Result, TableReference, internal_datafusion_err, internal_err, plan_err};
use datafusion::datasource::file_format::FileFormatFactory;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{AggregateUDF, Extension, LogicalPlan, ScalarUDF, WindowUDF};
use datafusion::physical_expr::{PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::logical_plan::LogicalExtensionCodec;
use datafusion_proto::physical_plan::{
    PhysicalExtensionCodec, PhysicalPlanDecodeContext, PhysicalProtoConverterExtension,
};
use datafusion_proto::protobuf::PhysicalExprNode;
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::operators::codec::decode;
use crate::operators::exec::OperatorExec;
use crate::operators::first_rows::FirstRowsExec;
use crate::operators::gather::GatherExec;
use crate::operators::node::OperatorNode;
use crate::operators::row_number::RowNumberExec;
use crate::operators::write::{Target, WriteExec, WriteNode};

/// What our bytes begin with. Ballista's are protobuf messages, none of which begins like this.
const OURS: &[u8] = b"\xffLKS";

/// The largest table in memory that is sent along with a plan.
pub const TABLE_BYTES: usize = 16 << 20;

/// One of our nodes, without its inputs.
#[derive(Debug, Serialize, Deserialize)]
enum Node {
    /// An operator of SQL: the name of its task, and its fields.
    Operator(String, Vec<u8>),
    /// The same over inputs that are divided between processes.
    Divided(String, Vec<u8>),
    Write(Target),
    Gather,
    /// The keys as expressions, and the column of numbers.
    RowNumber(Vec<Vec<u8>>, String, bool),
    /// The same, and between them what rows are ordered by: expressions, whether they fall and whether NULLs come first.
    FirstRows(Vec<Vec<u8>>, Vec<(Vec<u8>, bool, bool)>, String, bool),
}

impl Node {
    fn write(&self, buf: &mut Vec<u8>) -> Result<()> {
        buf.extend_from_slice(OURS);
        buf.extend(postcard::to_stdvec(self).map_err(external)?);
        Ok(())
    }

    /// None where the bytes are not ours.
    fn read(buf: &[u8]) -> Result<Option<Self>> {
        buf.strip_prefix(OURS).map(|rest| postcard::from_bytes(rest).map_err(external)).transpose()
    }
}

fn external(error: impl std::error::Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

/// Logical plans: operators, writing, and tables in memory.
#[derive(Debug, Default)]
pub struct LogicalCodec {
    ballista: BallistaLogicalExtensionCodec,
}

impl LogicalExtensionCodec for LogicalCodec {
    fn try_decode(&self, buf: &[u8], inputs: &[LogicalPlan], context: &TaskContext) -> Result<Extension> {
        let plan = match Node::read(buf)? {
            Some(Node::Operator(name, task)) => OperatorNode::plan(decode(&name, &task)?, inputs.to_vec())?,
            Some(Node::Write(target)) => WriteNode::plan(one(inputs)?.clone(), target)?,
            Some(Node::RowNumber(..) | Node::FirstRows(..) | Node::Gather | Node::Divided(..)) => {
                return internal_err!("a physical node in a logical plan");
            }
            None => return self.ballista.try_decode(buf, inputs, context),
        };
        match plan {
            LogicalPlan::Extension(extension) => Ok(extension),
            other => internal_err!("{} is not an extension", other.display()),
        }
    }

    fn try_encode(&self, node: &Extension, buf: &mut Vec<u8>) -> Result<()> {
        let any = node.node.as_any();
        if let Some(operator) = any.downcast_ref::<OperatorNode>() {
            let task = operator.task();
            return Node::Operator(task.name().to_owned(), task.encode()?).write(buf);
        }
        match any.downcast_ref::<WriteNode>() {
            Some(write) => Node::Write(write.target().clone()).write(buf),
            None => self.ballista.try_encode(node, buf),
        }
    }

    fn try_decode_table_provider(
        &self,
        buf: &[u8],
        table: &TableReference,
        schema: SchemaRef,
        context: &TaskContext,
    ) -> Result<Arc<dyn TableProvider>> {
        let Some(rows) = buf.strip_prefix(OURS) else {
            return self.ballista.try_decode_table_provider(buf, table, schema, context);
        };
        let batches = StreamReader::try_new(Cursor::new(rows), None)?.collect::<Result<_, _>>()?;
        Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
    }

    fn try_encode_table_provider(
        &self,
        table: &TableReference,
        provider: Arc<dyn TableProvider>,
        buf: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(memory) = provider.downcast_ref::<MemTable>() else {
            return self.ballista.try_encode_table_provider(table, provider, buf);
        };
        buf.extend_from_slice(OURS);
        let mut writer = StreamWriter::try_new(&mut *buf, &memory.schema())?;
        for partition in &memory.batches {
            let batches =
                partition.try_read().map_err(|_| internal_datafusion_err!("table {table} is being written"))?;
            batches.iter().try_for_each(|batch| writer.write(batch))?;
        }
        writer.finish()?;
        drop(writer);
        match buf.len() > TABLE_BYTES {
            true => plan_err!(
                "table '{table}' is in this process's memory and has {} MB; a cluster is sent tables of {} MB at the most: write it to files with COPY, or make it a step of a project",
                buf.len() >> 20,
                TABLE_BYTES >> 20
            ),
            false => Ok(()),
        }
    }

    fn try_decode_file_format(&self, buf: &[u8], context: &TaskContext) -> Result<Arc<dyn FileFormatFactory>> {
        self.ballista.try_decode_file_format(buf, context)
    }

    fn try_encode_file_format(&self, buf: &mut Vec<u8>, format: Arc<dyn FileFormatFactory>) -> Result<()> {
        self.ballista.try_encode_file_format(buf, format)
    }

    fn try_decode_udf(&self, name: &str, buf: &[u8]) -> Result<Arc<ScalarUDF>> {
        self.ballista.try_decode_udf(name, buf)
    }

    fn try_encode_udf(&self, function: &ScalarUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.ballista.try_encode_udf(function, buf)
    }

    fn try_decode_udaf(&self, name: &str, buf: &[u8]) -> Result<Arc<AggregateUDF>> {
        self.ballista.try_decode_udaf(name, buf)
    }

    fn try_encode_udaf(&self, function: &AggregateUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.ballista.try_encode_udaf(function, buf)
    }

    fn try_decode_udwf(&self, name: &str, buf: &[u8]) -> Result<Arc<WindowUDF>> {
        self.ballista.try_decode_udwf(name, buf)
    }

    fn try_encode_udwf(&self, function: &WindowUDF, buf: &mut Vec<u8>) -> Result<()> {
        self.ballista.try_encode_udwf(function, buf)
    }
}

/// Physical plans: operators, writing, the numbering of rows and the choice of first rows.
#[derive(Debug, Default)]
pub struct PhysicalCodec {
    ballista: BallistaPhysicalExtensionCodec,
}

impl PhysicalExtensionCodec for PhysicalCodec {
    fn try_decode(
        &self,
        buf: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let decoding = PhysicalPlanDecodeContext::new(context, self);
        let expr = |bytes: &Vec<u8>, input: &Arc<dyn ExecutionPlan>| {
            let node = PhysicalExprNode::decode(bytes.as_slice()).map_err(external)?;
            converter.proto_to_physical_expr(&node, &input.schema(), &decoding)
        };
        Ok(match Node::read(buf)? {
            Some(Node::Operator(name, task)) => {
                Arc::new(OperatorExec::over(decode(&name, &task)?, inputs.to_vec(), false))
            }
            Some(Node::Divided(name, task)) => {
                Arc::new(OperatorExec::over(decode(&name, &task)?, inputs.to_vec(), true))
            }
            Some(Node::Gather) => Arc::new(GatherExec::new(Arc::clone(one(inputs)?))),
            Some(Node::Write(target)) => Arc::new(WriteExec::try_new(Arc::clone(one(inputs)?), target)?),
            Some(Node::RowNumber(keys, name, nullable)) => {
                let input = Arc::clone(one(inputs)?);
                let keys = keys.iter().map(|key| expr(key, &input)).collect::<Result<_>>()?;
                let schema = numbered(&input, name, nullable);
                Arc::new(RowNumberExec::over(input, keys, schema, None))
            }
            Some(Node::FirstRows(keys, order, name, nullable)) => {
                let input = Arc::clone(one(inputs)?);
                let keys = keys.iter().map(|key| expr(key, &input)).collect::<Result<_>>()?;
                let by = |(by, descending, nulls_first): &(Vec<u8>, bool, bool)| {
                    let options = SortOptions { descending: *descending, nulls_first: *nulls_first };
                    Ok(PhysicalSortExpr::new(expr(by, &input)?, options))
                };
                let order = order.iter().map(by).collect::<Result<_>>()?;
                let schema = numbered(&input, name, nullable);
                Arc::new(FirstRowsExec::over(input, keys, order, schema))
            }
            None => return self.ballista.try_decode(buf, inputs, context, converter),
        })
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        buf: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        if let Some(operator) = node.downcast_ref::<OperatorExec>() {
            let task = operator.task();
            let node = if operator.divided() { Node::Divided } else { Node::Operator };
            return node(task.name().to_owned(), task.encode()?).write(buf);
        }
        if let Some(write) = node.downcast_ref::<WriteExec>() {
            return Node::Write(write.target().clone()).write(buf);
        }
        if node.is::<GatherExec>() {
            return Node::Gather.write(buf);
        }
        let expr = |expr: &Arc<dyn PhysicalExpr>| Ok(converter.physical_expr_to_proto(expr, self)?.encode_to_vec());
        let schema = node.schema();
        let number = || schema.fields().last().map_or((String::new(), false), |n| (n.name().clone(), n.is_nullable()));
        if let Some(rows) = node.downcast_ref::<RowNumberExec>() {
            let keys = rows.keys().iter().map(expr).collect::<Result<_>>()?;
            let (name, nullable) = number();
            return Node::RowNumber(keys, name, nullable).write(buf);
        }
        if let Some(rows) = node.downcast_ref::<FirstRowsExec>() {
            let keys = rows.keys().iter().map(expr).collect::<Result<_>>()?;
            let by = |by: &PhysicalSortExpr| Ok((expr(&by.expr)?, by.options.descending, by.options.nulls_first));
            let order = rows.order().iter().map(by).collect::<Result<_>>()?;
            let (name, nullable) = number();
            return Node::FirstRows(keys, order, name, nullable).write(buf);
        }
        self.ballista.try_encode(node, buf, converter)
    }
}

/// The columns of a plan and the number of each row.
fn numbered(input: &Arc<dyn ExecutionPlan>, name: String, nullable: bool) -> SchemaRef {
    let number = Arc::new(Field::new(name, DataType::UInt64, nullable));
    Arc::new(Schema::new(input.schema().fields().iter().cloned().chain([number]).collect::<Vec<_>>()))
}

fn one<T>(inputs: &[T]) -> Result<&T> {
    match inputs {
        [input] => Ok(input),
        other => internal_err!("{} inputs instead of one", other.len()),
    }
}
