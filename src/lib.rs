//! Lakeside: from a Parquet lake to recommendations, in SQL.
//!
//! The modules in the order in which data meets them:
//!
//! - [`cli`]: one file per command; arguments in, tables and messages out.
//! - [`project`]: `lakeside.toml` and SQL files become an ordered graph of steps, and that a run.
//! - [`lake`]: named tables on object stores; written aside, checked, published whole.
//! - [`session`]: the only place where a DataFusion session is built; statements, stores, files as tables.
//! - `cluster`: the same session on many machines (with the feature of that name).
//! - [`operators`]: what stands in FROM: `neighbors`, `recommend`; and writing.
//! - [`functions`]: scalar and aggregate functions that DataFusion lacks.
//! - [`kernels`]: the loops, on plain slices; a crate of its own in `src/kernels/`.
//!
//! Dependencies point downwards only. What holds everywhere:
//!
//! - Every learned model is a plain table: `<id>, neighbor_id, score, rank`.
//! - A result has the same bits for any number of threads and any order of input rows.
//! - A published table is whole: readers see the last one or the next, never a part.
//! - What a user can get wrong is an error that says where and what is allowed; nothing panics on input.

pub mod cli;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod error;
pub mod functions;
pub mod lake;
pub mod operators;
pub mod project;
pub mod session;

pub use lakeside_kernels as kernels;

pub use cli::reference;
