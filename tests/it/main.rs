//! All integration tests in one binary, since linking DataFusion is what costs.

mod cli;
#[cfg(feature = "cluster")]
mod cluster;
mod faults;
mod pipeline;
mod s3;
mod slt;
mod storage;
mod support;
mod tidy;
