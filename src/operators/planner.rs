//! From `FROM f(..)` to a logical node, and from that to a physical one, for all operators.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics, plan_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{DocSection, Documentation, LogicalPlan, LogicalPlanBuilder, UserDefinedLogicalNode};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, Partitioning};
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::sql::sqlparser::ast::TableFactor;

use super::arguments::{Arguments, nearest};
use super::exec::OperatorExec;
use super::gather::{GatherExec, only_reads};
use super::node::OperatorNode;
use super::write::{WriteExec, WriteNode};

/// The part of the reference where operators stand.
pub const OPERATORS: DocSection = DocSection { include: true, label: "Operators", description: None };

/// One operator: its name, its documentation, and how its arguments become a plan.
pub trait Operator: Debug + Send + Sync {
    /// The name in SQL.
    fn name(&self) -> &'static str;

    /// The names of the arguments that are relations. A bare name given for one of them is a table.
    fn relation_arguments(&self) -> &'static [&'static str];

    /// What the reference says about it.
    fn documentation(&self) -> Documentation;

    /// Reads the arguments and plans the inputs: into an [`OperatorNode`], or into what SQL could say as well.
    fn plan(&self, arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan>;
}

/// Finds the operator that a table function names.
pub fn operator(name: &str) -> Option<&'static dyn Operator> {
    super::ALL.into_iter().find(|operator| operator.name().eq_ignore_ascii_case(name))
}

/// Plans calls of operators in FROM.
#[derive(Debug)]
pub struct OperatorRelations;

impl RelationPlanner for OperatorRelations {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let TableFactor::Table { name, args: Some(args), alias, .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        let name = name.to_string();
        let Some(operator) = operator(&name) else {
            let names = super::ALL.map(|operator| operator.name());
            return match nearest(&name, &names) {
                Some(near) => plan_err!("there is no '{name}' to call in FROM, did you mean '{near}'?"),
                None => Ok(RelationPlanning::Original(Box::new(relation))),
            };
        };
        let known: Vec<String> =
            operator.documentation().arguments.into_iter().flatten().map(|(argument, _)| argument).collect();
        let arguments = Arguments::parse(operator.name(), &known, args.args.clone(), context)?;
        let plan = operator.plan(arguments, context)?;
        // As other functions in FROM, a call without an alias goes by its own name.
        let plan = LogicalPlanBuilder::from(plan).alias(operator.name())?.build()?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

/// Where a plan is going to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this process.
    Here,
    /// On the executors of a cluster.
    Cluster {
        /// The largest table that every task may get whole, in bytes.
        broadcast: usize,
    },
}

/// Turns operators' logical nodes into physical ones.
#[derive(Debug)]
struct OperatorPlanner(Place);

#[async_trait]
impl ExtensionPlanner for OperatorPlanner {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        physical_inputs: &[Arc<dyn ExecutionPlan>],
        session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let partitions = session.config().target_partitions();
        if let Some(write) = node.as_any().downcast_ref::<WriteNode>() {
            return self.write(write, &physical_inputs[0], partitions).map(Some);
        }
        let Some(node) = node.as_any().downcast_ref::<OperatorNode>() else {
            return Ok(None);
        };
        let task = node.task();
        let mut inputs = physical_inputs.to_vec();
        let mut divided = false;
        if let Place::Cluster { broadcast } = self.0 {
            let mut keys = task.divisible();
            keys.resize(inputs.len(), None);
            let (mut large, mut dividable) = (false, false);
            for (input, _) in inputs.iter().zip(&keys).filter(|(_, key)| key.is_some()) {
                large |= is_above(input, broadcast)?;
                dividable |= is_dividable(input, session.config().batch_size())?;
            }
            divided = large && dividable;
            for (input, key) in inputs.iter_mut().zip(keys) {
                if only_reads(input) && !(divided && key.is_some()) {
                    *input = Arc::new(GatherExec::new(Arc::clone(input)));
                }
            }
        }
        Ok(Some(Arc::new(OperatorExec::try_new(task, &inputs, partitions, divided)?)))
    }
}

impl OperatorPlanner {
    /// A union has a partition for each of its parts; each would write a file of its own, so they are brought together.
    /// Not on a cluster, whose tasks take some of the partitions each, and where rows change places between stages only.
    fn write(
        &self,
        write: &WriteNode,
        input: &Arc<dyn ExecutionPlan>,
        partitions: usize,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut input = Arc::clone(input);
        if self.0 == Place::Here && input.output_partitioning().partition_count() > partitions {
            input = Arc::new(RepartitionExec::try_new(input, Partitioning::RoundRobinBatch(partitions))?);
        }
        Ok(Arc::new(WriteExec::try_new(input, write.target().clone())?))
    }
}

/// Whether a plan's result has more bytes than this, as far as that is known.
fn is_above(plan: &Arc<dyn ExecutionPlan>, bytes: usize) -> Result<bool> {
    Ok(statistics(plan)?.total_byte_size.get_value().is_none_or(|&size| size > bytes))
}

/// Whether DataFusion, asked to divide inputs by a key, surely divides all of them because of this one. What is known to be no
/// more than a batch of rows it leaves whole where that comes as one partition, which is decided later.
fn is_dividable(plan: &Arc<dyn ExecutionPlan>, batch: usize) -> Result<bool> {
    Ok(!matches!(statistics(plan)?.num_rows, Precision::Exact(rows) if rows <= batch))
}

fn statistics(plan: &Arc<dyn ExecutionPlan>) -> Result<Arc<Statistics>> {
    StatisticsContext::new().compute(plan.as_ref(), &StatisticsArgs::new())
}

/// DataFusion's planner, with operators.
#[derive(Debug)]
pub struct LakesidePlanner(pub Place);

#[async_trait]
impl QueryPlanner for LakesidePlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(OperatorPlanner(self.0))]);
        planner.create_physical_plan(plan, session).await
    }
}
