//! Which columns of a relation an operator reads, and as what.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::{Column, Result, plan_err};
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, cast};

use super::arguments::nearest;
use super::collect::Columns;
use super::ids::value_type;
use super::vectors::VectorInput;

/// The relation given for one argument, and the columns chosen from it so far.
pub struct Input {
    operator: &'static str,
    argument: &'static str,
    plan: LogicalPlan,
    chosen: Vec<Expr>,
}

impl Input {
    /// Nothing chosen yet from the relation given for `argument` of `operator`.
    pub fn new(operator: &'static str, argument: &'static str, plan: LogicalPlan) -> Self {
        Self { operator, argument, plan, chosen: Vec::new() }
    }

    /// The number of columns of the relation.
    pub fn width(&self) -> usize {
        self.plan.schema().fields().len()
    }

    /// The names of the columns of the relation.
    pub fn names(&self) -> Vec<&str> {
        self.plan.schema().fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Where the column of this name stands, exact first, else regardless of case.
    pub fn find(&self, name: &str) -> Option<usize> {
        let names = self.names();
        let exact = names.iter().position(|column| *column == name);
        exact.or_else(|| names.iter().position(|column| column.eq_ignore_ascii_case(name)))
    }

    /// Where the column named by an argument stands.
    pub fn named(&self, argument: &str, name: &str) -> Result<usize> {
        match self.find(name) {
            Some(at) => Ok(at),
            None => {
                let names = self.names();
                let near = nearest(name, &names).map_or(String::new(), |near| format!(", did you mean '{near}'?"));
                plan_err!(
                    "{}: argument '{argument}' names column '{name}', which the input does not have{near}; its columns are {}",
                    self.operator,
                    names.join(", ")
                )
            }
        }
    }

    /// Where the column at this position stands, which must exist.
    pub fn at(&self, position: usize, what: &str) -> Result<usize> {
        if position < self.width() {
            return Ok(position);
        }
        plan_err!(
            "{}: argument '{}' needs a column for the {what} at position {}; it has only {}",
            self.operator,
            self.argument,
            position + 1,
            self.names().join(", ")
        )
    }

    /// The type of a column of ids, its values where it is a dictionary.
    pub fn id_type(&self, column: usize) -> DataType {
        value_type(self.plan.schema().field(column).data_type())
    }

    /// The type of a column as it is.
    pub fn data_type(&self, column: usize) -> DataType {
        self.plan.schema().field(column).data_type().clone()
    }

    /// Whether a column can be a weight.
    pub fn is_number(&self, column: usize) -> bool {
        let data_type = self.data_type(column);
        data_type.is_numeric() || data_type == DataType::Boolean
    }

    /// The name of a column.
    pub fn name(&self, column: usize) -> String {
        self.plan.schema().field(column).name().clone()
    }

    /// The text of an error that says what columns it wants.
    pub fn wants(&self, what: &str) -> String {
        let columns = self.names().join(", ");
        format!("{}: argument '{}' needs {what}; its columns are {columns}", self.operator, self.argument)
    }

    /// Where user, item and weight stand: by name where columns are called user_id and item_id, else by position. Of
    /// three columns the third is the weight, whatever it is called; of more, the one called weight or rating.
    pub fn interactions(&self) -> Result<(usize, usize, Option<usize>)> {
        let by_name = self.find("user_id").zip(self.find("item_id"));
        if by_name.is_none() && self.width() > 3 {
            return plan_err!(
                "{}: argument '{}' has {} columns ({}); select user, item and weight, or call them user_id, item_id and weight",
                self.operator,
                self.argument,
                self.width(),
                self.names().join(", ")
            );
        }
        let (user, item) = match by_name {
            Some(columns) => columns,
            None => (self.at(0, "user")?, self.at(1, "item")?),
        };
        let third = (0..self.width()).find(|at| *at != user && *at != item).filter(|_| self.width() == 3);
        let third = third.filter(|at| by_name.is_none() || self.is_number(*at));
        let named = self.find("weight").or(self.find("rating")).filter(|at| *at != user && *at != item);
        let weight = named.or(third);
        Ok((user, item, weight))
    }

    /// Where the id, the neighbor and the score of a neighbor table stand: by name where columns are called neighbor_id and
    /// score, else by position.
    pub fn neighbors(&self) -> Result<(usize, usize, usize)> {
        let Some((neighbor, score)) = self.find("neighbor_id").zip(self.find("score")) else {
            return Ok((self.at(0, "id")?, self.at(1, "neighbor")?, self.at(2, "score")?));
        };
        let known = [Some(neighbor), Some(score), self.find("rank")];
        let others: Vec<usize> = (0..self.width()).filter(|at| !known.contains(&Some(*at))).collect();
        match others[..] {
            [id] => Ok((id, neighbor, score)),
            _ => plan_err!(
                "{}: a neighbor table is an id, neighbor_id, score and rank; these columns are {}: select the ones to use",
                self.operator,
                self.names().join(", ")
            ),
        }
    }

    fn column(&self, at: usize) -> Expr {
        Expr::Column(Column::from(self.plan.schema().qualified_field(at)))
    }

    /// Reads a column as ids of this type.
    pub fn choose_id(&mut self, column: usize, as_type: &DataType) -> Result<()> {
        let expr = self.column(column);
        // Of a dictionary only the values that occur are looked at, so it stays one.
        if self.id_type(column) == *as_type {
            self.chosen.push(expr);
            return Ok(());
        }
        let ids_compare = same_kind(&self.id_type(column), as_type);
        if !ids_compare || !expr.get_type(self.plan.schema()).is_ok_and(|from| can_cast(&from, as_type)) {
            return plan_err!(
                "{}: argument '{}' has ids of type {} in column '{}', but ids of type {as_type} are needed to match; cast one of them",
                self.operator,
                self.argument,
                self.data_type(column),
                self.name(column)
            );
        }
        self.chosen.push(cast(expr, as_type.clone()).alias(self.name(column)));
        Ok(())
    }

    /// Reads a column as weights.
    pub fn choose_weight(&mut self, column: usize) -> Result<()> {
        let data_type = self.data_type(column);
        if !self.is_number(column) {
            return plan_err!(
                "{}: argument '{}' has weights in column '{}', which is {data_type}; a number is needed",
                self.operator,
                self.argument,
                self.name(column)
            );
        }
        let expr = self.column(column);
        let single = cast(expr, DataType::Float32).alias(self.name(column));
        self.chosen.push(single);
        Ok(())
    }

    /// Reads a column as vectors.
    pub fn choose_vector(&mut self, column: usize) -> Result<()> {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true)));
        let from = self.data_type(column);
        if !can_cast(&from, &list) {
            return plan_err!(
                "{}",
                self.wants(&format!("lists of numbers in column '{}', not {from}", self.name(column)))
            );
        }
        self.chosen.push(cast(self.column(column), list).alias(self.name(column)));
        Ok(())
    }

    /// Reads user, item and weight, as [`Input::interactions`] finds them, and nothing else.
    pub fn into_interactions(mut self, skip_nulls: bool) -> Result<(Columns, LogicalPlan)> {
        let (user, item, weight) = self.interactions()?;
        let columns = Columns {
            operator: self.operator.into(),
            ids: vec![self.name(user), self.name(item)],
            types: vec![self.id_type(user), self.id_type(item)],
            weight: weight.map(|at| self.name(at)),
            skip_nulls,
        };
        self.choose_id(user, &columns.types[0])?;
        self.choose_id(item, &columns.types[1])?;
        if let Some(weight) = weight {
            self.choose_weight(weight)?;
        }
        Ok((columns, self.into_plan()?))
    }

    /// The plan that yields the chosen columns.
    pub fn into_plan(self) -> Result<LogicalPlan> {
        // The same column may be chosen twice; a projection wants distinct names.
        let chosen: Vec<Expr> =
            self.chosen.into_iter().enumerate().map(|(at, expr)| expr.alias(format!("column_{at}"))).collect();
        LogicalPlanBuilder::from(self.plan).project(chosen)?.build()
    }
}

/// The inputs of an operator as they come together: their plans, and how those of ids are read.
pub struct Inputs {
    operator: &'static str,
    /// Whether rows with NULL are left out.
    pub skip_nulls: bool,
    /// The plans of all inputs.
    pub plans: Vec<LogicalPlan>,
    /// How the inputs that have ids and at most a weight are read; these come first.
    pub columns: Vec<Columns>,
}

impl Inputs {
    /// None yet.
    pub fn new(operator: &'static str, skip_nulls: bool) -> Self {
        Self { operator, skip_nulls, plans: Vec::new(), columns: Vec::new() }
    }

    /// Adds an input with these columns as ids of these types, and a weight; returns where it stands.
    pub fn add(&mut self, mut input: Input, ids: &[(usize, &DataType)], weight: Option<usize>) -> Result<usize> {
        self.columns.push(Columns {
            operator: self.operator.into(),
            ids: ids.iter().map(|(column, _)| input.name(*column)).collect(),
            types: ids.iter().map(|(_, data_type)| (*data_type).clone()).collect(),
            weight: weight.map(|column| input.name(column)),
            skip_nulls: self.skip_nulls,
        });
        for (column, data_type) in ids {
            input.choose_id(*column, data_type)?;
        }
        if let Some(weight) = weight {
            input.choose_weight(weight)?;
        }
        self.plans.push(input.into_plan()?);
        Ok(self.plans.len() - 1)
    }

    /// Adds a neighbor table of ids of this type.
    pub fn add_neighbors(&mut self, input: Input, id: &DataType) -> Result<usize> {
        let (own, neighbor, score) = input.neighbors()?;
        self.add(input, &[(own, id), (neighbor, id)], Some(score))
    }

    /// Adds a table of vectors of ids of this type.
    pub fn add_vectors(&mut self, input: Input, id: &DataType) -> Result<()> {
        self.plans.push(VectorInput::new(input, Some(id))?.plan);
        Ok(())
    }
}

fn can_cast(from: &DataType, to: &DataType) -> bool {
    datafusion::arrow::compute::can_cast_types(from, to)
}

/// Whether ids of these types can mean the same thing: a number is never a string.
fn same_kind(a: &DataType, b: &DataType) -> bool {
    let kind = |t: &DataType| match t {
        t if t.is_integer() => 0,
        t if t.is_string() => 1,
        t if t.is_binary() => 2,
        _ => 3,
    };
    a == b || (kind(a) == kind(b) && kind(a) < 3)
}
