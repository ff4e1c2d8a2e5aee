//! All integration tests in one binary, since linking DataFusion is what costs.

mod cli;
mod faults;
mod pipeline;
mod slt;
mod storage;
mod support;
mod tidy;
