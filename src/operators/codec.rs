//! Tasks as bytes, for other machines.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result, internal_err};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::node::Task;
use super::{
    diversify, explain_pair, factorize, fold_in, linear, nearest, neighbors, predict, ranking_metrics, recommend,
};

/// How a task is read from bytes.
type Decode = fn(&[u8]) -> Result<Arc<dyn Task>>;

/// Every task by its name.
const TASKS: [(&str, Decode); 11] = [
    ("Neighbors", read::<neighbors::NeighborsTask>),
    ("Ease", read::<linear::LinearTask>),
    ("Slim", read::<linear::LinearTask>),
    ("Recommend", read::<recommend::RecommendTask>),
    ("Factorize", read::<factorize::FactorizeTask>),
    ("Nearest", read::<nearest::NearestTask>),
    ("Diversify", read::<diversify::DiversifyTask>),
    ("FoldIn", read::<fold_in::FoldInTask>),
    ("ExplainPair", read::<explain_pair::ExplainTask>),
    ("Predict", read::<predict::PredictTask>),
    ("RankingMetrics", read::<ranking_metrics::MetricsTask>),
];

/// The fields of a task as bytes.
pub fn encode<T: Serialize>(task: &T) -> Result<Vec<u8>> {
    postcard::to_stdvec(task).map_err(|e| DataFusionError::External(Box::new(e)))
}

/// The task of this name that [`encode`] made these bytes of.
pub fn decode(name: &str, bytes: &[u8]) -> Result<Arc<dyn Task>> {
    match TASKS.iter().find(|(known, _)| *known == name) {
        Some((_, read)) => read(bytes),
        None => internal_err!("there is no task '{name}'"),
    }
}

fn read<T: Task + DeserializeOwned + 'static>(bytes: &[u8]) -> Result<Arc<dyn Task>> {
    let task: T = postcard::from_bytes(bytes).map_err(|e| DataFusionError::External(Box::new(e)))?;
    Ok(Arc::new(task))
}
