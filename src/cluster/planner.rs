//! Plans for a cluster, on the scheduler.

use std::sync::Arc;

use async_trait::async_trait;
use ballista_core::extension::SessionConfigExt;
use datafusion::catalog::Session;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, plan_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{Expr, FetchType, LogicalPlan, SkipType, WindowFunctionDefinition, when};
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
        plan.apply_with_subqueries(|node| refuse(node).map(|()| TreeNodeRecursion::Continue))?;
        let plan = plan.transform_up_with_subqueries(shared).data()?;
        // The setting says of joins which tables every task gets whole; operators go by the same.
        let broadcast = session.config().ballista_config().broadcast_join_threshold_bytes();
        LakesidePlanner(Place::Cluster { broadcast }).create_physical_plan(&plan, session).await
    }
}

/// Fails where executors would be told something else than what was asked (datafusion-proto 55.2).
fn refuse(plan: &LogicalPlan) -> Result<()> {
    match plan {
        LogicalPlan::Window(window) => {
            let ignores_nulls = |expr: &Expr| match expr {
                Expr::WindowFunction(window) if window.params.null_treatment == Some(NullTreatment::IgnoreNulls) => {
                    matches!(window.fun, WindowFunctionDefinition::WindowUDF(_))
                }
                _ => false,
            };
            match window.window_expr.iter().any(|expr| expr.exists(|e| Ok(ignores_nulls(e))).unwrap_or(false)) {
                true => plan_err!("IGNORE NULLS cannot be sent to a cluster; leave NULLs out in a subquery before"),
                false => Ok(()),
            }
        }
        LogicalPlan::Limit(limit) => {
            let large = |count: FetchType| matches!(count, FetchType::Literal(Some(rows)) if rows > LARGEST_LIMIT);
            let skips = matches!(limit.get_skip_type()?, SkipType::Literal(rows) if rows > LARGEST_LIMIT);
            match skips || large(limit.get_fetch_type()?) {
                true => plan_err!("LIMIT and OFFSET cannot be above {LARGEST_LIMIT} on a cluster"),
                false => Ok(()),
            }
        }
        LogicalPlan::RecursiveQuery(_) => plan_err!("WITH RECURSIVE cannot run on a cluster"),
        _ => Ok(()),
    }
}

/// Limits are sent with 32 bits.
const LARGEST_LIMIT: usize = u32::MAX as usize;

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
