//! Relational operators used in FROM.
//!
//! The way of a call such as `FROM neighbors(t, k => 50)`:
//! [`planner`] finds the operator by name, the operator's own module reads the arguments ([`arguments`]) into a
//! [`node::Task`], which stands in the logical plan as a [`node::OperatorNode`] and in the physical plan as an
//! [`exec::OperatorExec`]. The task collects its inputs once into compact indices ([`collect`], [`ids`]), and every
//! output partition then works on its own share of them with a kernel.
//!
//! A new operator is a folder with a [`planner::Operator`] in it and a line in [`ALL`].

pub mod arguments;
pub mod collect;
pub mod exec;
pub mod ids;
pub mod input;
pub mod neighbors;
pub mod node;
pub mod planner;
pub mod recommend;
pub mod row_number;
pub mod spill;
pub mod write;

/// Every operator that SQL can name.
pub const ALL: [&dyn planner::Operator; 2] = [&neighbors::NeighborsOperator, &recommend::RecommendOperator];
