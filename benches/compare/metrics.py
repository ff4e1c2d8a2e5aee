"""Checks every metric of ranking_metrics against ranx, rectools and plain numpy, on random lists.

    venv/bin/pip install ranx rectools "pyarrow<21"    # rectools wants numpy 1, which later pyarrow does not take
    venv/bin/python benches/compare/metrics.py --lakeside target/release/lakeside

Prints a line for each metric, k and peer: ours, theirs, the difference, and `equal` or `DIFFERS`; behind it what was done to make
definitions agree, and what the peer says by itself where that is another thing. Fails if a line differs. Takes less than a minute,
most of it for ranx to compile itself.
"""
import argparse
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

KS = [1, 3, 10, 25, 300]  # The longest list is 30 and the catalogue 200: the last k is beyond both.
ALLOWED = 1e-9
SINGLE = 1e-6  # For vectors that are not exact in single precision, which is what Lakeside reckons cosines in.
QUANTILE = 1.959963984540054  # Of the normal distribution, for 95 of 100 cases.
OF_TRUTH = ["precision", "recall", "hit_rate", "ndcg", "map", "mrr", "auc"]
OF_LISTS = ["novelty", "popularity", "diversity", "serendipity"]
OF_ALL = ["coverage", "gini"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lakeside", default="lakeside")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # rectools tells of its own use of pandas.
    with tempfile.TemporaryDirectory() as folder:
        data = Data(np.random.default_rng(11))
        data.describe()
        check = Check(Lakeside(args.lakeside, Path(folder)), data)
        check.ranx()
        check.rectools()
        check.rectools_auc()
        check.rectools_diversity()
        check.serendipity_and_gini()
        check.everything_against_numpy()
        check.order_of_lists()
        check.random_vectors()
        check.compare_rankings()
        check.zeros()
    print(f"{check.lines} lines, {check.failed} of them differ")
    sys.exit(check.failed > 0)


class Lakeside:
    """Runs queries over tables in a folder; `{name}` in a query is the table of that name."""

    def __init__(self, binary: str, folder: Path):
        self.binary, self.folder = binary, folder

    def ask(self, query: str, **tables: pd.DataFrame) -> pd.DataFrame:
        paths = {name: f"'{self.folder}/{name}.parquet'" for name in tables}
        for name, table in tables.items():
            table.to_parquet(self.folder / f"{name}.parquet", index=False)
        answer = self.folder / "answer.parquet"
        copy = f"COPY ({query.format(**paths)}) TO '{answer}'"
        done = subprocess.run([self.binary, "sql", "--threads", "1", "-c", copy], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{copy}\n{done.stdout}{done.stderr}")
        return pq.read_table(answer).to_pandas()


class Data:
    """Random inputs. No pair is there twice; of everything that may be missing, something is."""

    def __init__(self, random: np.random.Generator):
        # Ids in no order, some below 0: 'the smaller item' is not the one that came first.
        ids = random.choice(np.arange(-(10**6), 10**6), 700, replace=False)
        self.users, self.items = ids[:400], ids[400:600]
        self.truth = self.pairs(random, self.users, 12, 0.2)
        self.lists = pd.concat([self.scored(random, model) for model in "ab"]).sample(frac=1, random_state=1)
        # Popular and rare items, and some that nobody had; users whom no other input knows, too.
        self.history = self.pairs(random, np.append(self.users[:300], ids[600:630]), 20, 0.1)
        self.vectors = self.exact_vectors(random)
        self.gauss = self.vectors.assign(vector=list(random.normal(size=(len(self.vectors), 16))))
        self.segments = pd.DataFrame({"user_id": self.users[:350], "segment": random.choice(["x", "y", "z"], 350)})
        inputs = [self.lists, self.truth, self.history]
        self.catalogue = np.unique(np.concatenate([table.item_id for table in inputs]))

    def pairs(self, random, users, most: int, without: float) -> pd.DataFrame:
        """Up to `most` items of each user, of which some are liked more than others; that share of the users has none."""
        likes = 1 / np.arange(3, len(self.items) + 3) ** 1.2
        rows = [
            (user, item)
            for user in users
            if random.random() >= without
            for item in random.choice(self.items, random.integers(0, most + 1), replace=False, p=likes / likes.sum())
        ]
        return pd.DataFrame(rows, columns=["user_id", "item_id"])

    def scored(self, random, model: str) -> pd.DataFrame:
        """Lists of 0 to 30 items with many equal scores, all of them exact in single precision."""
        lists = self.pairs(random, self.users, 30, 0.15)
        lists["score"] = random.integers(-3, 6, len(lists)) / 4
        # So that lists are better than chance.
        found = lists[["user_id", "item_id"]].merge(self.truth.assign(found=0.5), how="left").found.fillna(0.0).to_numpy()
        return lists.assign(score=lists.score + found, model=model)

    def exact_vectors(self, random) -> pd.DataFrame:
        """Vectors whose cosines are exact in single precision: 1, 4 or 16 numbers of one size, so that of length 1 they are powers of
        two. Some are 0, which says nothing of an item; some items have none."""
        items, vectors = random.choice(self.items, 160, replace=False), np.zeros((160, 16))
        for vector in vectors[:140]:
            places = random.choice(16, random.choice([1, 4, 16]), replace=False)
            vector[places] = random.choice([-1, 1], len(places)) * random.integers(1, 6)
        return pd.DataFrame({"item_id": items, "vector": list(vectors)})

    def describe(self) -> None:
        lists = self.lists[self.lists.model == "a"]
        chose, listed, had = (set(table.user_id) for table in (self.truth, lists, self.history))
        sizes = lists.groupby("user_id").size()
        tied = lists.duplicated(["user_id", "score"], keep=False).mean()
        print(
            f"{len(chose | listed)} users: {len(chose - listed)} with truth and no list, {len(listed - chose)} with a list and no truth, "
            f"{len(listed - had)} with a list and no history; {(sizes < 10).sum()} lists shorter than 10, {tied:.0%} of their rows tied; "
            f"{len(self.catalogue)} items, {len(set(self.catalogue) - set(self.history.item_id))} of them nobody had"
        )


def places(lists: pd.DataFrame) -> pd.DataFrame:
    """Lists as the reference says: by falling score, equal ones by the smaller item; `rank` is the place."""
    lists = lists.sort_values(["user_id", "score", "item_id"], ascending=[True, False, True])
    return lists.assign(rank=lists.groupby("user_id").cumcount() + 1).reset_index(drop=True)


class Reference:
    """The documented formulas in plain numpy: of each user, NaN where a user does not count."""

    def __init__(self, data: Data, vectors: pd.DataFrame):
        self.catalogue = data.catalogue
        self.truth = {user: set(rows) for user, rows in data.truth.groupby("user_id").item_id}
        self.history = {user: list(rows) for user, rows in data.history.groupby("user_id").item_id}
        self.had = data.history.item_id.value_counts().to_dict()
        unit = {item: np.asarray(vector, dtype=np.float64) for item, vector in zip(vectors.item_id, vectors.vector)}
        self.unit = {item: vector / np.linalg.norm(vector) for item, vector in unit.items() if vector.any()}

    def of_users(self, ranked: pd.DataFrame, k: int) -> pd.DataFrame:
        lists = {user: list(rows) for user, rows in ranked[ranked["rank"] <= k].groupby("user_id").item_id}
        users = sorted(self.truth.keys() | lists.keys())
        rows = [{**self.against_truth(user, lists.get(user, []), k), **self.by_itself(lists.get(user, []))} for user in users]
        return pd.DataFrame(rows, index=users)

    def against_truth(self, user: int, top: list, k: int) -> dict:
        truth = self.truth.get(user)
        if not truth:
            return {}
        hits = np.array([place for place, item in enumerate(top, 1) if item in truth])
        ideal = np.arange(1, min(k, len(truth)) + 1)
        return {
            "precision": len(hits) / k,
            "recall": len(hits) / len(truth),
            "hit_rate": float(len(hits) > 0),
            "ndcg": (1 / np.log2(hits + 1)).sum() / (1 / np.log2(ideal + 1)).sum(),
            "map": (np.arange(1, len(hits) + 1) / hits).sum() / len(truth),
            "mrr": 1 / hits[0] if len(hits) else 0.0,
            "auc": self.auc(truth, top),
            "serendipity": self.serendipity(user, [top[place - 1] for place in hits], k),
        }

    def auc(self, truth: set, top: list) -> float:
        """By looking at each pair."""
        place = {item: at for at, item in enumerate(top)}
        chosen = np.array([place.get(item, len(top)) for item in truth])
        others = np.array([place.get(item, len(top)) for item in self.catalogue if item not in truth])
        return ((chosen[:, None] < others) + (chosen[:, None] == others) / 2).mean()

    def serendipity(self, user: int, hits: list, k: int) -> float:
        had = [self.unit[item] for item in self.history.get(user, []) if item in self.unit]
        if not had:
            return np.nan
        return sum(1 - np.mean([self.unit[item] @ other for other in had]) for item in hits if item in self.unit) / k

    def by_itself(self, top: list) -> dict:
        if not top:
            return {}
        had = np.array([self.had.get(item, 0) for item in top])
        users = len(self.history)
        units = [self.unit[item] for item in top if item in self.unit]
        cosines = [a @ b for at, a in enumerate(units) for b in units[at + 1 :]]
        return {
            "novelty": -np.log2(np.maximum(had, 1) / users).mean(),
            "popularity": (had / users).mean(),
            "diversity": 1 - np.mean(cosines) if cosines else np.nan,
        }

    def of_all(self, ranked: pd.DataFrame, k: int) -> dict:
        shown = ranked[ranked["rank"] <= k].item_id.value_counts().reindex(self.catalogue, fill_value=0).to_numpy()
        # The mean difference of all pairs over twice the mean.
        gini = np.abs(shown[:, None] - shown).mean() / (2 * shown.mean()) if shown.any() else 0.0
        return {"coverage": (shown > 0).mean(), "gini": gini}


class Check:
    def __init__(self, lakeside: Lakeside, data: Data):
        self.lakeside, self.data = lakeside, data
        self.lines = self.failed = 0
        self.reference = Reference(data, data.vectors)
        self.ranked = {model: places(lists) for model, lists in data.lists.groupby("model")}
        self.reco = self.ranked["a"][["user_id", "item_id", "rank"]]
        self.found = self.metrics(data.vectors).set_index(["model", "metric", "k", "segment"])

    def metrics(self, vectors: pd.DataFrame) -> pd.DataFrame:
        data = self.data
        return self.lakeside.ask(
            f"SELECT * FROM ranking_metrics({{lists}}, {{truth}}, k => {KS}, history => {{history}}, items => {{vectors}}, "
            "segments => {segments})",
            lists=data.lists, truth=data.truth, history=data.history, vectors=vectors, segments=data.segments,
        )

    def tell(self, metric: str, k: int, peer: str, theirs: float, note: str = "") -> None:
        ours = self.found.value["a", metric, k, "all"]
        self.line(f"{metric}@{k}", peer, ours, theirs, note)

    def line(self, name: str, peer: str, ours: float, theirs: float, note: str = "", allowed: float = ALLOWED) -> None:
        # NULL is equal to what numpy and pandas have no mean of, and to nothing else.
        apart = 0.0 if np.isnan(ours) and np.isnan(theirs) else abs(ours - theirs)
        equal = apart <= allowed
        self.lines += 1
        self.failed += not equal
        verdict = ("equal" if equal else "DIFFERS") + (f": {note}" if note else "")
        print(f"{name:<22} {peer:<9} {ours:.12f} {theirs:.12f} {apart:.1e} {verdict}", flush=True)

    def ranx(self) -> None:
        import ranx

        names = [name for name in OF_TRUTH if name != "auc"]
        qrels = {str(user): {str(item): 1 for item in rows} for user, rows in self.data.truth.groupby("user_id").item_id}

        def evaluate(lists: pd.DataFrame, scores: pd.Series) -> dict:
            # It wants the same users in both: those of the truth, with an item that there is not where there is no list.
            run = {user: {} for user in qrels}
            for user, item, score in zip(lists.user_id, lists.item_id, scores):
                if str(user) in run:
                    run[str(user)][str(item)] = float(score)
            run = ranx.Run({user: items or {"nothing": 0.0} for user, items in run.items()})
            return ranx.evaluate(ranx.Qrels(qrels), run, [f"{name}@{k}" for name in names for k in KS])

        # It has no rule for equal scores (its sort is not stable), so it is given places.
        lists = self.data.lists[self.data.lists.model == "a"]
        theirs, tied = evaluate(self.reco, -self.reco["rank"]), evaluate(lists, lists.score)
        for name in names:
            for k in KS:
                note = f"given places; {tied[f'{name}@{k}']:.6f} of equal scores, for which it has no rule"
                self.tell(name, k, "ranx", theirs[f"{name}@{k}"], note)

    def rectools(self) -> None:
        from rectools import metrics

        reco, truth, history, catalogue = self.reco, self.data.truth, self.data.history, self.data.catalogue
        # In all of these it takes the users of the truth for those who count, as we do.
        names = {"precision": "Precision", "recall": "Recall", "hit_rate": "HitRate", "map": "MAP", "mrr": "MRR"}
        for name, theirs in names.items():
            metric = getattr(metrics, theirs)
            for k in KS:
                self.tell(name, k, "rectools", metric(k=k).calc(reco, truth))
        for k in KS:
            theirs = metrics.NDCG(k=k, divide_by_achievable=True).calc(reco, truth)
            bare = metrics.NDCG(k=k).calc(reco, truth)
            self.tell("ndcg", k, "rectools", theirs, f"divide_by_achievable=True; {bare:.6f} by default, which divides by k places")
        for k in KS:
            self.tell("novelty", k, "rectools", metrics.MeanInvUserFreq(k=k).calc(reco, history))
        users = history.user_id.nunique()
        for k in KS:
            count = metrics.AvgRecPopularity(k=k).calc(reco, history)
            share = metrics.AvgRecPopularity(k=k, normalize=True).calc(reco, history)
            note = f"over the users of the history; {count:.6f} by default (users), {share:.6f} with normalize (share of rows)"
            self.tell("popularity", k, "rectools", count / users, note)
        for k in KS:
            count = metrics.CatalogCoverage(k=k).calc(reco, catalogue)
            note = f"normalize=True; {count} by default, a number of items"
            self.tell("coverage", k, "rectools", metrics.CatalogCoverage(k=k, normalize=True).calc(reco, catalogue), note)

    def rectools_auc(self) -> None:
        """Its AUC is of the first so many items that were not chosen; of all of them it is the AUC of a list of the whole catalogue. That
        what is not listed stands level is the mean of the best and the worst order of it."""
        from rectools import metrics

        truth = self.data.truth
        sizes = truth.groupby("user_id").item_id.size()

        def full(k: int, chosen_first: bool) -> pd.DataFrame:
            whole = pd.MultiIndex.from_product([sizes.index, self.data.catalogue], names=["user_id", "item_id"])
            whole = whole.to_frame(index=False)
            whole = whole.merge(self.reco[self.reco["rank"] <= k], how="left").merge(truth.assign(chosen=True), how="left")
            unlisted = whole.chosen.isna() == chosen_first
            whole["key"] = whole["rank"].fillna(10**6 + unlisted)
            return places(whole.assign(score=-whole.key))[["user_id", "item_id", "rank"]]

        def auc(reco: pd.DataFrame) -> float:
            total = 0.0
            for size, users in sizes.groupby(sizes):
                metric = metrics.PartialAUC(k=len(self.data.catalogue) - size)
                own = [table[table.user_id.isin(users.index)] for table in (reco, truth)]
                total += metric.calc_per_user(*own).sum()
            return total / len(sizes)

        for k in KS:
            bare = metrics.PartialAUC(k=k).calc(self.reco, truth)
            theirs = (auc(full(k, True)) + auc(full(k, False))) / 2
            note = (
                f"PartialAUC of all others, mean of the best and worst order of the unlisted; PartialAUC({k}) of the lists is {bare:.6f}, "
                f"which is of the first {k} others and has nothing for the unlisted"
            )
            self.tell("auc", k, "rectools", theirs, note)

    def rectools_diversity(self) -> None:
        from rectools import metrics

        unit = self.reference.unit

        class Cosine(metrics.PairwiseDistanceCalculator):
            def _get_distances_for_item_pairs(self, items_0, items_1):
                known = [(unit.get(a), unit.get(b)) for a, b in zip(items_0, items_1)]
                return np.array([np.nan if a is None or b is None else 1 - a @ b for a, b in known])

        for k in [k for k in KS if k > 1]:
            of_users = metrics.IntraListDiversity(k=k, distance_calculator=Cosine()).calc_per_user(self.reco)
            top = self.reco[(self.reco["rank"] <= k) & self.reco.item_id.isin(unit.keys())]
            two = top.groupby("user_id").size().loc[lambda size: size > 1].index
            note = f"of cosines, over lists of two items with vectors; {of_users.mean():.6f} with its 0 for lists of one item"
            self.tell("diversity", k, "rectools", of_users[two].mean(), note)
        self.tell("diversity", 1, "numpy", np.nan, "NULL, as no list of one item has a pair; rectools has 0")

    def serendipity_and_gini(self) -> None:
        """No peer has what we have."""
        from rectools import metrics

        for k in KS:
            theirs = self.reference.of_users(self.ranked["a"], k).serendipity.mean()
            peer = metrics.Serendipity(k=k).calc(self.reco, self.data.truth, self.data.history, self.data.catalogue)
            note = (
                f"rectools differs, {peer:.6f}: it is of how unpopular hits are for their place, not of vectors, "
                "over users with a list, by its length and not by k"
            )
            self.tell("serendipity", k, "numpy", theirs, note)
        for k in KS:
            self.tell("gini", k, "numpy", self.reference.of_all(self.ranked["a"], k)["gini"], "neither ranx nor rectools has it")

    def everything_against_numpy(self) -> None:
        """Values and intervals of all metrics, models, k and segments; one line for each metric with the largest difference."""
        groups = {"all": None, **{name: set(rows) for name, rows in self.data.segments.groupby("segment").user_id}}
        expected = {}
        for model, ranked in self.ranked.items():
            for k in KS:
                of_users = self.reference.of_users(ranked, k)
                for segment, users in groups.items():
                    values = of_users if users is None else of_users[of_users.index.isin(users)]
                    own = ranked if users is None else ranked[ranked.user_id.isin(users)]
                    margin = QUANTILE * values.std() / np.sqrt(values.count())
                    for name in OF_TRUTH + OF_LISTS:
                        mean = values[name].mean()
                        expected[model, name, k, segment] = (mean, mean - margin[name], mean + margin[name])
                    for name, value in self.reference.of_all(own, k).items():
                        expected[model, name, k, segment] = (value, np.nan, np.nan)
        expected = pd.DataFrame(expected, index=["value", "ci_low", "ci_high"]).T
        expected.index.names = self.found.index.names
        self.line("rows", "numpy", len(self.found), len(expected), "metrics, models, k and segments")
        found = self.found.reindex(expected.index)
        # Where there is none in both, they are equal; where there is one in one of them, they are not.
        apart = (found - expected).abs().mask(found.isna() & expected.isna(), 0.0).fillna(np.inf).max(axis=1)
        for name, most in apart.groupby("metric", sort=False):
            self.line(name, "numpy", most.max(), 0.0, f"the largest difference of {len(most)} values and intervals (models, k, segments)")

    def order_of_lists(self) -> None:
        """Lists by rank, with gaps and equal ranks, and with ids as text, say the same as those by score."""
        data = self.data
        # The same order as by score: dense, with gaps.
        ranked = data.lists.assign(rank=7 - (data.lists.score * 8).astype(int)).drop(columns="score")
        width = 8

        def as_text(table: pd.DataFrame) -> pd.DataFrame:
            text = {name: (table[name] + 10**6).astype(str).str.zfill(width) for name in ["user_id", "item_id"]}
            return table.assign(**text)

        query = f"SELECT * FROM ranking_metrics({{ranked}}, {{truth}}, k => {KS})"
        names = ["model", "metric", "k", "segment"]
        for what, change in [("ranks", lambda table: table), ("ids as text", as_text)]:
            found = self.lakeside.ask(query, ranked=change(ranked), truth=change(data.truth)).set_index(names).value
            same = self.lakeside.ask(query, ranked=data.lists, truth=data.truth).set_index(names).value
            self.line(what, "scores", (found - same).abs().max(), 0.0, "by rank, with gaps and ties, as by score")

    def random_vectors(self) -> None:
        """Cosines are reckoned in single precision."""
        found = self.metrics(self.data.gauss).set_index(["model", "metric", "k", "segment"]).value
        reference = Reference(self.data, self.data.gauss)
        for k in [k for k in KS if k > 1]:
            of_users = reference.of_users(self.ranked["a"], k)
            for name in ["diversity", "serendipity"]:
                note = f"vectors of the normal distribution, in single precision: {SINGLE:g} is allowed"
                self.line(f"{name}@{k}", "numpy", found["a", name, k, "all"], of_users[name].mean(), note, SINGLE)

    def compare_rankings(self) -> None:
        """The paired t-test of scipy, with every user of the truth."""
        from scipy import stats

        # Without a history the catalogue is a smaller one.
        self.reference.catalogue = np.unique(np.concatenate([self.data.lists.item_id, self.data.truth.item_id]))
        query = f"SELECT * FROM compare_rankings({{lists}}, {{truth}}, k => {KS})"
        found = self.lakeside.ask(query, lists=self.data.lists, truth=self.data.truth).set_index(["metric", "k"])
        for name in OF_TRUTH:
            apart = []
            for k in KS:
                a, b = (self.reference.of_users(self.ranked[model], k)[name].dropna() for model in "ab")
                test = stats.ttest_rel(a, b)
                interval = test.confidence_interval(0.95)
                theirs = [(a - b).mean(), interval.low, interval.high, test.pvalue, len(a)]
                apart += list(np.abs(found.loc[(name, k), ["difference", "ci_low", "ci_high", "p_value", "users"]] - theirs))
            self.line(f"compare {name}", "scipy", max(apart), 0.0, "difference, interval, p-value and users, the largest of all k")
        self.reference.catalogue = self.data.catalogue

    def zeros(self) -> None:
        """Zeros of both signs are equal scores. Scores closer than single precision tells apart are equal, too, by definition."""
        score = self.data.lists.score
        signs = np.random.default_rng(3).permutation(len(score)) % 2
        lists = self.data.lists.assign(score=score.where(score != 0, np.where(signs, -0.0, 0.0)))
        query = "SELECT * FROM ranking_metrics({lists}, {truth}, k => 10) WHERE model = 'a' AND metric = 'ndcg'"
        found = self.lakeside.ask(query, lists=lists, truth=self.data.truth).value[0]
        theirs = self.reference.of_users(places(lists[lists.model == "a"]), 10).ndcg.mean()
        self.line("signs of zero, ndcg@10", "numpy", found, theirs, "equal scores")


main()
