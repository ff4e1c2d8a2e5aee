//! All integration tests in one binary, since linking DataFusion is what costs.

mod cli;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(feature = "cluster")]
mod cluster_faults;
#[cfg(feature = "cluster")]
mod cluster_plans;
#[cfg(feature = "cluster")]
mod cut;
mod faults;
mod lists;
mod pipeline;
mod s3;
mod slt;
mod storage;
mod support;
mod tidy;
mod tune;
