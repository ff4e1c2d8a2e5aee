//! The SQL vocabulary that DataFusion lacks, beside its own: one function a file.

pub mod aggregate;
pub mod scalar;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, Documentation, ScalarUDF};
use datafusion::prelude::SessionContext;

/// Every scalar function.
pub fn scalars() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::from(scalar::array_jaccard::ArrayJaccard::default())),
        Arc::new(ScalarUDF::from(scalar::array_pearson::ArrayPearson::default())),
        Arc::new(ScalarUDF::from(scalar::hash_uniform::HashUniform::default())),
        Arc::new(ScalarUDF::from(scalar::normalize_text::NormalizeText::default())),
        Arc::new(ScalarUDF::from(scalar::one_hot::OneHot::default())),
        Arc::new(ScalarUDF::from(scalar::scale::Scale::default())),
        Arc::new(ScalarUDF::from(scalar::tokenize::Tokenize::default())),
        Arc::new(ScalarUDF::from(scalar::width_bucket::WidthBucket::default())),
    ]
}

/// Every aggregate function.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    vec![
        Arc::new(AggregateUDF::from(aggregate::quantiles::Quantiles::default())),
        Arc::new(AggregateUDF::from(aggregate::robust_bounds::RobustBounds::default())),
        Arc::new(AggregateUDF::from(aggregate::scaling::Scaling::default())),
        Arc::new(AggregateUDF::from(aggregate::vector_mean::VectorMean::default())),
    ]
}

/// Adds all functions to a session.
pub fn register(context: &SessionContext) {
    scalars().into_iter().for_each(|function| context.register_udf(ScalarUDF::clone(&function)));
    aggregates().into_iter().for_each(|function| context.register_udaf(AggregateUDF::clone(&function)));
}

/// The name and documentation of each function that has one, by section.
pub fn documentation() -> Vec<(String, Documentation)> {
    let scalars = scalars().into_iter().map(|function| (function.name().to_owned(), function.documentation().cloned()));
    let aggregates =
        aggregates().into_iter().map(|function| (function.name().to_owned(), function.documentation().cloned()));
    let mut documented: Vec<(String, Documentation)> =
        scalars.chain(aggregates).filter_map(|(name, documentation)| Some((name, documentation?))).collect();
    documented.sort_by(|a, b| (a.1.doc_section.label, &a.0).cmp(&(b.1.doc_section.label, &b.0)));
    documented
}
