//! `factorize`: vectors of users and items whose products tell preferences.

mod build;
mod docs;

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::FactorizeTask;
use self::build::Method;
use super::arguments::Arguments;
use super::input::Input;
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::Operator;
use crate::kernels::als::{self, Feedback, Solver};
use crate::kernels::bpr;
use crate::kernels::svd;

/// `FROM factorize(interactions, ..)`
#[derive(Debug)]
pub struct FactorizeOperator;

impl Operator for FactorizeOperator {
    fn name(&self) -> &'static str {
        "factorize"
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["interactions"]
    }

    fn documentation(&self) -> Documentation {
        docs::documentation()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(interactions) = arguments.relation("interactions", context)? else {
            return plan_err!(
                "factorize: argument 'interactions' is missing; give a table or (SELECT user_id, item_id, weight ..)"
            );
        };
        let method = method(&mut arguments, context)?;
        let skip_nulls = on_null(&mut arguments, context)?;
        arguments.finish()?;
        let input = Input::new("factorize", "interactions", interactions);
        if method.needs_ratings() && input.interactions()?.2.is_none() {
            return plan_err!("{}", input.wants("a third column of numbers, the rating, with implicit => false"));
        }
        let (columns, plan) = input.into_interactions(skip_nulls)?;
        let id_type = common_type(&columns.types[0], &columns.types[1]);
        OperatorNode::plan(Arc::new(FactorizeTask::new(columns, id_type, method)), vec![plan])
    }
}

/// The methods, and the arguments that not all of them have.
const METHODS: [(&str, &[&str]); 3] = [
    ("als", &["implicit", "regularization", "alpha", "solver"]),
    ("svd", &["a", "b", "power"]),
    ("bpr", &["regularization", "learning_rate"]),
];

fn method(arguments: &mut Arguments, context: &mut dyn RelationPlannerContext) -> Result<Method> {
    let methods = METHODS.map(|(name, _)| (name, name));
    let chosen = arguments.choice("method", &methods, context)?.unwrap_or("als");
    let own = METHODS.iter().find(|(name, _)| *name == chosen).map_or(&[][..], |(_, own)| own);
    for (method, arguments_of_it) in METHODS {
        if let Some(other) = arguments_of_it.iter().find(|name| arguments.has(name) && !own.contains(name)) {
            return plan_err!("factorize: argument '{other}' belongs to the method {method}");
        }
    }
    let factors = arguments.integer("factors", 1..=4096, context)?.unwrap_or(64) as usize;
    let iterations = arguments.integer("iterations", 1..=100_000, context)?.map(|iterations| iterations as usize);
    let seed = arguments.integer("seed", i64::MIN..=i64::MAX, context)?.unwrap_or(0) as u64;
    if chosen == "bpr" {
        let mut number = |name, usual: f64| {
            let given = arguments.number(name, 0.0..=f64::INFINITY, context)?;
            Ok::<f32, DataFusionError>(given.unwrap_or(usual) as f32)
        };
        let (learning_rate, regularization) = (number("learning_rate", 0.1)?, number("regularization", 0.01)?);
        let iterations = iterations.unwrap_or(50);
        return Ok(Method::Bpr(bpr::Settings { factors, iterations, learning_rate, regularization, seed }));
    }
    if chosen == "svd" {
        let mut exponent = |name, usual: f32| {
            let given = arguments.number(name, f64::NEG_INFINITY..=f64::INFINITY, context)?;
            Ok::<f32, DataFusionError>(given.map_or(usual, |given| given as f32))
        };
        let (a, b, power) = (exponent("a", 0.5)?, exponent("b", 0.5)?, exponent("power", 1.0)?);
        return Ok(Method::Svd(svd::Settings { factors, iterations: iterations.unwrap_or(5), a, b, power, seed }));
    }
    let (feedback, regularization) = feedback("factorize", arguments, context)?;
    Ok(Method::Als(als::Settings {
        factors,
        iterations: iterations.unwrap_or(15),
        regularization,
        feedback,
        solver: arguments.choice("solver", &Solver::NAMES, context)?.unwrap_or(Solver::ConjugateGradients),
        seed,
    }))
}

/// The type of a column that has the ids of both sides.
fn common_type(users: &DataType, items: &DataType) -> DataType {
    let fits = |ids: &DataType| ids.is_integer() && *ids != DataType::UInt64;
    if users == items {
        users.clone()
    } else if fits(users) && fits(items) {
        DataType::Int64
    } else {
        DataType::Utf8
    }
}

/// What weights mean and what large vectors cost, which whoever works with vectors of als must say alike.
pub(super) fn feedback(
    operator: &str,
    arguments: &mut Arguments,
    context: &mut dyn RelationPlannerContext,
) -> Result<(Feedback, f32)> {
    let implicit = arguments.boolean("implicit", context)?.unwrap_or(true);
    let alpha = arguments.number("alpha", 0.0..=f64::INFINITY, context)?;
    let feedback = match (implicit, alpha) {
        (true, alpha) => Feedback::Implicit { alpha: alpha.unwrap_or(1.0) as f32 },
        (false, None) => Feedback::Explicit,
        (false, Some(_)) => {
            return plan_err!("{operator}: argument 'alpha' belongs to implicit feedback; ratings have no confidence");
        }
    };
    match arguments.number("regularization", 0.0..=f64::INFINITY, context)?.unwrap_or(0.05) {
        0.0 => plan_err!("{operator}: argument 'regularization' must be above 0; without it vectors grow without end"),
        regularization => Ok((feedback, regularization as f32)),
    }
}
