//! `neighbors`: the k most similar entities of each entity.

mod build;
mod docs;
mod search;

use std::sync::Arc;

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::NeighborsTask;
use super::arguments::Arguments;
use super::collect::Columns;
use super::input::Input;
use super::node::OperatorNode;
use super::planner::Operator;
use crate::kernels::metric::{Exponents, Metric, Settings};
use crate::kernels::weighting::Weighting;

/// `FROM neighbors(input, ..)`
#[derive(Debug)]
pub struct NeighborsOperator;

impl Operator for NeighborsOperator {
    fn name(&self) -> &'static str {
        "neighbors"
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["input"]
    }

    fn documentation(&self) -> Documentation {
        docs::documentation()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(relation) = arguments.relation("input", context)? else {
            return plan_err!(
                "neighbors: argument 'input' is missing; give a table or (SELECT entity, feature, weight ..)"
            );
        };
        let input = Input::new("neighbors", "input", relation);
        let chosen = Chosen {
            entity: arguments.string("entity", context)?,
            feature: arguments.string("feature", context)?,
            weight: arguments.string("weight", context)?,
        };
        let settings = settings(&mut arguments, context)?;
        let skip_nulls = on_null(&mut arguments, context)?;
        arguments.finish()?;
        let (entity, feature, weight) = chosen.columns(&input)?;
        // Set measures do not look at weights, so they are not even read.
        let weight = weight.filter(|_| !settings.metric.ignores_weights());
        plan(input, entity, feature, weight, settings, skip_nulls)
    }
}

fn plan(
    mut input: Input,
    entity: usize,
    feature: usize,
    weight: Option<usize>,
    settings: Settings,
    skip_nulls: bool,
) -> Result<LogicalPlan> {
    let columns = Columns {
        operator: "neighbors".into(),
        ids: vec![input.name(entity), input.name(feature)],
        types: vec![input.id_type(entity), input.id_type(feature)],
        weight: weight.map(|at| input.name(at)),
        skip_nulls,
    };
    if ["neighbor_id", "score", "rank"].contains(&columns.ids[0].as_str()) {
        return plan_err!(
            "neighbors: the entity's column cannot be called '{}', as that is a column of the result; rename it",
            columns.ids[0]
        );
    }
    let id_type = input.data_type(entity);
    input.choose_id(entity, &columns.types[0])?;
    input.choose_id(feature, &columns.types[1])?;
    if let Some(weight) = weight {
        input.choose_weight(weight)?;
    }
    let task = NeighborsTask::new(columns, id_type, settings);
    OperatorNode::plan(Arc::new(task), vec![input.into_plan()?])
}

/// Reads `on_null`, which several operators share: whether rows with NULL are left out.
pub(super) fn on_null(arguments: &mut Arguments, context: &mut dyn RelationPlannerContext) -> Result<bool> {
    Ok(arguments.choice("on_null", &[("error", false), ("skip", true)], context)?.unwrap_or(false))
}

fn settings(arguments: &mut Arguments, context: &mut dyn RelationPlannerContext) -> Result<Settings> {
    let metric = arguments.choice("metric", &Metric::NAMES, context)?.unwrap_or(Metric::Cosine);
    let k = arguments.integer("k", 1..=i64::from(i32::MAX), context)?.unwrap_or(50) as usize;
    let shrink = arguments.number("shrink", 0.0..=f64::INFINITY, context)?;
    let threshold = arguments.number("threshold", f64::NEG_INFINITY..=f64::INFINITY, context)?.unwrap_or(0.0) as f32;
    let min_overlap = arguments.integer("min_overlap", 1..=i64::from(u32::MAX), context)?.unwrap_or(1) as u32;
    let max_features = arguments.integer("max_features", 1..=i64::from(u32::MAX), context)?.map(|most| most as usize);
    let weighting = arguments.choice("weighting", &Weighting::NAMES, context)?;
    let alpha = arguments.number("alpha", 0.0..=f64::INFINITY, context)?;
    let beta = arguments.number("beta", 0.0..=f64::INFINITY, context)?;
    let walk = exponents(arguments, metric, context)?;
    let name = metric.name();
    let with_alpha = [Metric::Tversky, Metric::AsymmetricCosine, Metric::P3alpha, Metric::Rp3beta];
    if alpha.is_some() && !with_alpha.contains(&metric) {
        return plan_err!(
            "neighbors: argument 'alpha' belongs to the metrics tversky, asymmetric_cosine, p3alpha and rp3beta, not to {name}"
        );
    }
    if beta.is_some() && !matches!(metric, Metric::Tversky | Metric::Rp3beta) {
        return plan_err!("neighbors: argument 'beta' belongs to the metrics tversky and rp3beta, not to {name}");
    }
    if let (Metric::AsymmetricCosine, Some(alpha)) = (metric, alpha.filter(|alpha| *alpha > 1.0)) {
        return plan_err!("neighbors: argument 'alpha' of asymmetric_cosine must be a number from 0 to 1, not {alpha}");
    }
    if shrink.is_some() && (metric == Metric::Overlap || metric.is_walk()) {
        let divides = if metric.is_walk() { "divides by degrees alone" } else { "divides by nothing" };
        return plan_err!("neighbors: argument 'shrink' has no meaning for the metric {name}, which {divides}");
    }
    if weighting.is_some() && metric.ignores_weights() {
        return plan_err!(
            "neighbors: argument 'weighting' has no meaning for the metric {name}, which ignores weights"
        );
    }
    Ok(Settings {
        metric,
        k,
        shrink: shrink.unwrap_or(0.0),
        threshold,
        min_overlap,
        max_features,
        weighting: weighting.unwrap_or(Weighting::None),
        alpha: alpha.unwrap_or(if metric == Metric::AsymmetricCosine { 0.5 } else { 1.0 }),
        // With 1, as for tversky, rp3beta would hardly ever find what is popular.
        beta: beta.unwrap_or(if metric == Metric::Rp3beta { 0.3 } else { 1.0 }),
        walk,
    })
}

fn exponents(arguments: &mut Arguments, metric: Metric, context: &mut dyn RelationPlannerContext) -> Result<Exponents> {
    let mut exponents = Exponents::default();
    for (name, exponent) in [("a", &mut exponents.a), ("b", &mut exponents.b), ("c", &mut exponents.c)] {
        if let Some(given) = arguments.number(name, f64::NEG_INFINITY..=f64::INFINITY, context)? {
            if metric != Metric::Walk {
                let metric = metric.name();
                return plan_err!("neighbors: argument '{name}' belongs to the metric walk, not to {metric}");
            }
            *exponent = given;
        }
    }
    Ok(exponents)
}

/// The columns that the arguments name.
struct Chosen {
    entity: Option<String>,
    feature: Option<String>,
    weight: Option<String>,
}

impl Chosen {
    /// Where entity, feature and weight stand: by name where one is given, else the columns that are left, in order.
    ///
    /// A weight that is not named is the third column of three; in other inputs a column called `weight`; else 1.
    fn columns(&self, input: &Input) -> Result<(usize, usize, Option<usize>)> {
        let named =
            |argument: &str, name: &Option<String>| name.as_ref().map(|name| input.named(argument, name)).transpose();
        let (entity, feature) = (named("entity", &self.entity)?, named("feature", &self.feature)?);
        let weight = named("weight", &self.weight)?.or_else(|| {
            input.find("weight").filter(|at| {
                // By position alone, the name of a column says nothing.
                (entity.is_some() || feature.is_some()) && ![entity, feature].contains(&Some(*at))
            })
        });
        let taken = [entity, feature, weight];
        let mut left = (0..input.width()).filter(|at| !taken.contains(&Some(*at)));
        if (entity.is_none() || feature.is_none()) && input.width() > 3 {
            return plan_err!(
                "neighbors: the input has {} columns ({}); name the ones to use with entity =>, feature => and weight =>, or select two or three",
                input.width(),
                input.names().join(", ")
            );
        }
        let mut place = |named: Option<usize>, position: usize, what: &str| match named.or_else(|| left.next()) {
            Some(at) => Ok(at),
            None => input.at(input.width().max(position), what),
        };
        let (entity, feature) = (place(entity, 0, "entity")?, place(feature, 1, "feature")?);
        if entity == feature {
            return plan_err!("neighbors: entity and feature are the same column '{}'", input.name(entity));
        }
        let by_position = self.entity.is_none() && self.feature.is_none();
        let third = left.next().filter(|at| input.width() == 3 && (by_position || input.is_number(*at)));
        Ok((entity, feature, weight.or(third)))
    }
}
