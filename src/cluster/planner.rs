//! Plans for a cluster, on the scheduler.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{Result, plan_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{Expr, LogicalPlan, when};
use datafusion::physical_plan::ExecutionPlan;

use crate::operators::node::OperatorNode;
use crate::operators::planner::{LakesidePlanner, Place};

/// [`LakesidePlanner`], with what gets lost on the way to executors said in another way before.
#[derive(Debug)]
pub struct ClusterPlanner;

#[async_trait]
impl QueryPlanner for ClusterPlanner {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = plan.clone().transform_with_subqueries(without_window_filters).data()?;
        let plan = plan.transform_up_with_subqueries(shared).data()?;
        LakesidePlanner(Place::Cluster).create_physical_plan(&plan, session).await
    }
}

/// An operator whose search can be shared, as one that is.
fn shared(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Extension(extension) = &plan else {
        return Ok(Transformed::no(plan));
    };
    let operator = extension.node.as_any().downcast_ref::<OperatorNode>();
    Ok(match operator.map(OperatorNode::shared).transpose()?.flatten() {
        Some(shared) => Transformed::yes(shared),
        None => Transformed::no(plan),
    })
}

/// The aggregates that leave NULLs out, so that a filtered value may as well be one.
const SKIP_NULLS: [&str; 17] = [
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "stddev",
    "sum",
    "var",
    "var_pop",
];

/// `f(x) FILTER (WHERE c) OVER w` as `f(CASE WHEN c THEN x END) OVER w`: the protobuf form of physical window expressions
/// (datafusion-proto 55.2) has no field for the filter, and leaves it out without a word.
fn without_window_filters(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(plan, LogicalPlan::Window(_)) {
        return Ok(Transformed::no(plan));
    }
    plan.map_expressions(|expr| {
        let Expr::WindowFunction(window) = &expr else {
            return Ok(Transformed::no(expr));
        };
        let WindowFunction { fun, params } = window.as_ref();
        let Some(filter) = &params.filter else {
            return Ok(Transformed::no(expr));
        };
        if !SKIP_NULLS.contains(&fun.name()) {
            return plan_err!(
                "{} with FILTER and OVER cannot run on a cluster: filter in a subquery before",
                fun.name()
            );
        }
        let name = expr.schema_name().to_string();
        let chosen = |value: &Expr| when(filter.as_ref().clone(), value.clone()).end();
        let args = params.args.iter().map(chosen).collect::<Result<_>>()?;
        let params = WindowFunctionParams { args, filter: None, ..params.clone() };
        let window = WindowFunction { fun: fun.clone(), params };
        Ok(Transformed::yes(Expr::WindowFunction(Box::new(window)).alias(name)))
    })
}
