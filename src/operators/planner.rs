//! From `FROM f(..)` to a logical node, and from that to a physical one, for all operators.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::planner::{PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning};
use datafusion::logical_expr::{DocSection, Documentation, Extension, LogicalPlan, UserDefinedLogicalNode};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};
use datafusion::sql::sqlparser::ast::TableFactor;

use super::arguments::Arguments;
use super::exec::OperatorExec;
use super::node::OperatorNode;

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

    /// Reads the arguments and plans the inputs.
    fn plan(&self, arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<OperatorNode>;
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
        match relation {
            TableFactor::Table { name, alias, args: Some(args), .. } if operator(&name.to_string()).is_some() => {
                let operator = operator(&name.to_string()).expect("the guard found it");
                let arguments = Arguments::parse(operator.name(), args.args, context)?;
                let node = operator.plan(arguments, context)?;
                let plan = LogicalPlan::Extension(Extension { node: Arc::new(node) });
                Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias))))
            }
            other => Ok(RelationPlanning::Original(Box::new(other))),
        }
    }
}

/// Turns operators' logical nodes into physical ones.
#[derive(Debug)]
pub struct OperatorPlanner;

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
        let Some(node) = node.as_any().downcast_ref::<OperatorNode>() else {
            return Ok(None);
        };
        let partitions = session.config().target_partitions();
        Ok(Some(Arc::new(OperatorExec::new(node.task(), physical_inputs.to_vec(), partitions))))
    }
}

/// DataFusion's planner, with operators.
#[derive(Debug)]
pub struct LakesidePlanner;

#[async_trait]
impl QueryPlanner for LakesidePlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(OperatorPlanner)]);
        planner.create_physical_plan(plan, session).await
    }
}
