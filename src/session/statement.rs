//! One pass over a parsed statement, before anything is planned: variables become literals, relation arguments of
//! operators become queries, and the tables it reads are told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use datafusion::common::{DataFusionError, Result, ScalarValue, plan_err};
use datafusion::sql::parser::{CopyToSource, DFParser, Statement as Parsed};
use datafusion::sql::resolve::resolve_table_references;
use datafusion::sql::sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, TableFactor, VisitMut, VisitorMut};

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;

use crate::operators::arguments::{name_to_query, nearest};
use crate::operators::planner::operator;

/// A statement that is ready to be planned.
#[derive(Debug, Clone)]
pub struct Statement {
    parsed: Parsed,
    /// The names of functions that stand in its FROM, which DataFusion lists among the tables.
    functions: BTreeSet<String>,
}

impl Statement {
    /// The tables it reads, as they are named in it: tables of the lake, sources, paths.
    pub fn tables(&self) -> Result<BTreeSet<String>> {
        let (tables, _) = resolve_table_references(&self.parsed, true)?;
        Ok(tables
            .into_iter()
            .map(|table| table.table().to_owned())
            .filter(|name| !self.functions.contains(name))
            .collect())
    }

    /// The tables that are named by a path or URL.
    pub fn paths(&self) -> BTreeSet<String> {
        let is_path = |name: &String| super::files::looks_like_path(name);
        self.tables().map(|tables| tables.into_iter().filter(is_path).collect()).unwrap_or_default()
    }

    /// Whether it is a query: it reads, changes nothing and can be the body of a table.
    pub fn is_query(&self) -> bool {
        matches!(&self.parsed, Parsed::Statement(statement) if matches!(**statement, ast::Statement::Query(_)))
    }

    /// Whether it asks which tables there are.
    pub fn asks_for_tables(&self) -> bool {
        let shows = match &self.parsed {
            Parsed::Statement(statement) => {
                matches!(**statement, ast::Statement::ShowTables { .. } | ast::Statement::ShowColumns { .. })
            }
            _ => false,
        };
        shows || self.parsed.to_string().contains("information_schema")
    }

    /// Its text, with values in the places of variables.
    pub fn text(&self) -> String {
        self.parsed.to_string()
    }

    /// What DataFusion plans.
    pub fn into_inner(self) -> Parsed {
        self.parsed
    }
}

/// Parses statements and prepares each.
pub fn parse(sql: &str, variables: &BTreeMap<String, ScalarValue>) -> Result<Vec<Statement>> {
    let parsed = DFParser::parse_sql(sql)?;
    parsed
        .into_iter()
        .map(|mut parsed| {
            let mut pass = Pass { variables, functions: BTreeSet::new() };
            pass.prepare(&mut parsed)?;
            Ok(Statement { parsed, functions: pass.functions })
        })
        .collect()
}

/// Parses a condition as it stands in a header, and prepares it.
pub fn parse_condition(sql: &str, variables: &BTreeMap<String, ScalarValue>) -> Result<Expr> {
    let mut parsed = Parser::new(&GenericDialect {}).try_with_sql(sql)?;
    let mut condition = parsed.parse_expr()?;
    parsed.expect_token(&Token::EOF)?;
    let mut pass = Pass { variables, functions: BTreeSet::new() };
    match condition.visit(&mut pass) {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(condition),
    }
}

struct Pass<'a> {
    variables: &'a BTreeMap<String, ScalarValue>,
    functions: BTreeSet<String>,
}

impl Pass<'_> {
    fn prepare(&mut self, parsed: &mut Parsed) -> Result<()> {
        let flow = match parsed {
            Parsed::Statement(statement) => statement.visit(self),
            Parsed::Explain(explain) => return self.prepare(&mut explain.statement),
            Parsed::CopyTo(copy) => match &mut copy.source {
                CopyToSource::Query(query) => query.visit(self),
                CopyToSource::Relation(_) => ControlFlow::Continue(()),
            },
            _ => ControlFlow::Continue(()),
        };
        match flow {
            ControlFlow::Break(error) => Err(error),
            ControlFlow::Continue(()) => Ok(()),
        }
    }

    fn variable(&self, placeholder: &str) -> Result<Expr> {
        let name = placeholder.trim_start_matches('$');
        match self.variables.get(name) {
            Some(value) => literal(value),
            None => {
                let names: Vec<&str> = self.variables.keys().map(String::as_str).collect();
                let near = nearest(name, &names).map_or(String::new(), |near| format!(", did you mean '${near}'?"));
                plan_err!(
                    "variable '${name}' is not set{near}; set it under [vars] in lakeside.toml or by --var {name}=VALUE{}",
                    if names.is_empty() { String::new() } else { format!("; set are {}", names.join(", ")) }
                )
            }
        }
    }
}

fn literal(value: &ScalarValue) -> Result<Expr> {
    let value = match value {
        ScalarValue::Int64(Some(number)) => ast::Value::Number(number.to_string(), false),
        ScalarValue::Float64(Some(number)) => ast::Value::Number(format!("{number:?}"), false),
        ScalarValue::Boolean(Some(flag)) => ast::Value::Boolean(*flag),
        ScalarValue::Utf8(Some(text)) => ast::Value::SingleQuotedString(text.clone()),
        other => return datafusion::common::internal_err!("a variable of type {}", other.data_type()),
    };
    let negative = matches!(&value, ast::Value::Number(digits, _) if digits.starts_with('-'));
    let literal = match value {
        ast::Value::Number(digits, long) => ast::Value::Number(digits.trim_start_matches('-').to_owned(), long),
        other => other,
    };
    let literal = Expr::Value(literal.with_empty_span());
    Ok(match negative {
        true => Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr: Box::new(literal) },
        false => literal,
    })
}

impl VisitorMut for Pass<'_> {
    type Break = DataFusionError;

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<DataFusionError> {
        let TableFactor::Table { name, args: Some(args), .. } = factor else {
            return ControlFlow::Continue(());
        };
        self.functions.insert(name.to_string().to_lowercase());
        let Some(operator) = operator(&name.to_string()) else {
            return ControlFlow::Continue(());
        };
        for arg in &mut args.args {
            let (relation, value) = match arg {
                FunctionArg::Named { name, arg, .. } => (is_relation(operator, &name.value), arg),
                FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => {
                    (is_relation(operator, &name.value), arg)
                }
                FunctionArg::ExprNamed { .. } => continue,
                FunctionArg::Unnamed(arg) => (true, arg),
            };
            if let (true, FunctionArgExpr::Expr(value)) = (relation, value)
                && let Err(error) = name_to_query(value)
            {
                return ControlFlow::Break(error);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<DataFusionError> {
        if let Expr::Value(ast::ValueWithSpan { value: ast::Value::Placeholder(name), .. }) = expr {
            match self.variable(name) {
                Ok(literal) => *expr = literal,
                Err(error) => return ControlFlow::Break(error),
            }
        }
        ControlFlow::Continue(())
    }
}

fn is_relation(operator: &dyn crate::operators::planner::Operator, argument: &str) -> bool {
    operator.relation_arguments().iter().any(|name| name.eq_ignore_ascii_case(argument))
}
