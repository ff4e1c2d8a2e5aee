//! Operators that are queries: SQL with names for the relations that a call gives.

use datafusion::common::{Result, internal_err};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::sql::sqlparser::ast::{Ident, Query, Statement, TableAlias, TableFactor, With};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

/// Plans a query that begins with WITH, whose common tables of the names of relations stand for these; what they were
/// defined as in the query is only there to be replaced. A relation that is not given leaves its definition as it is.
///
/// A relation may itself read a table of such a name: it is planned before the name has its meaning.
pub fn plan(
    sql: &str,
    relations: Vec<(&str, Option<Box<Query>>)>,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let mut statements = Parser::parse_sql(&GenericDialect {}, sql)?;
    let Some(Statement::Query(mut query)) = statements.pop() else {
        return internal_err!("not a query: {sql}");
    };
    let Some(With { cte_tables, .. }) = &mut query.with else {
        return internal_err!("a query without relations: {sql}");
    };
    for (name, relation) in relations {
        let table = cte_tables.iter_mut().find(|table| table.alias.name.value == name);
        match (table, relation) {
            (Some(table), Some(relation)) => table.query = relation,
            (Some(_), None) => {}
            (None, _) => return internal_err!("the query has no relation {name}: {sql}"),
        }
    }
    let alias = TableAlias { explicit: true, name: Ident::new("made"), columns: Vec::new(), at: None };
    context.plan(TableFactor::Derived { lateral: false, subquery: query, alias: Some(alias), sample: None })
}
