"""Predictions of ratings against scikit-surprise, on a seeded table of the size of MovieLens 100k.

    venv/bin/python benches/compare/ratings.py --lakeside target/release/lakeside [--python PYTHON_OF_SURPRISE]
    venv/bin/python benches/compare/ratings.py --only-surprise [--python PYTHON_OF_SURPRISE]

Prints a Markdown table. Needs numpy, pandas and pyarrow; PYTHON_OF_SURPRISE (default: the same) scikit-surprise too.
Seconds are from the ratings to the predictions, similarities and factors included: surprise's without reading its
input, Lakeside's of a process from Parquet to Parquet.
"""
import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

USERS, ITEMS, RATINGS = 943, 1682, 100_000
LOWEST, HIGHEST = 1.0, 5.0
K = 40
# Model: surprise's algorithm, whether it goes by users, and Lakeside's baseline.
NEIGHBORS = {
    f"{name}, {side}s": (name, side == "user", baseline)
    for name, baseline in [("KNNBasic", "none"), ("KNNWithMeans", "mean"), ("KNNBaseline", "bias")]
    for side in ("user", "item")
}
MODELS = ["BaselineOnly", *NEIGHBORS, "SVD"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lakeside", default="lakeside")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--only-surprise", action="store_true")
    parser.add_argument("--their-neighbors", action="store_true", help="Lakeside predicts from surprise's similarities")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where to leave the tables and predictions; default: nowhere")
    # What the script asks of the other Python.
    parser.add_argument("--surprise-in", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.surprise_in:
        return surprise_predictions(args.surprise_in)
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        train, test = generate(args.seed)
        train.to_parquet(folder / "train.parquet", index=False)
        test.to_parquet(folder / "test.parquet", index=False)
        describe(train, test)
        subprocess.run([args.python, __file__, "--surprise-in", str(folder)], check=True)
        theirs = Answers(test, pd.read_parquet(folder / "surprise.parquet"))
        seconds = json.loads((folder / "surprise.json").read_text())
        lakeside = None if args.only_surprise else Lakeside(args.lakeside, folder, args.their_neighbors)
        report(test, theirs, seconds, lakeside)


def generate(seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and test, ordered by user and item: surprise breaks ties by the order of its input, Lakeside by ids."""
    random = np.random.default_rng(seed)
    popularity = random.permutation(np.exp(-np.arange(ITEMS) / 290))
    # Everybody has rated 20 items at least, as in MovieLens.
    activity = np.minimum(random.lognormal(0.0, 1.1, USERS), 12.0)
    counts = 20 + np.floor(activity / activity.sum() * (RATINGS - 20 * USERS)).astype(int)
    counts[np.argsort(activity)[: RATINGS - counts.sum()]] += 1
    assert counts.sum() == RATINGS and counts.max() < ITEMS / 2
    # The largest of log p + Gumbel noise are a sample without replacement.
    keys = np.log(popularity) + random.gumbel(size=(USERS, ITEMS))
    order = np.argsort(-keys, axis=1)
    user = np.repeat(np.arange(USERS), counts)
    item = np.concatenate([order[u, :n] for u, n in enumerate(counts)])
    rank = 8
    strength = 0.62 * 0.8 ** np.arange(rank)
    taste = random.normal(size=(USERS, rank)) * strength
    trait = random.normal(size=(ITEMS, rank)) * 0.5
    user_bias = random.normal(0.0, 0.42, USERS)
    # What many have rated is what many like.
    fame = np.log(popularity)
    item_bias = 0.25 * (fame - fame.mean()) / fame.std() + random.normal(0.0, 0.45, ITEMS)
    rating = 3.3 + user_bias[user] + item_bias[item] + (taste[user] * trait[item]).sum(axis=1)
    rating = np.clip(np.rint(rating + random.normal(0.0, 0.83, RATINGS)), LOWEST, HIGHEST)
    table = pd.DataFrame({"user_id": user + 1, "item_id": item + 1, "rating": rating})
    held = random.permutation(RATINGS) < RATINGS // 5
    train, test = (part.sort_values(["user_id", "item_id"], ignore_index=True) for part in (table[~held], table[held]))
    return train, test


def describe(train: pd.DataFrame, test: pd.DataFrame) -> None:
    every = pd.concat([train, test])
    sizes = every.groupby("item_id").size().sort_values(ascending=False)
    unknown = (~test.item_id.isin(train.item_id)).sum()
    print(
        f"{len(every)} ratings of {every.user_id.nunique()} users and {len(sizes)} items, mean {every.rating.mean():.2f}, "
        f"deviation {every.rating.std():.2f}; the most popular tenth of the items has "
        f"{sizes[: ITEMS // 10].sum() / RATINGS:.0%} of them; test: {len(test)}, {unknown} of unknown items\n", flush=True,
    )


def surprise_predictions(folder: Path) -> None:
    import surprise

    train, test = (pd.read_parquet(folder / f"{name}.parquet") for name in ("train", "test"))
    reader = surprise.Reader(rating_scale=(LOWEST, HIGHEST))
    trainset = surprise.Dataset.load_from_df(train, reader).build_full_trainset()
    testset = list(test.itertuples(index=False, name=None))
    seconds = {}
    for model in MODELS:
        if model in NEIGHBORS:
            name, by_user, _ = NEIGHBORS[model]
            similarity = {"name": "pearson", "user_based": by_user}
            algorithm = getattr(surprise, name)(k=K, sim_options=similarity, verbose=False)
        elif model == "SVD":
            algorithm = surprise.SVD(n_factors=20, n_epochs=20, random_state=1)
        else:
            algorithm = surprise.BaselineOnly(verbose=False)
        started = time.time()
        test[model] = [answer.est for answer in algorithm.fit(trainset).test(testset)]
        seconds[model] = time.time() - started
        if model in NEIGHBORS:
            side, raw = ("user", trainset.to_raw_uid) if by_user else ("item", trainset.to_raw_iid)
            ids = np.array([raw(x) for x in range(algorithm.n_x)])
            left, right = np.nonzero((algorithm.sim > 0) & ~np.eye(len(ids), dtype=bool))
            similar = {f"{side}_id": ids[left], "neighbor_id": ids[right], "score": algorithm.sim[left, right]}
            pd.DataFrame(similar).to_parquet(folder / f"similar_{side}.parquet", index=False)
    test.to_parquet(folder / "surprise.parquet", index=False)
    (folder / "surprise.json").write_text(json.dumps(seconds))


class Answers:
    """The predictions of a table, in the order of the test."""

    def __init__(self, test: pd.DataFrame, table: pd.DataFrame):
        if table.duplicated(["user_id", "item_id"]).any():
            raise ValueError("a pair has several predictions")
        self.table = test[["user_id", "item_id"]].merge(table, how="left", on=["user_id", "item_id"])

    def of(self, column: str) -> np.ndarray:
        found = self.table[column].to_numpy(dtype=float, na_value=np.nan)
        if np.isnan(found).any():
            raise ValueError(f"{np.isnan(found).sum()} pairs have no prediction")
        # surprise cuts its predictions to the scale; who asks Lakeside may do so in SQL.
        return np.clip(found, LOWEST, HIGHEST)


class Lakeside:
    def __init__(self, binary: str, folder: Path, their_neighbors: bool):
        self.binary, self.folder, self.their_neighbors = binary, folder, their_neighbors
        self.out = folder / "lakeside.parquet"
        self.train, self.test = f"'{folder}/train.parquet'", f"'{folder}/test.parquet'"

    def statements(self, model: str) -> str:
        pairs = f"pairs => (SELECT user_id, item_id FROM {self.test})"
        history = f"history => (SELECT user_id, item_id, rating FROM {self.train})"
        before, options = "", "baseline => 'bias'"
        if model in NEIGHBORS:
            _, by_user, baseline = NEIGHBORS[model]
            entity, feature = ("user", "item") if by_user else ("item", "user")
            rows = f"(SELECT {entity}_id, {feature}_id, rating FROM {self.train})"
            call = f"neighbors({rows}, metric => 'pearson', k => 1000)"
            similar = f"'{self.folder}/similar_{entity}.parquet'" if self.their_neighbors else call
            similar = f"(SELECT * FROM {similar})"
            options = f"{entity}_neighbors => {similar}, k => {K}, min_k => 1, baseline => '{baseline}'"
        elif model == "SVD":
            before = (
                f"CREATE TABLE vectors AS SELECT * FROM factorize((SELECT user_id, item_id, rating FROM {self.train}), "
                "method => 'als', implicit => false, factors => 20, iterations => 15, regularization => 0.1, seed => 1); "
            )
            options = ", ".join(
                f"{side}_vectors => (SELECT id AS {side}_id, vector FROM vectors WHERE side = '{side}')"
                for side in ("user", "item")
            )
        return f"{before}COPY (SELECT * FROM predict({pairs}, {history}, {options})) TO '{self.out}'"

    def predict(self, model: str, test: pd.DataFrame) -> tuple[np.ndarray, float]:
        self.out.unlink(missing_ok=True)
        started = time.time()
        command = [self.binary, "sql", "--threads", "2", "-c", self.statements(model)]
        done = subprocess.run(command, capture_output=True, text=True)
        seconds = time.time() - started
        if done.returncode:
            raise ValueError(done.stderr.strip())
        return Answers(test, pd.read_parquet(self.out)).of("prediction"), seconds


def errors(predictions: np.ndarray, test: pd.DataFrame) -> tuple[float, float]:
    off = predictions - test.rating.to_numpy()
    return float(np.sqrt((off**2).mean())), float(np.abs(off).mean())


def report(test: pd.DataFrame, theirs: Answers, seconds: dict[str, float], lakeside: Lakeside | None) -> None:
    """"apart" is the share of the pairs whose predictions are more than 0.001 from each other."""
    head = ["model", "surprise RMSE", "MAE", "s"]
    if lakeside:
        head += ["Lakeside RMSE", "MAE", "s", "RMSE less surprise's", "MAE less surprise's", "apart"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head), flush=True)
    failures = []
    for model in MODELS:
        expected = theirs.of(model)
        rmse, mae = errors(expected, test)
        cells = [f"{model} / ALS" if model == "SVD" else model, f"{rmse:.4f}", f"{mae:.4f}", f"{seconds[model]:.1f}"]
        if lakeside:
            try:
                found, took = lakeside.predict(model, test)
                ours = errors(found, test)
                apart = (np.abs(found - expected) > 1e-3).mean()
                cells += [f"{ours[0]:.4f}", f"{ours[1]:.4f}", f"{took:.1f}"]
                cells += [f"{ours[0] - rmse:+.4f}", f"{ours[1] - mae:+.4f}", f"{apart:.1%}"]
            except ValueError as error:
                cells += ["failed"] + ["-"] * 5
                failures.append(f"{model}: {error}")
        print("| " + " | ".join(cells) + " |", flush=True)
    if failures:
        sys.exit("\n" + "\n".join(failures))


if __name__ == "__main__":
    main()
