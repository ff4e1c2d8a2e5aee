//! One task: a stage of a plan over some of its partitions.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ballista_core::extension::SessionConfigHelperExt;
use ballista_core::serde::protobuf::{SuccessfulTask, TaskDefinition, TaskStatus, task_status};
use ballista_core::serde::scheduler::TaskKey;
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use ballista_executor::executor::Executor;
use datafusion::common::Result;
use datafusion::execution::TaskContext;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;

use super::codec::PhysicalCodec;
use super::errors;

/// Runs one task and tells what became of it; times and names are for the caller to fill in.
pub async fn run(executor: &Executor, key: &TaskKey, task: &TaskDefinition) -> TaskStatus {
    let stage = match stage(executor, task) {
        Ok(stage) => stage,
        Err(e) => {
            return TaskStatus {
                status: Some(task_status::Status::Failed(errors::failure(e.into()))),
                ..Default::default()
            };
        }
    };
    let (stage, context) = stage;
    let result = executor.execute_query_stage(key.clone(), Arc::clone(&stage), context).await;
    let window_state = stage.collect_window_state_reports();
    let metrics = stage.collect_plan_metrics().into_iter().filter_map(|metrics| metrics.try_into().ok()).collect();
    let status = match (result, window_state) {
        (Ok(partitions), Ok(window_state)) => task_status::Status::Successful(SuccessfulTask {
            executor_id: executor.metadata.id.clone(),
            partitions,
            runtime_stats: stage.collect_runtime_stats_reports(),
            task_column_stats: stage.collect_column_stats(),
            window_state,
        }),
        (Err(e), _) => task_status::Status::Failed(errors::failure(e)),
        (_, Err(e)) => task_status::Status::Failed(errors::failure(e.into())),
    };
    TaskStatus { metrics, status: Some(status), ..Default::default() }
}

fn stage(executor: &Executor, task: &TaskDefinition) -> Result<(Arc<dyn QueryStageExecutor>, Arc<TaskContext>)> {
    let config = executor.produce_config().update_from_key_value_pair(&task.props);
    let name = format!(
        "TID {}/{}.{}/{}.{}",
        task.job_id, task.stage_id, task.stage_attempt_num, task.task_id, task.task_attempt_num
    );
    let runtime = executor.produce_runtime_for_session(&task.session_id, &config, task.vcores_consumed)?;
    let functions = &executor.function_registry;
    let context = Arc::new(TaskContext::new(
        Some(name),
        task.session_id.clone(),
        config,
        functions.scalar_functions.clone(),
        functions.higher_order_functions.clone(),
        functions.aggregate_functions.clone(),
        functions.window_functions.clone(),
        runtime,
    ));
    let plan = PhysicalPlanNode::try_decode(&task.plan)?;
    let plan = plan.try_into_physical_plan(&context, &PhysicalCodec::default())?;
    let stage = DefaultExecutionEngine::new().create_query_stage_exec(
        task.job_id.clone().into(),
        task.stage_id as usize,
        task.task_id as usize,
        task.global_output_partition_ids.iter().map(|&partition| partition as usize).collect(),
        plan,
        &executor.work_dir,
        context.session_config(),
    )?;
    Ok((stage, context))
}

/// The time in milliseconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
