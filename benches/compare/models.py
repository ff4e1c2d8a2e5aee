"""Checks models against their definitions and peers, on one data set of the generator.

    venv/bin/python benches/compare/models.py bench-data/d1m --lakeside target/release/lakeside

Prints a line for each: what was compared, how far apart, what is allowed.
"""
import argparse
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import scipy.sparse as sp


SEEDS = range(1, 5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("--lakeside", default="lakeside")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args.lakeside, args.data.resolve(), Path(folder))
        check.walks()
        check.ease()
        check.als()


class Check:
    def __init__(self, lakeside: str, data: Path, folder: Path):
        self.lakeside, self.data, self.folder = lakeside, data, folder
        table = pq.read_table(data, columns=["user_id", "item_id", "rating"]).to_pandas()
        self.shape = (table.user_id.max() + 1, table.item_id.max() + 1)
        weights = table.rating.astype(np.float64)
        self.x = sp.csr_matrix((weights, (table.user_id, table.item_id)), shape=self.shape)
        self.rows = f"(SELECT user_id, item_id, rating FROM '{data}/')"

    def ask(self, query: str) -> pd.DataFrame:
        path = self.folder / "answer.parquet"
        copy = f"COPY ({query}) TO '{path}'"
        subprocess.run([self.lakeside, "sql", "--threads", "2", "-c", copy], check=True, capture_output=True)
        return pq.read_table(path).to_pandas()

    def tell(self, what: str, found: float, allowed: str) -> None:
        print(f"{what}: {found:.3g} ({allowed})", flush=True)

    def same_scores(self, what: str, query: str, expected) -> None:
        """The largest difference of scores on the pairs that we list, and by how much a pair that we do not list beats them."""
        found = self.ask(query)
        rows, columns = found.iloc[:, 0].to_numpy(), found.neighbor_id.to_numpy()
        theirs = np.asarray(expected[rows, columns]).ravel()
        self.tell(f"{what}, scores", np.abs(found.score.to_numpy() - theirs).max(), "1e-4")
        # The least listed score of each item against the best that is not listed.
        listed = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=expected.shape)
        rest = sp.csr_matrix(expected - expected.multiply(listed)) if sp.issparse(expected) else sp.csr_matrix(np.where(listed.toarray() > 0, 0, expected))
        rest.setdiag(0)
        full = found.groupby(found.columns[0]).score.agg(["min", "size"])
        best = np.asarray(rest.max(axis=1).todense()).ravel()[full.index]
        worst = (best - full["min"])[full["size"] == full["size"].max()].max()
        self.tell(f"{what}, lists", max(0.0, worst), "1e-4")

    def walks(self) -> None:
        x = self.x
        du, di = np.asarray(x.sum(axis=1)).ravel(), np.asarray(x.sum(axis=0)).ravel()

        def power(d, e):
            with np.errstate(divide="ignore"):
                return sp.diags(np.where(d > 0, d**-e, 0))

        call = f"SELECT * FROM neighbors((SELECT item_id, user_id, rating FROM '{self.data}/'), k => 100, "
        for a, b, c in [(0.5, 1.0, 0.5), (0.9, 0.7, 0.3)]:
            expected = (power(di, a) @ x.T @ power(du, b) @ x @ power(di, c)).tocsr()
            expected.setdiag(0)
            query = call + f"metric => 'walk', a => {a}, b => {b}, c => {c})"
            self.same_scores(f"walk {a} {b} {c} against scipy", query, expected)
        import similaripy

        for alpha, beta in [(1.0, 0.0), (0.8, 0.4)]:
            name, more = ("p3alpha", "") if beta == 0 else ("rp3beta", f", beta => {beta}")
            options = dict(alpha=alpha, k=self.shape[1], verbose=False)
            theirs = similaripy.rp3beta(x.T.tocsr(), beta=beta, **options) if beta else similaripy.p3alpha(x.T.tocsr(), **options)
            theirs = sp.csr_matrix(theirs, dtype=np.float64)
            theirs.setdiag(0)
            query = call + f"metric => '{name}', alpha => {alpha}{more})"
            self.same_scores(f"{name} {alpha} {beta} against similaripy", query, theirs)

    def ease(self) -> None:
        started = time.time()
        gram = (self.x.T @ self.x).toarray()
        present = np.diag(gram) > 0
        gram[np.diag_indices_from(gram)] += 300
        p = np.linalg.inv(gram)
        b = p / -np.diag(p)
        b[np.diag_indices_from(b)] = 0
        theirs = time.time() - started
        b[~present] = 0
        started = time.time()
        found = self.ask(f"SELECT * FROM ease({self.rows}, regularization => 300, k => 100)")
        ours = time.time() - started
        expected = b[found.item_id.to_numpy(), found.neighbor_id.to_numpy()]
        self.tell(f"ease against numpy, {ours:.1f} s against {theirs:.1f} s", np.abs(found.score - expected).max(), "1e-4")

    def als(self) -> None:
        import implicit

        split = f"split((SELECT user_id, item_id, rating, ts FROM '{self.data}/'), method => 'last_n', n => 3)"
        rows = self.ask(f"SELECT user_id, item_id, rating, split FROM {split}")
        train = rows[rows.split == "train"]
        x = sp.csr_matrix((train.rating.astype(np.float32), (train.user_id, train.item_id)), shape=self.shape)
        model = implicit.als.AlternatingLeastSquares(
            factors=64, regularization=0.05, alpha=1.0, iterations=15, random_state=1, num_threads=2
        )
        # Theirs has alpha w where Hu, Koren and Volinsky have 1 + alpha w.
        shifted = x.copy()
        shifted.data += 1
        users = np.unique(train.user_id)
        rows.to_parquet(self.folder / "split.parquet")
        known = f"(SELECT user_id, item_id, rating FROM '{self.folder}/split.parquet' WHERE split = 'train')"
        truth = f"(SELECT user_id, item_id FROM '{self.folder}/split.parquet' WHERE split = 'test')"
        lists = []
        # One start is as good as another to about 1 in 100, so the means of several are compared.
        for seed in SEEDS:
            model = implicit.als.AlternatingLeastSquares(
                factors=64, regularization=0.05, alpha=1.0, iterations=15, random_state=seed, num_threads=2
            )
            model.fit(shifted, show_progress=False)
            ids, scores = model.recommend(users, x[users], N=20)
            theirs = pd.DataFrame({
                "user_id": np.repeat(users, 20), "item_id": ids.ravel().astype(np.int64), "score": scores.ravel(),
            })
            theirs.to_parquet(self.folder / f"theirs{seed}.parquet")
            call = f"factorize({known}, factors => 64, regularization => 0.05, iterations => 15, seed => {seed})"
            self.ask(f"SELECT * FROM {call}")
            (self.folder / "answer.parquet").rename(self.folder / f"vectors{seed}.parquet")
            side = f"(SELECT id AS {{0}}_id, vector FROM '{self.folder}/vectors{seed}.parquet' WHERE side = '{{0}}')"
            lists += [
                f"SELECT 'ours{seed}' AS model, user_id, item_id, score FROM nearest(queries => {side.format('user')}, "
                f"candidates => {side.format('item')}, metric => 'dot', k => 20, "
                f"exclude => (SELECT user_id, item_id FROM {known}))",
                f"SELECT 'theirs{seed}', user_id, item_id, CAST(score AS FLOAT) FROM '{self.folder}/theirs{seed}.parquet'",
            ]
        metrics = f"ranking_metrics(({' UNION ALL '.join(lists)}), {truth}, k => 20)"
        found = self.ask(f"SELECT * FROM {metrics} WHERE metric = 'ndcg'")
        ours, theirs = (found.value[found.model.str.startswith(who)].mean() for who in ("ours", "theirs"))
        self.tell(f"als, ndcg@20 {ours:.4f} over implicit's {theirs:.4f}", ours / theirs, "at least 0.99")


main()
