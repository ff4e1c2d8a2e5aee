//! `split`: which interactions are for training and which for the test.

mod docs;

use datafusion::common::{Column, Result, ScalarValue, plan_err};
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{
    Documentation, Expr, ExprFunctionExt, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast, ident, lit, when,
};

use super::arguments::Arguments;
use super::input::Input;
use super::planner::Operator;
use datafusion::arrow::datatypes::DataType;

/// `FROM split(interactions, method => .., ..)`
#[derive(Debug)]
pub struct SplitOperator;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Method {
    Random,
    LastN,
    Time,
    KFold,
    Custom,
}

const METHODS: [(&str, Method); 5] = [
    ("random", Method::Random),
    ("last_n", Method::LastN),
    ("time", Method::Time),
    ("k_fold", Method::KFold),
    ("custom", Method::Custom),
];

impl Operator for SplitOperator {
    fn name(&self) -> &'static str {
        "split"
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["interactions"]
    }

    fn documentation(&self) -> Documentation {
        docs::documentation()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(interactions) = arguments.relation("interactions", context)? else {
            return plan_err!(
                "split: argument 'interactions' is missing; give a table or (SELECT user_id, item_id, ..)"
            );
        };
        let input = Input::new("split", "interactions", interactions.clone());
        let Some(method) = arguments.choice("method", &METHODS, context)? else {
            return plan_err!(
                "split: argument 'method' is missing; allowed are {}",
                METHODS.map(|(name, _)| name).join(", ")
            );
        };
        for added in ["split", "fold"] {
            if input.find(added).is_some() && (added == "split" || method == Method::KFold) {
                return plan_err!(
                    "split: the input has a column '{added}' already, which is a column of the result; rename it"
                );
            }
        }
        let mut choice = Choice { input: &input, arguments: &mut arguments, context };
        let (plan, is_test, fold) = choice.test_rows(method, interactions)?;
        arguments.finish()?;
        let mut columns: Vec<Expr> = input.names().into_iter().map(ident).collect();
        columns.push(when(is_test, lit("test")).otherwise(lit("train"))?.alias("split"));
        columns.extend(fold.map(|fold| fold.alias("fold")));
        LogicalPlanBuilder::from(plan).project(columns)?.build()
    }
}

/// What decides where a row goes.
struct Choice<'a, 'b> {
    input: &'a Input,
    arguments: &'a mut Arguments,
    context: &'a mut (dyn RelationPlannerContext + 'b),
}

impl Choice<'_, '_> {
    /// The rows, what tells those of the test, and the number of the fold where there are folds.
    fn test_rows(&mut self, method: Method, rows: LogicalPlan) -> Result<(LogicalPlan, Expr, Option<Expr>)> {
        Ok(match method {
            Method::Random => {
                let share = self.arguments.number("test", 0.0..=1.0, self.context)?.unwrap_or(0.2);
                (rows, self.uniform()?.lt(lit(share)), None)
            }
            Method::KFold => {
                let folds = self.arguments.integer("folds", 2..=1000, self.context)?.unwrap_or(5);
                let number = cast(self.uniform()? * lit(folds as f64), DataType::Int32) + lit(1i32);
                let test = self.arguments.integer("fold", 1..=folds, self.context)?.unwrap_or(1) as i32;
                (rows, number.clone().eq(lit(test)), Some(number))
            }
            Method::LastN => {
                let n = self.arguments.integer("n", 1..=i64::from(i32::MAX), self.context)?.unwrap_or(1);
                let (user, item) = (self.column("user", "user_id")?, self.column("item", "item_id")?);
                let time = self.time()?;
                // Every column breaks ties, so that equal times leave no choice.
                let others = self.input.names().into_iter().map(|name| ident(name).sort(false, true));
                let order = [time.sort(false, false), item.sort(false, true)].into_iter().chain(others).collect();
                let number = row_number().partition_by(vec![user]).order_by(order).build()?.alias(PLACE);
                let plan = LogicalPlanBuilder::from(rows).window(vec![number])?.build()?;
                (plan, ident(PLACE).lt_eq(lit(n as u64)), None)
            }
            Method::Time => {
                let time = self.time()?;
                let Some(at) = self.arguments.value("at", self.context)? else {
                    return plan_err!("split: method 'time' needs argument at => the first moment of the test");
                };
                let data_type = time.get_type(rows.schema())?;
                let Ok(at) = at.cast_to(&data_type) else {
                    return plan_err!(
                        "split: argument 'at' is {at}, which cannot be compared with times of type {data_type}"
                    );
                };
                (rows, time.gt_eq(lit(at)), None)
            }
            Method::Custom => {
                let is_test = self.column("test_column", "is_test")?;
                let data_type = is_test.get_type(rows.schema())?;
                if data_type != DataType::Boolean {
                    return plan_err!(
                        "split: argument 'test_column' names '{is_test}', which is {data_type}; it must be true or false"
                    );
                }
                (rows, is_test, None)
            }
        })
    }

    /// A number in [0, 1) for each row, by its user and item and the seed.
    fn uniform(&mut self) -> Result<Expr> {
        let (user, item) = (self.column("user", "user_id")?, self.column("item", "item_id")?);
        let seed = self.arguments.integer("seed", i64::MIN..=i64::MAX, self.context)?.unwrap_or(0);
        let whole_users = self.arguments.boolean("whole_users", self.context)?.unwrap_or(false);
        let Some(hash) = self.context.context_provider().get_function_meta("hash_uniform") else {
            return datafusion::common::internal_err!("hash_uniform is not registered");
        };
        let args = if whole_users { vec![user, lit(seed)] } else { vec![user, item, lit(seed)] };
        Ok(Expr::ScalarFunction(ScalarFunction::new_udf(hash, args)))
    }

    fn time(&mut self) -> Result<Expr> {
        self.column("time", "ts")
    }

    /// The column that an argument names, else the one of the usual name.
    fn column(&mut self, argument: &'static str, usual: &str) -> Result<Expr> {
        let at = match self.arguments.string(argument, self.context)? {
            Some(name) => self.input.named(argument, &name)?,
            None => match self.input.find(usual) {
                Some(at) => at,
                None => {
                    return plan_err!(
                        "{}",
                        self.input.wants(&format!("a column {usual}, or {argument} => 'its name'"))
                    );
                }
            },
        };
        Ok(Expr::Column(Column::new_unqualified(self.input.name(at))))
    }
}

/// Where a row stands among its user's, the last first.
const PLACE: &str = "place from the last";

impl Arguments {
    /// A value of any type.
    fn value(&mut self, name: &'static str, context: &mut dyn RelationPlannerContext) -> Result<Option<ScalarValue>> {
        Ok(self.literal(name, "a value", context)?.map(|(value, _)| value))
    }
}
