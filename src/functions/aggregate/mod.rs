//! Functions of many rows.

pub mod robust_bounds;
