//! Files as tables: one file, a folder or a glob, on any store.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::catalog::TableProvider;
use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::execution::SessionState;
use datafusion::prelude::SessionContext;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};

/// The endings of files that can be read, with the format of each.
const ENDINGS: [(&str, &str); 6] = [
    ("parquet", "parquet"),
    ("csv", "csv"),
    ("json", "json"),
    ("ndjson", "json"),
    ("jsonl", "json"),
    ("arrow", "arrow"),
];
const COMPRESSIONS: [&str; 4] = ["gz", "bz2", "xz", "zst"];

/// Whether a table's name can only be meant as a path.
pub fn looks_like_path(name: &str) -> bool {
    name.contains('/') || name.contains('\\') || format_of(name).is_some()
}

/// The format that a file's name tells, with its compression and its whole ending.
fn format_of(name: &str) -> Option<(&'static str, Option<&'static str>, String)> {
    let compression = COMPRESSIONS.into_iter().find(|c| name.ends_with(&format!(".{c}")));
    let plain = compression.map_or(name, |c| &name[..name.len() - c.len() - 1]);
    let (ending, format) = ENDINGS.into_iter().find(|(ending, _)| plain.ends_with(&format!(".{ending}")))?;
    let whole = compression.map_or(ending.to_owned(), |c| format!("{ending}.{c}"));
    Some((format, compression, whole))
}

/// Opens what a path, a URL or a glob names; hive partitions (`month=2017-01/`) become columns.
pub async fn open(context: &SessionContext, path: &str) -> Result<Arc<dyn TableProvider>> {
    let state = context.state();
    let (url, files) = find(&state, path).await?;
    let (format, extension) = format(&state, path, &files)?;
    let options = ListingOptions::new(format).with_file_extension(extension);
    let store = state.runtime_env().object_store(url.object_store())?;
    let schema = schema(&state, &store, &options, &files).await.map_err(|e| e.context(format!("reading '{path}'")))?;
    let found = options.infer_partitions(&state, &url).await.map_err(|e| e.context(format!("reading '{path}'")))?;
    // A column that the files hold as well is read from the files, where it has its own type.
    let partitions = found.into_iter().filter(|name| schema.column_with_name(name).is_none());
    // Plain text: the dictionary that DataFusion would take overflows in queries that copy it into more rows than it has keys.
    let options = options.with_table_partition_cols(partitions.map(|name| (name, DataType::Utf8)).collect());
    let config = ListingTableConfig::new(url).with_listing_options(options).with_schema(schema);
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// Opens exactly these Parquet files as one table; they are known to have one schema.
pub async fn open_parquet(context: &SessionContext, files: Vec<ListingTableUrl>) -> Result<Arc<dyn TableProvider>> {
    let state = context.state();
    let options = ListingOptions::new(Arc::new(parquet(&state))).with_file_extension("parquet");
    let config = ListingTableConfig::new_with_multi_paths(files);
    let config = config.with_listing_options(options).infer_schema(&state).await?;
    Ok(Arc::new(ListingTable::try_new(config)?))
}

fn parquet(state: &SessionState) -> datafusion::datasource::file_format::parquet::ParquetFormat {
    datafusion::datasource::file_format::parquet::ParquetFormat::new()
        .with_options(state.table_options().parquet.clone())
}

/// A path or URL, with a glob in either.
fn parse(path: &str) -> Result<ListingTableUrl> {
    let glob = path.find(['*', '?', '[']).filter(|_| path.contains("://"));
    let Some(folder) = glob.and_then(|at| path[..at].rfind('/')) else {
        return ListingTableUrl::parse(path);
    };
    ListingTableUrl::parse(&path[..=folder])?.with_glob(&path[folder + 1..])
}

/// The files that a path stands for. A path without a slash at its end may still be a folder on an object store.
async fn find(state: &SessionState, path: &str) -> Result<(ListingTableUrl, Vec<ObjectMeta>)> {
    let folder = format!("{}/", path.trim_end_matches('/'));
    let as_given = parse(path).map_err(|e| e.context(format!("'{path}' is not a path")))?;
    let files = list(state, &as_given, path).await?;
    if !files.is_empty() {
        return Ok((as_given, files));
    }
    if as_given.scheme() != "file" && !as_given.is_collection() && as_given.get_glob().is_none() {
        let url = ListingTableUrl::parse(&folder)?;
        let files = list(state, &url, path).await?;
        if !files.is_empty() {
            return Ok((url, files));
        }
    }
    plan_err!(
        "there is no file at '{path}'; a table is a file, a folder or a glob of parquet, csv, json or arrow files"
    )
}

async fn list(state: &SessionState, url: &ListingTableUrl, path: &str) -> Result<Vec<ObjectMeta>> {
    let store = state.runtime_env().object_store(url.object_store())?;
    let listed: Result<Vec<ObjectMeta>> =
        async { url.list_all_files(state, store.as_ref(), "").await?.try_collect().await }.await;
    let mut files = match listed {
        Ok(files) => files,
        Err(e) if is_not_found(&e) => Vec::new(),
        Err(e) => return Err(e.context(format!("listing '{path}'"))),
    };
    files.retain(|file| file.size > 0);
    files.sort_by(|a, b| a.location.cmp(&b.location));
    Ok(files)
}

fn is_not_found(error: &DataFusionError) -> bool {
    match error.find_root() {
        DataFusionError::ObjectStore(e) => matches!(**e, object_store::Error::NotFound { .. }),
        DataFusionError::IoError(e) => e.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

fn format(state: &SessionState, path: &str, files: &[ObjectMeta]) -> Result<(Arc<dyn FileFormat>, String)> {
    let known = files.iter().find_map(|file| format_of(file.location.as_ref()));
    let Some((format, compression, extension)) = known else {
        return plan_err!(
            "'{path}' holds no file that can be read: '{}' ends in none of .parquet, .csv, .json, .ndjson, .jsonl, .arrow",
            files.first().map_or("", |file| file.location.filename().unwrap_or(""))
        );
    };
    if format == "parquet" {
        return Ok((Arc::new(parquet(state)), extension));
    }
    let options = compression.map(|c| ("format.compression".to_owned(), c.to_owned())).into_iter().collect();
    match state.get_file_format_factory(format) {
        Some(factory) => Ok((factory.create(state, &options)?, extension)),
        None => plan_err!("'{path}': {format} files cannot be read by this build"),
    }
}

/// The schema of all files. For formats that carry a schema, a column of two types is told with both files; columns
/// that only some files have are NULL in the others.
async fn schema(
    state: &SessionState,
    store: &Arc<dyn ObjectStore>,
    options: &ListingOptions,
    files: &[ObjectMeta],
) -> Result<SchemaRef> {
    let files: Vec<&ObjectMeta> =
        files.iter().filter(|file| file.location.as_ref().ends_with(&options.file_extension)).collect();
    let carries_schema = ["parquet", "arrow"].contains(&options.file_extension.as_str());
    if !carries_schema {
        let files: Vec<ObjectMeta> = files.into_iter().cloned().collect();
        return options.format.infer_schema(state, store, &files).await;
    }
    let reads: Vec<_> = files
        .iter()
        .map(|file| async move {
            let one = options.format.infer_schema(state, store, std::slice::from_ref(*file)).await;
            one.map_err(|e| e.context(format!("file '{}'", file.location)))
        })
        .collect();
    let schemas: Vec<SchemaRef> = futures::stream::iter(reads).buffered(32).try_collect().await?;
    let mut merged: Vec<(FieldRef, usize)> = Vec::new();
    for (at, schema) in schemas.iter().enumerate() {
        for field in schema.fields() {
            let Some(slot) = merged.iter().position(|(known, _)| known.name() == field.name()) else {
                merged.push((Arc::clone(field), at));
                continue;
            };
            let (known, first) = &mut merged[slot];
            if known.data_type() != field.data_type() {
                return plan_err!(
                    "column '{}' is {} in '{}' but {} in '{}'; rewrite one of them, or read them as two tables and cast",
                    field.name(),
                    known.data_type(),
                    files[*first].location,
                    field.data_type(),
                    files[at].location
                );
            }
            if field.is_nullable() && !known.is_nullable() {
                *known = Arc::new(Field::clone(known).with_nullable(true));
            }
        }
    }
    let in_all = |name: &str| schemas.iter().all(|schema| schema.column_with_name(name).is_some());
    let fields: Vec<FieldRef> = merged
        .into_iter()
        .map(|(field, _)| match in_all(field.name()) {
            true => field,
            false => Arc::new(Field::clone(&field).with_nullable(true)),
        })
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}
