//! The arguments of an operator, read by name or position, with errors that say what is allowed.

use std::sync::Arc;

use datafusion::arrow::array::{Array, AsArray, new_empty_array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use datafusion::common::{DFSchema, Result, ScalarValue, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;
use datafusion::optimizer::analyzer::type_coercion::TypeCoercion;
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr as SqlExpr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, SetExpr, TableFactor,
    Value, ValueWithSpan,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;

const A_STRING: &str = "a string";

/// The arguments of one call. Each is taken once; what is left at the end was not known.
pub struct Arguments {
    function: &'static str,
    positional: Vec<SqlExpr>,
    named: Vec<(String, SqlExpr)>,
}

impl Arguments {
    /// Splits a call's arguments into named and positional ones; `known` are the names that the operator documents.
    pub fn parse(
        function: &'static str,
        known: &[String],
        args: Vec<FunctionArg>,
        context: &dyn RelationPlannerContext,
    ) -> Result<Self> {
        let mut found = Self { function, positional: Vec::new(), named: Vec::new() };
        for arg in args {
            let (name, value) = match arg {
                FunctionArg::Named { name, arg, .. } => (Some(name), arg),
                FunctionArg::ExprNamed { name: SqlExpr::Identifier(name), arg, .. } => (Some(name), arg),
                FunctionArg::Unnamed(arg) => (None, arg),
                other => return plan_err!("{function}: '{other}' is not an argument; write name => value"),
            };
            let FunctionArgExpr::Expr(value) = value else {
                return plan_err!("{function}: '*' is not an argument; give a table or (SELECT ..)");
            };
            match name {
                None if found.named.is_empty() => found.positional.push(value),
                None => return plan_err!("{function}: '{value}' without a name must stand before the named arguments"),
                Some(name) => found.add_named(context.normalize_ident(name), value, known)?,
            }
        }
        Ok(found)
    }

    fn add_named(&mut self, name: String, value: SqlExpr, known: &[String]) -> Result<()> {
        if !known.contains(&name) {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let near = nearest(&name, &known).map_or(String::new(), |near| format!(", did you mean '{near}'?"));
            return plan_err!(
                "{} has no argument '{name}'{near}; its arguments are {}",
                self.function,
                known.join(", ")
            );
        }
        if self.has(&name) {
            return plan_err!("{}: argument '{name}' is given twice", self.function);
        }
        self.named.push((name, value));
        Ok(())
    }

    /// Whether an argument of this name is given.
    pub fn has(&self, name: &str) -> bool {
        self.named.iter().any(|(known, _)| known == name)
    }

    fn take(&mut self, name: &'static str) -> Option<SqlExpr> {
        let at = self.named.iter().position(|(known, _)| known == name)?;
        Some(self.named.remove(at).1)
    }

    /// The query given by this name, or else the next one given by position.
    pub fn query(&mut self, name: &'static str) -> Result<Option<Box<Query>>> {
        let value = match self.take(name) {
            Some(value) => value,
            None if !self.positional.is_empty() => self.positional.remove(0),
            None => return Ok(None),
        };
        match value {
            SqlExpr::Subquery(query) => Ok(Some(query)),
            value => plan_err!(
                "{}: argument '{name}' must be a table, a quoted path or (SELECT ..), not {value}",
                self.function
            ),
        }
    }

    /// The relation given by this name, or else the next one given by position.
    pub fn relation(
        &mut self,
        name: &'static str,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<LogicalPlan>> {
        self.query(name)?.map(|query| planned(query, context)).transpose()
    }

    pub(super) fn literal(
        &mut self,
        name: &'static str,
        allowed: &str,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<(ScalarValue, String)>> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        let text = value.to_string();
        if let SqlExpr::Identifier(Ident { value: word, .. }) = &value {
            let hint =
                if allowed == A_STRING { format!("; write '{word}' in quotes") } else { format!(", not {word}") };
            return plan_err!("{}: argument '{name}' must be {allowed}{hint}", self.function);
        }
        let expr = context.sql_to_expr(value, &DFSchema::empty())?;
        let simplify = SimplifyContext::builder().with_schema(Arc::new(DFSchema::empty())).build();
        let simplifier = ExprSimplifier::new(simplify);
        match simplifier.simplify(simplifier.coerce(expr, &DFSchema::empty())?)? {
            Expr::Literal(value, _) if !value.is_null() => Ok(Some((value, text))),
            _ => plan_err!("{}: argument '{name}' must be {allowed}, not {text}", self.function),
        }
    }

    /// A string.
    pub fn string(&mut self, name: &'static str, context: &mut dyn RelationPlannerContext) -> Result<Option<String>> {
        let Some((value, text)) = self.literal(name, A_STRING, context)? else {
            return Ok(None);
        };
        match value.try_as_str() {
            Some(Some(string)) => Ok(Some(string.to_owned())),
            _ => plan_err!("{}: argument '{name}' must be a string, not {text}", self.function),
        }
    }

    /// One of several words, with what it stands for.
    pub fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        choices: &[(&'static str, T)],
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<T>> {
        let Some(word) = self.string(name, context)? else {
            return Ok(None);
        };
        match choices.iter().find(|(choice, _)| choice.eq_ignore_ascii_case(&word)) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let words: Vec<&str> = choices.iter().map(|(choice, _)| *choice).collect();
                plan_err!(
                    "{}: argument '{name}' is '{word}'{}; allowed are {}",
                    self.function,
                    nearest(&word, &words).map_or(String::new(), |near| format!(", did you mean '{near}'?")),
                    words.join(", ")
                )
            }
        }
    }

    /// A whole number within bounds.
    pub fn integer(
        &mut self,
        name: &'static str,
        allowed: std::ops::RangeInclusive<i64>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<i64>> {
        let words = match allowed.end() {
            &i64::MAX => format!("a whole number of at least {}", allowed.start()),
            end => format!("a whole number from {} to {end}", allowed.start()),
        };
        let Some((value, text)) = self.literal(name, &words, context)? else {
            return Ok(None);
        };
        let number = match value.data_type() {
            kind if kind.is_integer() => value.cast_to(&DataType::Int64).ok(),
            _ => None,
        };
        match number {
            Some(ScalarValue::Int64(Some(number))) if allowed.contains(&number) => Ok(Some(number)),
            _ => plan_err!("{}: argument '{name}' must be {words}, not {text}", self.function),
        }
    }

    /// Whole numbers of at least 1 in a list, or one of them alone.
    pub fn integers(
        &mut self,
        name: &'static str,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<Vec<usize>>> {
        const WORDS: &str = "a list of whole numbers of at least 1 such as [5, 10]";
        let Some((value, text)) = self.literal(name, WORDS, context)? else {
            return Ok(None);
        };
        let list = match &value {
            ScalarValue::List(list) => list.values().clone(),
            one => one.to_array()?,
        };
        let whole = list.data_type().is_integer() && list.null_count() == 0;
        let numbers = if whole { cast(&list, &DataType::Int64)? } else { new_empty_array(&DataType::Int64) };
        let numbers = numbers.as_primitive::<Int64Type>().values();
        if numbers.is_empty() || numbers.iter().any(|number| !(1..=i64::from(i32::MAX)).contains(number)) {
            return plan_err!("{}: argument '{name}' must be {WORDS}, not {text}", self.function);
        }
        Ok(Some(numbers.iter().map(|&number| number as usize).collect()))
    }

    /// A number within bounds.
    pub fn number(
        &mut self,
        name: &'static str,
        allowed: std::ops::RangeInclusive<f64>,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<Option<f64>> {
        let words = match (allowed.start().is_finite(), allowed.end().is_finite()) {
            (true, true) => format!("a number from {} to {}", allowed.start(), allowed.end()),
            (true, false) => format!("a number of at least {}", allowed.start()),
            _ => "a number".to_owned(),
        };
        let Some((value, text)) = self.literal(name, &words, context)? else {
            return Ok(None);
        };
        let number = match value.data_type() {
            kind if kind.is_numeric() => value.cast_to(&DataType::Float64).ok(),
            _ => None,
        };
        match number {
            Some(ScalarValue::Float64(Some(number))) if number.is_finite() && allowed.contains(&number) => {
                Ok(Some(number))
            }
            _ => plan_err!("{}: argument '{name}' must be {words}, not {text}", self.function),
        }
    }

    /// Yes or no.
    pub fn boolean(&mut self, name: &'static str, context: &mut dyn RelationPlannerContext) -> Result<Option<bool>> {
        match self.literal(name, "true or false", context)? {
            None => Ok(None),
            Some((ScalarValue::Boolean(Some(value)), _)) => Ok(Some(value)),
            Some((_, text)) => plan_err!("{}: argument '{name}' must be true or false, not {text}", self.function),
        }
    }

    /// Refuses what stands where nothing is expected.
    pub fn finish(self) -> Result<()> {
        let function = self.function;
        if let Some((name, _)) = self.named.first() {
            return plan_err!("{function}: argument '{name}' has no meaning beside the others; leave it out");
        }
        match self.positional.first() {
            Some(SqlExpr::BinaryOp { left, op: BinaryOperator::Eq, right }) => {
                plan_err!("{function}: '{left} = {right}' is a comparison; write {left} => {right}")
            }
            Some(value) => plan_err!("{function}: nothing is expected at the place of '{value}'; name the argument"),
            None => Ok(()),
        }
    }
}

/// The plan of a relation that is an argument.
pub fn planned(subquery: Box<Query>, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
    let derived = TableFactor::Derived { lateral: false, subquery, alias: None, sample: None };
    let plan = context.plan(derived)?;
    // The types of a UNION are settled only here, and the operator's result takes its types from the input.
    TypeCoercion::new().analyze(plan, context.context_provider().options())
}

/// The word most like this one, if any is like it at all.
pub fn nearest<'a>(word: &str, words: &[&'a str]) -> Option<&'a str> {
    let likeness = |candidate: &&str| strsim::jaro_winkler(&word.to_lowercase(), &candidate.to_lowercase());
    let best = words.iter().copied().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    // Two letters that changed places weigh too much in short words.
    let slip = || words.iter().copied().find(|candidate| strsim::damerau_levenshtein(word, candidate) == 1);
    if likeness(&best) > 0.75 { Some(best) } else { slip() }
}

/// Rewrites a relation argument written as a name or a quoted path into the query that reads all of it.
///
/// DataFusion collects the tables of a statement before it plans, and does not look for them among the arguments
/// of functions; inside a query it finds them.
pub fn name_to_query(value: &mut SqlExpr) -> Result<()> {
    let words = match value {
        SqlExpr::Identifier(word) => vec![word.clone()],
        SqlExpr::CompoundIdentifier(words) => words.clone(),
        SqlExpr::Value(ValueWithSpan { value: Value::SingleQuotedString(path), span }) => {
            vec![Ident { value: path.clone(), quote_style: Some('\''), span: *span }]
        }
        _ => return Ok(()),
    };
    let mut query = Parser::new(&GenericDialect {}).try_with_sql("SELECT * FROM it")?.parse_query()?;
    // The words keep their place in the statement, so an error about the table can point at it.
    if let SetExpr::Select(select) = query.body.as_mut()
        && let Some(TableFactor::Table { name, .. }) = select.from.first_mut().map(|from| &mut from.relation)
    {
        *name = ObjectName::from(words);
    }
    *value = SqlExpr::Subquery(query);
    Ok(())
}
