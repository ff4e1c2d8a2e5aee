"""The tasks as a user of each peer would write them, Parquet to Parquet:

python peers.py cosine similaripy|sparse_dot_topn|implicit INTERACTIONS_DIR OUT.parquet [--k 50] [--threads 2]
python peers.py cosine duckdb|duckdb_half                  INTERACTIONS_DIR OUT.parquet
python peers.py recommend NEIGHBORS.parquet                INTERACTIONS_DIR OUT.parquet [--k 20]

python peers.py als implicit                               INTERACTIONS_DIR OUT.parquet [--k 64]
python peers.py nearest VECTORS.parquet                    INTERACTIONS_DIR OUT.parquet [--k 20]
python peers.py clean duckdb                               DIRTY_DIR -

duckdb joins the events with themselves; duckdb_half computes each pair once and turns it round afterwards.
recommend is similaripy's masked product: unseen items for every user from item_id, neighbor_id, score.
als makes vectors of k numbers in 5 iterations; nearest is implicit's recommend: unseen items for every user from side, id,
vector.
"""
import argparse
from pathlib import Path

# Each peer is imported where it is used: a process shall pay for its own libraries only.


def load(folder: str):
    """Users by items as a sparse matrix, and the ids of both."""
    import numpy as np
    import pyarrow.parquet as pq
    import scipy.sparse as sp

    table = pq.read_table(folder, columns=["user_id", "item_id", "rating"])
    user = table["user_id"].combine_chunks().dictionary_encode()
    item = table["item_id"].combine_chunks().dictionary_encode()
    weight = table["rating"].to_numpy().astype(np.float32)
    shape = (len(user.dictionary), len(item.dictionary))
    matrix = sp.csr_matrix((weight, (user.indices.to_numpy(), item.indices.to_numpy())), shape)
    return matrix, user.dictionary.to_numpy(), item.dictionary.to_numpy()


def write(out: str, names: tuple[str, str], left, right, scores) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({names[0]: left, names[1]: right, "score": scores}), out)


def implicit(matrix, k: int, threads: int):
    from implicit.nearest_neighbours import CosineRecommender

    model = CosineRecommender(K=k, num_threads=threads)
    model.fit(matrix, show_progress=False)
    return model.similarity


def similaripy(matrix, k: int, threads: int):
    import similaripy

    return similaripy.cosine(matrix.T.tocsr(), k=k, num_threads=threads, verbose=False)


def sparse_dot_topn(matrix, k: int, threads: int):
    import numpy as np
    import scipy.sparse as sp
    from sparse_dot_topn import sp_matmul_topn

    items = matrix.T.tocsr()
    norm = np.sqrt(np.asarray(items.multiply(items).sum(axis=1)).ravel())
    items = sp.diags(1 / np.maximum(norm, 1e-12)).astype(np.float32).dot(items).tocsr().astype(np.float32)
    return sp_matmul_topn(items, items.T.tocsr(), top_n=k, n_threads=threads, sort=True)


def cosine(peer, folder: str, out: str, k: int, threads: int) -> None:
    import numpy as np

    matrix, _, items = load(folder)
    # One more than asked for: an item is the first of its own neighbors, and goes.
    scores = peer(matrix, k + 1, threads).tocsr()
    rows = np.repeat(np.arange(scores.shape[0]), np.diff(scores.indptr))
    keep = rows != scores.indices
    write(out, ("item_id", "neighbor_id"), items[rows[keep]], items[scores.indices[keep]],
          scores.data[keep].astype(np.float32))


def recommend(neighbors: str, folder: str, out: str, k: int, threads: int) -> None:
    import numpy as np
    import pyarrow.parquet as pq
    import scipy.sparse as sp
    import similaripy

    history, users, items = load(folder)
    pairs = pq.read_table(neighbors, columns=["item_id", "neighbor_id", "score"])
    order = np.argsort(items)
    left, right = (order[np.searchsorted(items[order], pairs[name].to_numpy())] for name in ("item_id", "neighbor_id"))
    similarity = sp.csr_matrix((pairs["score"].to_numpy(), (left, right)), (len(items), len(items)))
    lists = similaripy.dot_product(history, similarity, k=k, filter_cols=history, num_threads=threads, verbose=False)
    lists = lists.tocsr()
    write(out, ("user_id", "item_id"), np.repeat(users, np.diff(lists.indptr)), items[lists.indices],
          lists.data.astype(np.float32))


def als(folder: str, out: str, k: int, threads: int) -> None:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    matrix, users, items = load(folder)
    with threadpool_limits(1, "blas"):  # as implicit wants it: its threads are its own
        model = AlternatingLeastSquares(factors=k, iterations=5, num_threads=threads, random_state=0)
        model.fit(matrix, show_progress=False)
    parts = [("user", users, model.user_factors), ("item", items, model.item_factors)]
    pq.write_table(pa.concat_tables(pa.table({
        "side": np.repeat(side, len(ids)), "id": ids,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
    }) for side, ids, vectors in parts), out)


def nearest(vectors: str, folder: str, out: str, k: int, threads: int) -> None:
    import numpy as np
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    matrix, users, items = load(folder)
    table = pq.read_table(vectors)

    def of(side: str, ids):
        rows = table.filter(pc.equal(table["side"], side))
        known, values = rows["id"].to_numpy(), rows["vector"].combine_chunks().flatten().to_numpy()
        order = np.argsort(known)
        return values.reshape(len(known), -1)[order[np.searchsorted(known[order], ids)]]

    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(num_threads=threads)
        model.user_factors, model.item_factors = of("user", users), of("item", items)
        found, scores = model.recommend(np.arange(len(users)), matrix, N=k)
    write(out, ("user_id", "item_id"), np.repeat(users, k), items[found.ravel()], scores.ravel())


SELF_JOIN = """
COPY (
  WITH events AS (SELECT item_id, user_id, rating FROM '{folder}/*.parquet'),
  norms AS (SELECT item_id, sqrt(sum(rating * rating)) AS norm FROM events GROUP BY item_id),
  dots AS (
    SELECT a.item_id, b.item_id AS neighbor_id, sum(a.rating * b.rating) AS dot
    FROM events a JOIN events b ON a.user_id = b.user_id AND a.item_id {differ} b.item_id
    GROUP BY a.item_id, b.item_id
  ),
  scored AS (
    SELECT d.item_id, d.neighbor_id, d.dot / (i.norm * j.norm) AS score
    FROM dots d JOIN norms i ON i.item_id = d.item_id JOIN norms j ON j.item_id = d.neighbor_id
  ),
  pairs AS ({pairs}),
  ranked AS (
    SELECT *, row_number() OVER (PARTITION BY item_id ORDER BY score DESC, neighbor_id) AS rank FROM pairs
  )
  SELECT * FROM ranked WHERE rank <= {k}
) TO '{out}'
"""
EACH = "FROM scored"
BOTH_WAYS = "FROM scored UNION ALL SELECT neighbor_id, item_id, score FROM scored"


def duckdb_join(differ: str, pairs: str, folder: str, out: str, k: int, threads: int) -> None:
    import duckdb

    connection = duckdb.connect(config={"threads": threads})
    connection.execute(SELF_JOIN.format(differ=differ, pairs=pairs, folder=folder, out=out, k=k))


# What our functions do, in DuckDB's words, but for groups whose deviations have a median of 0, where robust_bounds goes
# by the mean: said exactly, that slows DuckDB down. The tables agree then, row for row.
MACROS = r"""
CREATE MACRO normalize_text(t) AS
  trim(regexp_replace(replace(lower(strip_accents(t)), '''', ''), '[^\p{L}\p{N}]+', ' ', 'g'));
CREATE MACRO robust_bounds(x, w) AS
  {'lower': median(x) - w * 1.4826 * mad(x), 'upper': median(x) + w * 1.4826 * mad(x)};
"""


def clean(folder: str, threads: int) -> None:
    import duckdb

    statements = (Path(__file__).parent / "clean.sql").read_text().replace("{data}", folder)
    # Where first_value is an aggregate, DuckDB calls it first.
    duckdb.connect(config={"threads": threads}).execute(MACROS + statements.replace("first_value(", "first("))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("task", "by", "folder", "out"):
        parser.add_argument(name)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    rest = (args.folder, args.out, args.k, args.threads)
    matrices = {"similaripy": similaripy, "sparse_dot_topn": sparse_dot_topn, "implicit": implicit}
    joins = {"duckdb": ("<>", EACH), "duckdb_half": ("<", BOTH_WAYS)}
    if args.task == "clean" and args.by == "duckdb":
        clean(args.folder, args.threads)
    elif args.task == "recommend":
        recommend(args.by, *rest)
    elif args.task == "als" and args.by == "implicit":
        als(*rest)
    elif args.task == "nearest":
        nearest(args.by, *rest)
    elif args.task == "cosine" and args.by in matrices:
        cosine(matrices[args.by], *rest)
    elif args.task == "cosine" and args.by in joins:
        duckdb_join(*joins[args.by], *rest)
    else:
        parser.error(f"no task {args.task} {args.by}")


if __name__ == "__main__":
    main()
