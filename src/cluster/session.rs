//! Sessions of the members of a cluster: what a scheduler plans with, and what executors run with.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ballista_core::ConfigProducer;
use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::with_ballista_optimizer_rules;
use ballista_scheduler::scheduler_server::SessionBuilder;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::prelude::SessionConfig;

use super::codec::{LogicalCodec, PhysicalCodec};
use super::joins::WholeRightSides;
use super::limits::LimitsAboveTables;
use super::planner::ClusterPlanner;
use super::security::Security;
use crate::operators::write::{WriteLists, WriteWhole};
use crate::session::{self, Limits};

/// The largest message that members send each other: plans with tables in them, the places of many shuffle files.
pub const MESSAGE_BYTES: usize = 64 << 20;

/// The configuration of a local session, made fit for a cluster.
///
/// Plans are made once, as they are on one machine. Ballista can plan anew after every stage
/// (`SET ballista.planner.adaptive.enabled = true`), but it does so with rules of its own.
pub fn upgrade(local: SessionConfig, security: &Security) -> SessionConfig {
    // Hash joins are what one machine takes; Ballista would sort both sides, so that they can be put on disk.
    let hash_joins = local.options().optimizer.prefer_hash_join;
    local
        .upgrade_for_ballista()
        .with_ballista_adaptive_query_planner(false)
        .set_bool("datafusion.optimizer.prefer_hash_join", hash_joins)
        .with_ballista_logical_extension_codec(Arc::new(LogicalCodec::default()))
        .with_ballista_physical_extension_codec(Arc::new(PhysicalCodec::default()))
        .with_ballista_grpc_client_max_message_size(MESSAGE_BYTES)
        .with_ballista_override_create_grpc_client_endpoint(security.endpoints())
}

/// What the configuration of each query on a cluster begins with.
pub fn configs(security: &Security) -> ConfigProducer {
    let security = security.clone();
    Arc::new(move || upgrade(session::config(&Limits::default()), &security))
}

/// What a scheduler plans queries with: as many partitions as the executors have slots together.
pub fn builder(runtime: Arc<RuntimeEnv>, slots: Arc<AtomicUsize>) -> SessionBuilder {
    Arc::new(move |config: SessionConfig| {
        let partitions = slots.load(Ordering::Relaxed).max(1);
        // What clients may have set otherwise, and what answers depend on. Which side of a join every task gets whole is
        // for Ballista alone (`ballista.optimizer.broadcast_join_threshold_bytes`; 0 forbids it): it takes back what
        // DataFusion has decided only after everything above was planned for that.
        let config = config
            .with_target_partitions(partitions)
            .set_u64("datafusion.optimizer.hash_join_single_partition_threshold", 0)
            .set_u64("datafusion.optimizer.hash_join_single_partition_threshold_rows", 0)
            .set_bool("datafusion.execution.use_row_number_estimates_to_optimize_partitioning", false)
            .set_usize("datafusion.optimizer.subset_repartition_threshold", 4)
            .set_bool("datafusion.optimizer.enable_dynamic_filter_pushdown", false)
            .set_bool("datafusion.optimizer.enable_physical_uncorrelated_scalar_subquery", false);
        let context = session::context(config, Arc::clone(&runtime), Arc::new(ClusterPlanner))?;
        let state = context.state();
        let rules = with_ballista_optimizer_rules(state.optimizers());
        let mut physical = state.physical_optimizers().to_vec();
        // Sinks of ours cannot be sent. Clients write what they copy themselves; rows that are inserted come by tasks, in files
        // of their own, and those of a query that fails stay.
        let sinks = [WriteLists.name(), WriteWhole.name()].map(str::to_owned);
        physical.retain(|rule| !sinks.iter().any(|name| name == rule.name()));
        physical.push(Arc::new(LimitsAboveTables));
        physical.push(Arc::new(WholeRightSides));
        let state = SessionStateBuilder::new_from_existing(state).with_optimizer_rules(rules);
        Ok(state.with_physical_optimizer_rules(physical).build())
    })
}
