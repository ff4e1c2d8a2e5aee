//! The only place where a DataFusion session is built.
//!
//! A [`Session`] knows the operators, the functions, every object store and paths as tables. It reads each statement
//! through one pass ([`statement`]) that the step graph uses as well.

pub mod files;
pub mod statement;
pub mod stores;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::TableProvider;
use datafusion::common::{DFSchema, Result, ScalarValue, TableReference};
use datafusion::dataframe::DataFrame;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::ExprWithAlias as SQLExprWithAlias;

use self::statement::Statement;
use crate::functions;
use crate::operators::first_rows::KeepFirstRows;
use crate::operators::planner::{LakesidePlanner, OperatorRelations, Place};
use crate::operators::row_number::NumberSortedRows;
use crate::operators::write::{WriteLists, WriteWhole, ZSTD_LEVEL};

/// Where queries run that do not run in this process.
pub trait Remote: Debug + Send + Sync {
    /// The state of a session whose queries run there, made from that of a local one.
    fn connect(&self, local: SessionState) -> SessionState;
}

/// What a session may use.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Threads, and partitions of each query; all cores where not given.
    pub threads: Option<usize>,
    /// Bytes that queries may take together; no limit where not given.
    pub memory: Option<usize>,
    /// Where queries run; in this process where not given.
    pub remote: Option<Arc<dyn Remote>>,
}

impl Limits {
    /// The number of threads to use.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        self.threads.unwrap_or_else(cores).max(1)
    }
}

/// A DataFusion session with everything of Lakeside in it. Clones share their tables.
#[derive(Clone)]
pub struct Session {
    context: SessionContext,
    variables: Arc<BTreeMap<String, ScalarValue>>,
    /// What quoted paths in statements are relative to; the working directory where not given.
    base: Option<Arc<PathBuf>>,
    /// Held while a name changes hands, as steps that run at once may name the same path.
    naming: Arc<Mutex<()>>,
}

impl Session {
    /// A session without tables; `$name` in its statements stands for the variable of that name.
    pub fn try_new(limits: &Limits, variables: BTreeMap<String, ScalarValue>) -> Result<Self> {
        let planner = Arc::new(LakesidePlanner(Place::Here));
        let mut context = context(config(limits), runtime(limits.memory).build_arc()?, planner)?;
        if let Some(remote) = &limits.remote {
            context = SessionContext::new_with_state(remote.connect(context.state()));
        }
        Ok(Self { context, variables: Arc::new(variables), base: None, naming: Arc::default() })
    }

    /// The same session, with quoted paths in statements taken relative to a folder.
    pub fn at(&self, base: &Path) -> Self {
        Self { base: Some(Arc::new(base.to_owned())), ..self.clone() }
    }

    /// Makes a table known under a name, in the place of one that had it before.
    pub fn set_table(&self, name: &str, table: Arc<dyn TableProvider>) -> Result<()> {
        let _held = self.naming.lock().unwrap_or_else(PoisonError::into_inner);
        self.context.deregister_table(TableReference::bare(name))?;
        self.context.register_table(TableReference::bare(name), table)?;
        Ok(())
    }

    /// The session underneath.
    pub fn context(&self) -> &SessionContext {
        &self.context
    }

    /// Parses one statement or several, separated by semicolons.
    pub fn parse(&self, sql: &str) -> Result<Vec<Statement>> {
        statement::parse(sql, &self.variables)
    }

    /// A condition over columns of this schema, `$name` in it being variables as in statements.
    pub fn condition(&self, sql: &str, schema: &DFSchema) -> Result<Expr> {
        let condition = SQLExprWithAlias { expr: statement::parse_condition(sql, &self.variables)?, alias: None };
        self.context.state().create_logical_expr_from_sql_expr(condition, schema)
    }

    /// A condition as it stands in a header, with values in the places of variables.
    pub fn condition_text(&self, sql: &str) -> Result<String> {
        Ok(statement::parse_condition(sql, &self.variables)?.to_string())
    }

    /// Plans a statement; tables named by a path are looked up where the path says.
    pub async fn plan(&self, statement: Statement) -> Result<LogicalPlan> {
        for path in statement.paths() {
            let place = match &self.base {
                Some(base) if !path.contains("://") => base.join(&path).to_string_lossy().into_owned(),
                _ => path.clone(),
            };
            self.set_table(&path, files::open(&self.context, &place).await?)?;
        }
        self.context.state().statement_to_plan(statement.into_inner()).await
    }

    /// Plans a statement to be run.
    pub async fn query(&self, statement: Statement) -> Result<DataFrame> {
        let plan = self.plan(statement).await?;
        self.context.execute_logical_plan(plan).await
    }
}

/// DataFusion's rules, and ours before and after them.
fn optimizer_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    rules.insert(0, Arc::new(KeepFirstRows));
    rules.push(Arc::new(NumberSortedRows));
    rules.push(Arc::new(WriteLists));
    rules.push(Arc::new(WriteWhole));
    rules
}

/// A session's context: DataFusion's functions, rules and formats, and ours.
pub fn context(
    config: SessionConfig,
    runtime: Arc<RuntimeEnv>,
    planner: Arc<dyn QueryPlanner + Send + Sync>,
) -> Result<SessionContext> {
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_default_features()
        .with_query_planner(planner)
        .with_physical_optimizer_rules(optimizer_rules())
        .build();
    let context = SessionContext::new_with_state(state);
    context.register_relation_planner(Arc::new(OperatorRelations))?;
    functions::register(&context);
    Ok(context)
}

/// Every object store, and a pool of so many bytes of memory, or as much as there is.
pub fn runtime(memory: Option<usize>) -> RuntimeEnvBuilder {
    let runtime = RuntimeEnvBuilder::new().with_object_store_registry(Arc::new(stores::Stores::default()));
    let Some(bytes) = memory else {
        return runtime;
    };
    // Names those who hold most when memory runs out.
    let most = std::num::NonZeroUsize::new(5).unwrap_or(std::num::NonZeroUsize::MIN);
    runtime.with_memory_pool(Arc::new(TrackConsumersPool::new(FairSpillPool::new(bytes), most)))
}

/// How queries run.
pub fn config(limits: &Limits) -> SessionConfig {
    let mut config = SessionConfig::new()
        .with_target_partitions(limits.threads())
        .with_information_schema(true)
        // Half as many batches wait for a file. With room for one, whoever makes them waits whenever a row group is put into it.
        .set_usize("datafusion.execution.max_buffered_batches_per_output_file", 8);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    // As published tables are; at DataFusion's level of 3 lists of neighbors take longer and are no smaller.
    options.execution.parquet.compression = Some(format!("zstd({ZSTD_LEVEL})"));
    options.execution.listing_table_ignore_subdirectory = false;
    // Tells which side of a join is small, such as groups, so that it is the one held in memory.
    options.optimizer.use_statistics_registry = true;
    options.explain.show_statistics = false;
    config
}
