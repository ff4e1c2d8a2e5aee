"""Writes deterministic synthetic interactions as Parquet: python generate.py OUT_DIR [NAME ..]

Item popularity is Zipf (0.9), user activity log-normal, and 55 % of a user's events fall in one of 40 taste clusters.
Columns: user_id int64, item_id int64, rating float32 (0.5 to 5 by halves), ts timestamp(us), rows in random order.
Without names everything is written: 4 GB of disk, 2.5 GB of memory, about 6 minutes.

d1m            0.58 M interactions of 6,040 users and 3,706 items
d20m           16.56 M interactions of 138,493 users and 26,744 items
d20m_text      d20m with ids of 36 characters
d200m          about 200 M interactions of 2 M users and 200,000 items
one_user       d1m and one user with 200,000 events, so about 54 on each item
one_user_wide  as d1m but with 200,000 items, and one user with an event on each of them
one_item       d1m and an item that every user has
singletons     d20m and a million items seen once each
ten_items      10 items in all, 2 M users
"""
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CLUSTERS = 40
SEED = 7
D1M = (6_040, 3_706, 1_000_000)
D20M = (138_493, 26_744, 20_000_000)


@dataclass
class Shop:
    """Who buys how much of what. Items are ranks of popularity until the very end, when they get their ids."""

    n_items: int
    activity: np.ndarray
    item_of_rank: np.ndarray
    user_cluster: np.ndarray
    cumulative: np.ndarray
    tastes: list[tuple[np.ndarray, np.ndarray]]  # of each cluster: its items, their cumulative share


def shop(rng: np.random.Generator, n_users: int, n_items: int, target_rows: int) -> Shop:
    activity = rng.lognormal(0, 1.1, n_users)
    # A quarter more than asked for, since repeated pairs fall away.
    activity = np.maximum(1, activity / activity.sum() * target_rows * 1.25).astype(np.int64)
    activity = np.minimum(activity, n_items // 4)
    popularity = 1.0 / np.arange(1, n_items + 1) ** 0.9
    item_of_rank = rng.permutation(n_items)
    item_cluster = rng.integers(0, CLUSTERS, n_items)
    user_cluster = rng.integers(0, CLUSTERS, n_users)
    tastes = []
    for cluster in range(CLUSTERS):
        members = np.where(item_cluster == cluster)[0]
        tastes.append((members, np.cumsum(popularity[members]) / popularity[members].sum()))
    cumulative = np.cumsum(popularity) / popularity.sum()
    return Shop(n_items, activity, item_of_rank, user_cluster, cumulative, tastes)


def draw(rng: np.random.Generator, of: Shop, some_users: np.ndarray) -> np.ndarray:
    """Different (user, item) pairs of these users in ascending order, each as user * n_items + item."""
    users = np.repeat(some_users, of.activity[some_users])
    items = np.searchsorted(of.cumulative, rng.random(users.size)).astype(np.int64)
    in_taste = rng.random(users.size) < 0.55
    clusters = of.user_cluster[users]
    for cluster, (members, share) in enumerate(of.tastes):
        rows = in_taste & (clusters == cluster)
        items[rows] = members[np.minimum(np.searchsorted(share, rng.random(rows.sum())), len(members) - 1)]
    items = np.minimum(items, of.n_items - 1)
    return np.unique(users * of.n_items + items)


def ratings(rng: np.random.Generator, rows: int) -> np.ndarray:
    return np.clip(np.round((3.5 + 1.1 * rng.standard_normal(rows)) * 2) / 2, 0.5, 5).astype(np.float32)


def events(rng: np.random.Generator, user: np.ndarray, item: np.ndarray) -> pa.Table:
    """The pairs with ratings and times, in random order."""
    rating = ratings(rng, user.size)
    ts = (1_500_000_000 + rng.integers(0, 3 * 365 * 86400, user.size)).astype(np.int64)
    order = rng.permutation(user.size)
    return pa.table({
        "user_id": pa.array(user[order]),
        "item_id": pa.array(item[order]),
        "rating": pa.array(rating[order]),
        "ts": pa.array(ts[order] * 1_000_000, pa.timestamp("us")),
    })


def even(n_users: int, n_items: int, target_rows: int) -> pa.Table:
    rng = np.random.default_rng(SEED)
    of = shop(rng, n_users, n_items, target_rows)
    pairs = draw(rng, of, np.arange(n_users))
    if pairs.size > target_rows:
        pairs = np.sort(rng.choice(pairs, target_rows, replace=False))
    return events(rng, pairs // n_items, of.item_of_rank[pairs % n_items])


def with_more(core: pa.Table, user: np.ndarray, item: np.ndarray) -> pa.Table:
    """The core and these events among its rows."""
    rng = np.random.default_rng([SEED, core.num_rows, user.size])
    both = pa.concat_tables([core, events(rng, user.astype(np.int64), item.astype(np.int64))])
    return both.take(rng.permutation(both.num_rows)).combine_chunks()


def write(table: pa.Table, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files = 4 if table.num_rows > 2_000_000 else 1
    step = (table.num_rows + files - 1) // files
    for k in range(files):
        pq.write_table(table.slice(k * step, step), folder / f"part-{k}.parquet", compression="zstd")


def text_ids(word: str, ids: np.ndarray) -> np.ndarray:
    """Of each number a text of 36 characters, the same on every run; the word keeps users and items apart."""
    return np.array([str(uuid.uuid5(uuid.NAMESPACE_OID, f"{word} {n}")) for n in ids], dtype=object)


def d20m_text(folder: Path) -> None:
    table = even(*D20M)
    for at, (name, word) in enumerate([("user_id", "user"), ("item_id", "item")]):
        ids = table[name].combine_chunks()
        texts = pa.array(text_ids(word, np.arange(pc.max(ids).as_py() + 1)))
        table = table.set_column(at, name, texts.take(ids))
    write(table, folder)


def d200m(folder: Path, slices: int = 20) -> None:
    """Slices of users, a file each, so that memory holds a slice at a time. A slice takes every twentieth user: a file
    then has users of all ids, as the files of a log have."""
    n_users, n_items = 2_000_000, 200_000
    of = shop(np.random.default_rng(SEED), n_users, n_items, 205_000_000)
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    for k in range(slices):
        rng = np.random.default_rng([SEED, k])
        pairs = draw(rng, of, np.arange(k, n_users, slices))
        table = events(rng, pairs // n_items, of.item_of_rank[pairs % n_items])
        pq.write_table(table, folder / f"part-{k:02}.parquet", compression="zstd")
        total += table.num_rows
    print(f"{folder}: {total} rows")


def one_user(folder: Path) -> None:
    items = np.random.default_rng(SEED).integers(0, D1M[1], 200_000)
    write(with_more(even(*D1M), np.full(items.size, D1M[0]), items), folder)


def one_user_wide(folder: Path) -> None:
    n_users, n_items = 6_040, 200_000
    write(with_more(even(n_users, n_items, 1_000_000), np.full(n_items, n_users), np.arange(n_items)), folder)


def one_item(folder: Path) -> None:
    users = np.arange(D1M[0])
    write(with_more(even(*D1M), users, np.full(users.size, D1M[1])), folder)


def singletons(folder: Path) -> None:
    """Rare items go to users in proportion to what they buy, as a long tail does."""
    core, million = even(*D20M), 1_000_000
    buyers = core["user_id"].to_numpy()[np.random.default_rng(SEED).integers(0, core.num_rows, million)]
    write(with_more(core, buyers, D20M[1] + np.arange(million)), folder)


def ten_items(folder: Path) -> None:
    rng = np.random.default_rng(SEED)
    user, item = np.nonzero(rng.random((2_000_000, 10)) < np.linspace(0.9, 0.3, 10))
    write(events(rng, user, item), folder)


CASES = {
    "d1m": lambda folder: write(even(*D1M), folder),
    "d20m": lambda folder: write(even(*D20M), folder),
    "d20m_text": d20m_text,
    "d200m": d200m,
    "one_user": one_user,
    "one_user_wide": one_user_wide,
    "one_item": one_item,
    "singletons": singletons,
    "ten_items": ten_items,
}


def main() -> None:
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(CASES):
        raise SystemExit(__doc__)
    for name in sys.argv[2:] or CASES:
        CASES[name](Path(sys.argv[1]) / name)
        print(name)


if __name__ == "__main__":
    main()
