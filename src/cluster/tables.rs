//! Tables of a plan that would not arrive on other machines as they are here.

use std::sync::Arc;

use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, plan_err};
use datafusion::datasource::listing::{ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::datasource::{ViewTable, empty::EmptyTable, provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, TableSource};
use datafusion::physical_plan::execute_stream;
use futures::TryStreamExt;

use super::codec::TABLE_BYTES;

/// The same plan, in which globs are the files that they match and tables that only this process knows, such as
/// `generate_series`, are their rows.
pub async fn portable(plan: &LogicalPlan, session: &dyn Session) -> Result<LogicalPlan> {
    let mut scans = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            scans.push(scan.clone());
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    // Rows are read as the filters of a scan have it, so another scan of the same table may have others.
    let mut replaced: Vec<(Key, Arc<dyn TableSource>)> = Vec::new();
    for scan in scans {
        if let Some(table) = instead_of(&scan, session).await? {
            replaced.push((key(&scan), provider_as_source(table)));
        }
    }
    let replace = |node| match node {
        LogicalPlan::TableScan(mut scan) => {
            let new = replaced.iter().find(|(old, _)| *old == key(&scan));
            let changed = new.is_some();
            scan.source = new.map_or(scan.source, |(_, new)| Arc::clone(new));
            Ok(Transformed::new(LogicalPlan::TableScan(scan), changed, TreeNodeRecursion::Continue))
        }
        // Only whether it has a row is sent, not its columns.
        LogicalPlan::EmptyRelation(empty) if !empty.produce_one_row && !empty.schema.fields().is_empty() => {
            no_rows(&empty.schema).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    };
    plan.clone().transform_up_with_subqueries(replace).data()
}

/// A scan of an empty table, whose columns are called as they shall be.
fn no_rows(schema: &DFSchema) -> Result<LogicalPlan> {
    let fields = schema.fields().iter().enumerate();
    let fields: Vec<Field> = fields.map(|(at, field)| Field::clone(field).with_name(format!("c{at}"))).collect();
    let table: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(Arc::new(Schema::new(fields)), vec![vec![]])?);
    let scan = LogicalPlanBuilder::scan("no_rows", provider_as_source(table), None)?;
    let named = schema.iter().enumerate().map(|(at, (qualifier, field))| {
        Expr::Column(Column::new(Some("no_rows"), format!("c{at}"))).alias_qualified(qualifier.cloned(), field.name())
    });
    scan.project(named.collect::<Vec<_>>())?.build()
}

/// What tells scans apart: the table, by its place, and the filters.
type Key = (usize, Vec<Expr>);

fn key(scan: &TableScan) -> Key {
    (Arc::as_ptr(&scan.source).cast::<()>() as usize, scan.filters.clone())
}

/// What a scan shall read, if not what it does.
async fn instead_of(scan: &TableScan, session: &dyn Session) -> Result<Option<Arc<dyn TableProvider>>> {
    if scan.table_name.schema() == Some("information_schema") {
        return Ok(None);
    }
    let table = source_as_provider(&scan.source)?;
    if let Some(files) = table.downcast_ref::<ListingTable>() {
        // How text is compressed is not said where a table is sent; what is sent has no other ending than the format's.
        let format = files.options().format.get_ext();
        if format != "parquet" && !files.options().file_extension.trim_start_matches('.').ends_with(&format) {
            return rows(scan, table, session).await.map(Some);
        }
        let any_glob = files.table_paths().iter().any(|url| url.get_glob().is_some());
        return if any_glob { matching_files(files, session).await.map(Some) } else { Ok(None) };
    }
    if table.is::<MemTable>() || table.is::<ViewTable>() || table.is::<EmptyTable>() || table.is::<CteWorkTable>() {
        return Ok(None);
    }
    rows(scan, table, session).await.map(Some)
}

/// A glob is lost where a table is sent by its URL.
async fn matching_files(table: &ListingTable, session: &dyn Session) -> Result<Arc<dyn TableProvider>> {
    let options = table.options().clone();
    let mut files = Vec::new();
    for url in table.table_paths() {
        if let Some(glob) = url.get_glob().as_ref().filter(|_| !options.table_partition_cols.is_empty()) {
            return plan_err!(
                "'{url}{glob}' is a glob over folders of partitions, which a cluster cannot be given; name the folder, and the partitions in WHERE"
            );
        }
        let store = session.runtime_env().object_store(url.object_store())?;
        let found = url.list_all_files(session, store.as_ref(), &options.file_extension).await?;
        let found: Vec<_> = found.try_collect().await?;
        for file in found {
            let mut place = url.get_url().clone();
            place.set_path(file.location.as_ref());
            files.push(ListingTableUrl::try_new(place, None)?);
        }
    }
    let config = ListingTableConfig::new_with_multi_paths(files);
    let config = config.with_listing_options(options).with_schema(table.schema());
    Ok(Arc::new(ListingTable::try_new(config)?))
}

async fn rows(
    scan: &TableScan,
    table: Arc<dyn TableProvider>,
    session: &dyn Session,
) -> Result<Arc<dyn TableProvider>> {
    let plan = table.scan(session, None, &scan.filters, None).await?;
    let mut stream = execute_stream(plan, session.task_ctx())?;
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while let Some(batch) = stream.try_next().await? {
        bytes += batch.get_array_memory_size();
        if bytes > TABLE_BYTES {
            return plan_err!(
                "{} has more than {} MB, which is the most that is sent along to a cluster; write it to files and read these",
                scan.table_name,
                TABLE_BYTES >> 20
            );
        }
        batches.push(batch);
    }
    Ok(Arc::new(MemTable::try_new(table.schema(), vec![batches])?))
}
