//! Functions of many rows.

pub mod quantiles;
pub mod robust_bounds;
pub mod scaling;
pub mod sorted;
pub mod vector_mean;
