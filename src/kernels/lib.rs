//! Pure loops: slices in, slices out.
//!
//! Nothing here knows Arrow arrays, DataFusion, async or I/O, so every kernel can be tested and measured alone.
//! Rows and columns are compact indices (`u32`); who owns the ids behind them is the caller's business.

pub mod als;
pub mod block;
pub mod bpr;
pub mod cells;
pub mod cpu;
pub mod csr;
pub mod dictionary;
mod digits;
pub mod diversify;
pub mod ease;
pub mod few;
pub mod held;
pub mod hybrid;
pub mod index;
pub mod least_squares;
pub mod likeness;
pub mod lists;
pub mod metric;
pub mod nearest;
mod offers;
mod outbox;
pub mod packed;
pub mod pages;
pub mod panels;
pub mod predict;
pub mod prefetch;
pub mod product;
pub mod ranges;
pub mod ranking;
pub mod robust;
pub mod rows;
pub mod sample;
pub mod scoring;
pub mod search;
pub mod simd;
pub mod similarity;
pub mod slim;
pub mod svd;
pub mod text;
pub mod texts;
pub mod topk;
mod uuid;
pub mod vectors;
pub mod weighting;
pub mod words;

/// Why what a kernel works on cannot be read or written.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
