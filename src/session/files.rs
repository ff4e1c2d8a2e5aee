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
    let (urls, files) = find(&state, path).await?;
    let (format, extension) = format(&state, path, &files)?;
    let options = ListingOptions::new(format).with_file_extension(extension);
    let reading = |e: DataFusionError| e.context(format!("reading '{path}'"));
    let store = state.runtime_env().object_store(urls[0].object_store())?;
    let schema = schema(&state, &store, &options, &files).await.map_err(reading)?;
    let found = options.infer_partitions(&state, &urls[0]).await.map_err(reading)?;
    // A column that the files hold as well is read from the files, where it has its own type.
    let partitions = found.into_iter().filter(|name| urls.len() == 1 && schema.column_with_name(name).is_none());
    // Plain text: the dictionary that DataFusion would take overflows in queries that copy it into more rows than it has keys.
    let options = options.with_table_partition_cols(partitions.map(|name| (name, DataType::Utf8)).collect());
    let config = ListingTableConfig::new_with_multi_paths(urls).with_listing_options(options).with_schema(schema);
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

/// The places that a path stands for, and the files there. A path without a slash at its end may still be a folder on an
/// object store.
async fn find(state: &SessionState, path: &str) -> Result<(Vec<ListingTableUrl>, Vec<ObjectMeta>)> {
    let as_given = parse(path).map_err(|e| e.context(format!("'{path}' is not a path")))?;
    let mut listed = list(state, &as_given, path).await?;
    let mut urls = vec![as_given.clone()];
    if listed.is_empty() && as_given.get_glob().is_some() {
        // DataFusion matches a glob without the folders of partitions (`month=2017-01`); this one may mean them.
        (urls, listed) = glob_whole_paths(state, &as_given, path).await?;
    } else if listed.is_empty() && as_given.scheme() != "file" && !as_given.is_collection() {
        let folder = ListingTableUrl::parse(format!("{path}/"))?;
        listed = list(state, &folder, path).await?;
        urls = vec![folder];
    }
    let any = !listed.is_empty();
    listed.retain(|file| file.size > 0);
    if !listed.is_empty() {
        return Ok((urls, listed));
    }
    match any {
        true => plan_err!("every file at '{path}' is empty, so it has no columns"),
        false => plan_err!(
            "there is no file at '{path}'; a table is a file, a folder or a glob of parquet, csv, json or arrow files"
        ),
    }
}

async fn glob_whole_paths(
    state: &SessionState,
    url: &ListingTableUrl,
    path: &str,
) -> Result<(Vec<ListingTableUrl>, Vec<ObjectMeta>)> {
    let base = ListingTableUrl::try_new(url.get_url().clone(), None)?;
    let below = |file: &ObjectMeta| {
        let rest = file.location.as_ref().strip_prefix(base.prefix().as_ref())?;
        Some(rest.trim_start_matches('/').to_owned())
    };
    let mut files = list(state, &base, path).await?;
    files
        .retain(|file| below(file).is_some_and(|name| url.get_glob().as_ref().is_some_and(|glob| glob.matches(&name))));
    let urls = files.iter().map(|file| {
        let mut url = base.get_url().clone();
        url.set_path(file.location.as_ref());
        ListingTableUrl::try_new(url, None)
    });
    Ok((urls.collect::<Result<_>>()?, files))
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
    let other = files.iter().find(|file| format_of(file.location.as_ref()).is_some_and(|(other, ..)| other != format));
    if let Some(other) = other {
        return plan_err!(
            "'{path}' holds {format} files and '{}'; name the ones to read by a glob such as '*.{extension}'",
            other.location.filename().unwrap_or("")
        );
    }
    if format == "parquet" {
        return Ok((Arc::new(parquet(state)), extension));
    }
    let options = compression.map(|c| ("format.compression".to_owned(), c.to_owned())).into_iter().collect();
    match state.get_file_format_factory(format) {
        Some(factory) => Ok((factory.create(state, &options)?, extension)),
        None => plan_err!("'{path}': {format} files cannot be read by this build"),
    }
}

/// The schema of all files. A column of two types is told with both files, but for CSV, whose types are guesses: there it
/// is widened. Columns that only some files have are NULL in the others, but for CSV, where columns go by position and
/// must be the same in all.
async fn schema(
    state: &SessionState,
    store: &Arc<dyn ObjectStore>,
    options: &ListingOptions,
    files: &[ObjectMeta],
) -> Result<SchemaRef> {
    let files: Vec<&ObjectMeta> =
        files.iter().filter(|file| file.location.as_ref().ends_with(&options.file_extension)).collect();
    let is_csv = options.file_extension.starts_with("csv");
    let reads: Vec<_> = files
        .iter()
        .map(|file| async move {
            let one = options.format.infer_schema(state, store, std::slice::from_ref(*file)).await;
            one.map_err(|e| e.context(format!("file '{}'", file.location)))
        })
        .collect();
    let schemas: Vec<SchemaRef> = futures::stream::iter(reads).buffered(32).try_collect().await?;
    let names =
        |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
    if let (true, Some(at)) = (is_csv, schemas.iter().position(|schema| names(schema) != names(&schemas[0]))) {
        return plan_err!(
            "the columns of '{}' are {} but those of '{}' are {}; they must be the same in the same order",
            files[0].location,
            names(&schemas[0]),
            files[at].location,
            names(&schemas[at])
        );
    }
    let mut merged: Vec<(FieldRef, usize)> = Vec::new();
    for (at, schema) in schemas.iter().enumerate() {
        for field in schema.fields() {
            let Some(slot) = merged.iter().position(|(known, _)| known.name() == field.name()) else {
                merged.push((Arc::clone(field), at));
                continue;
            };
            let (known, first) = &mut merged[slot];
            let (old, new) = (known.data_type().clone(), field.data_type().clone());
            let Some(common) = common_type(&old, &new, is_csv) else {
                return plan_err!(
                    "column '{}' is {old} in '{}' but {new} in '{}'; rewrite one of them, or read them as two tables and cast",
                    field.name(),
                    files[*first].location,
                    files[at].location
                );
            };
            let nullable = known.is_nullable() || field.is_nullable();
            *known = Arc::new(Field::clone(known).with_data_type(common).with_nullable(nullable));
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

fn common_type(a: &DataType, b: &DataType, widen: bool) -> Option<DataType> {
    match (a, b) {
        _ if a == b => Some(a.clone()),
        _ if !widen => None,
        (DataType::Null, other) | (other, DataType::Null) => Some(other.clone()),
        (DataType::Int64, DataType::Float64) | (DataType::Float64, DataType::Int64) => Some(DataType::Float64),
        _ => Some(DataType::Utf8),
    }
}
