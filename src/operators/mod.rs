//! Relational operators used in FROM.
//!
//! The way of a call such as `FROM neighbors(t, k => 50)`:
//! [`planner`] finds the operator by name, the operator's own module reads the arguments ([`arguments`]) into a
//! [`node::Task`], which stands in the logical plan as a [`node::OperatorNode`] and in the physical plan as an
//! [`exec::OperatorExec`]. The task collects its inputs once into compact indices ([`collect`], [`ids`],
//! [`rows`]), with what finds no memory put aside ([`spill`], [`sorted`]) and vectors read by [`vectors`], and every output
//! partition then hands out its own share of what a kernel finds.
//!
//! [`write`], [`row_number`], [`first_rows`] and [`gather`] are not named in SQL: the first publishes tables, the second and
//! the third stand in for DataFusion's window operator where it is slow, the last has each task of a cluster read files itself.
//!
//! [`split`] and [`fuse`] make plans that SQL could say as well ([`template`]).
//!
//! A new operator is a folder with a [`planner::Operator`] in it and a line in [`ALL`].

pub mod arguments;
pub mod codec;
pub mod collect;
pub mod context;
pub mod diversify;
pub mod ease;
pub mod exec;
pub mod explain_pair;
pub mod factorize;
pub mod first_rows;
pub mod fold_in;
pub mod found;
pub mod fuse;
pub mod gather;
pub mod ids;
pub mod input;
pub mod input_rows;
pub mod keys;
pub mod linear;
pub mod nearest;
pub mod neighbors;
pub mod node;
pub mod planner;
pub mod predict;
pub mod ranking_metrics;
pub mod recommend;
pub mod row_number;
pub mod rows;
pub mod shares;
pub mod slim;
pub mod sorted;
pub mod spill;
pub mod split;
pub mod template;
pub mod vectors;
pub mod write;

/// Every operator that SQL can name.
pub const ALL: [&dyn planner::Operator; 14] = [
    &neighbors::NeighborsOperator,
    &ease::EaseOperator,
    &slim::SlimOperator,
    &recommend::RecommendOperator,
    &factorize::FactorizeOperator,
    &fold_in::FoldInOperator,
    &nearest::NearestOperator,
    &predict::PredictOperator,
    &fuse::FuseOperator,
    &diversify::DiversifyOperator,
    &split::SplitOperator,
    &ranking_metrics::RankingMetricsOperator,
    &ranking_metrics::CompareRankingsOperator,
    &explain_pair::ExplainPairOperator,
];
