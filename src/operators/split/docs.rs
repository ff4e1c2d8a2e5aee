//! What the reference says about `split`.

use datafusion::logical_expr::Documentation;

use crate::operators::planner::OPERATORS;

pub(super) fn documentation() -> Documentation {
    Documentation::builder(
        OPERATORS,
        "Marks which interactions are for training and which for the test. The result has the columns of the input and \
`split`, which is 'train' or 'test'; with `k_fold` also `fold`, from 1. No row is lost, and the answer is always the same for \
the same rows, in any order and on any machine: what looks random is a hash of user, item and seed.

| method | test rows |
| --- | --- |
| `random` | a share `test` of the rows |
| `last_n` | of each user the last `n` rows by `time`; of equal times the larger item counts as later. Users with no more than `n` rows have none for training. A row without a time counts as the earliest |
| `time` | rows with `time` at or after `at` |
| `k_fold` | rows whose `fold` is the one asked for; ask for each in turn to test on every row once |
| `custom` | rows whose `test_column` is true; NULL is training |",
        "split(interactions, method => '..' [, name => value ..])",
    )
    .with_sql_example(
        "SELECT user_id, item_id FROM split(ratings, method => 'last_n', n => 1, time => 'rated_at') WHERE split = 'train';",
    )
    .with_argument("interactions", "A table, a quoted path or (SELECT ..), with any columns.")
    .with_argument("method", "One of the above.")
    .with_argument("test", "For random: the share of the test, from 0 to 1. Default 0.2.")
    .with_argument("seed", "For random and k_fold: another number makes another choice. Default 0.")
    .with_argument("whole_users", "For random and k_fold: whether all rows of a user go the same way. Default false.")
    .with_argument("n", "For last_n. Default 1.")
    .with_argument("at", "For time: the first moment of the test, of the type of `time` or what can be cast to it.")
    .with_argument("folds", "For k_fold: how many. Default 5.")
    .with_argument("fold", "For k_fold: which of them is the test. Default 1.")
    .with_argument("test_column", "For custom: the name of a Boolean column. Default 'is_test'.")
    .with_argument("user", "Name of the user's column. Default 'user_id'.")
    .with_argument("item", "Name of the item's column. Default 'item_id'.")
    .with_argument("time", "Name of the column of times. Default 'ts'.")
    .build()
}
