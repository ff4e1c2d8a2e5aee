//! Errors on their way from a task to the user. Ballista hands them on as text, with the state of the job around them.

use ballista_core::error::BallistaError;
use ballista_core::serde::protobuf::failed_task::FailedReason;
use ballista_core::serde::protobuf::{FailedTask, IoError};
use datafusion::arrow::error::ArrowError;
use datafusion::common::DataFusionError;
use object_store::Error as StoreError;
use tonic::{Code, Status};

use crate::error::explain;

/// What an error's own words are put between.
const BEGIN: &str = "\u{2}";
const END: &str = "\u{3}";

/// What the scheduler is told of a failed task: the error in words, and whether trying once more may help.
pub fn failure(error: BallistaError) -> FailedTask {
    let passing = is_passing(&error);
    let text = match &error {
        BallistaError::DataFusionError(inner) => Some(explain(inner)),
        BallistaError::ArrowError(inner) => Some(inner.to_string()),
        _ => None,
    };
    let mut failed = FailedTask::from(error);
    let Some(text) = text else {
        return failed;
    };
    // Where shuffled rows are gone, Ballista knows better what to do.
    if !matches!(failed.failed_reason, Some(FailedReason::FetchPartitionError(_))) {
        failed.error = format!("{BEGIN}{text}{END}");
    }
    if passing {
        failed.retryable = true;
        failed.count_to_failures = true;
        failed.failed_reason = Some(FailedReason::IoError(IoError {}));
    }
    failed
}

/// Whether a store may do tomorrow what it does not do now (it was tried several times already), or a fetch broke off.
fn is_passing(error: &Cause) -> bool {
    match causes(error).find_map(<Cause>::downcast_ref) {
        Some(inner) => matches!(inner, StoreError::Generic { .. } | StoreError::JoinError { .. }),
        None => broke_off(error) || causes(error).any(is_io),
    }
}

fn is_io(error: &Cause) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|inner| inner.kind() != std::io::ErrorKind::NotFound)
}

/// Whether shuffled rows did not come to their end. Where the connection breaks before the first of them, Ballista (55.0)
/// tells neither of whom they were asked nor that they could not be fetched. Who asks again is told.
fn broke_off(error: &Cause) -> bool {
    causes(error).any(|cause| matches!(cause.downcast_ref(), Some(ArrowError::IpcError(_))))
}

type Cause = dyn std::error::Error + 'static;

/// An error and what has caused it, whoever has wrapped it: readers and writers of Parquet do, input and output, Ballista.
fn causes(error: &Cause) -> impl Iterator<Item = &Cause> {
    std::iter::successors(Some(error), |error| match (error.downcast_ref(), error.downcast_ref::<std::io::Error>()) {
        (Some(BallistaError::DataFusionError(inner)), _) => Some(inner.as_ref() as &Cause),
        (Some(BallistaError::ArrowError(inner)), _) => Some(inner.as_ref()),
        (_, Some(inner)) => inner.get_ref().map(|inner| inner as &Cause),
        _ => error.source(),
    })
}

/// The error of a job of the scheduler at `host:port` as its user shall read it.
pub fn readable(error: DataFusionError, scheduler: &str) -> DataFusionError {
    let text = error.to_string();
    if ["h2 protocol error", "transport error", "tcp connect error", "operation was canceled"]
        .iter()
        .any(|e| text.contains(e))
    {
        return DataFusionError::Execution(format!(
            "the connection to the scheduler at {scheduler} or to an executor broke, so the job is lost: {}",
            explain(&error)
        ));
    }
    let own = text.split_once(BEGIN).map(|(_, rest)| rest.split_once(END).map_or(rest, |(own, _)| own));
    match own {
        Some(own) => DataFusionError::Execution(own.to_owned()),
        None => DataFusionError::Execution(without_frame(&explain(&error)).to_owned()),
    }
}

/// The text without what Ballista says around it.
fn without_frame(text: &str) -> &str {
    let mut text = text.trim();
    loop {
        let rest = ["Error planning job ", "Job "].iter().find_map(|frame| {
            let rest = text.strip_prefix(frame)?;
            rest.split_once(": ").map(|(_, rest)| rest)
        });
        let rest = rest
            .or_else(|| ["DataFusion error: ", "Error during planning: "].iter().find_map(|p| text.strip_prefix(p)));
        match rest {
            Some(rest) => text = rest.trim(),
            None => return text,
        }
    }
}

/// Whether the rows of a job that was done could not be fetched, as who had them is gone: an executor, not the scheduler at
/// `host:port`.
pub fn is_lost(error: &DataFusionError, scheduler: &str) -> bool {
    let text = error.to_string();
    let unreachable = text.split_once("Error connecting to Ballista scheduler or executor at ");
    let executor = unreachable.is_some_and(|(_, rest)| !rest.contains(&format!("://{scheduler}: ")));
    executor || text.contains("fetch partition error") || text.contains("FetchFailed")
}

/// Whether the other side will say the same next time.
pub fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition)
}

/// An error with what has caused it, each once.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let next = inner.to_string();
        if !text.contains(&next) {
            text += &format!(": {next}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_lost_with_an_executor_and_not_with_the_scheduler() {
        let unreachable = |address: &str| {
            let text = format!("Error connecting to Ballista scheduler or executor at http://{address}: refused");
            DataFusionError::External(Box::new(BallistaError::GrpcConnectionError(text)))
        };
        assert!(is_lost(&unreachable("127.0.0.1:50051"), "127.0.0.1:5005"));
        assert!(!is_lost(&unreachable("127.0.0.1:5005"), "127.0.0.1:5005"));
        assert!(!is_lost(&DataFusionError::Execution("division by zero".to_owned()), "127.0.0.1:5005"));
    }
}
