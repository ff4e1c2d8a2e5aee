//! The same session on many machines, by Apache DataFusion Ballista.
//!
//! A client's session plans statements as it does alone and sends the logical plan to the [`scheduler`]. This makes a
//! physical plan of it, cuts it into stages where rows have to change places, and hands tasks - some partitions of a
//! stage - to the [`executor`]s that ask for work. What a stage leaves behind stays on the disk of the executor, where the
//! next stage and at the end the [`client`] fetch it.
//!
//! - [`codec`] writes our nodes into plans; operators themselves do not know where they run.
//! - [`session`] is what all members plan and run with.
//! - [`security`] says who may talk to whom.
//! - [`local`] is a cluster within one process.

pub mod calls;
pub mod client;
pub mod codec;
pub mod errors;
pub mod executor;
mod flight;
mod joins;
mod limits;
pub mod local;
mod planner;
pub mod scheduler;
pub mod security;
pub mod session;
pub mod status;
mod tables;
mod task;
mod tasks;
