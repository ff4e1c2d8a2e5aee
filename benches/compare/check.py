"""Whether two answers agree, in one line; exit code 1 if not. Scores may differ by 1e-4 (of themselves, above 1).

python check.py same OURS.parquet THEIRS.parquet K [1e-4]  the same pairs above the K-th score, and their scores
python check.py text OURS.parquet THEIRS.parquet K [1e-4]  the same, where ours has the texts for the numbers of theirs
python check.py bits OURS.parquet THEIRS.parquet           the same rows, bit for bit, in any order
"""
import sys

import numpy as np
import pyarrow.parquet as pq

from generate import text_ids


class Answer:
    """The first k of each list, as one number per pair in ascending order."""

    def __init__(self, left: np.ndarray, right: np.ndarray, score: np.ndarray, size: int, k: int):
        order = np.lexsort((-score, left))
        left, right, score = left[order], right[order], score[order]
        begins = np.searchsorted(left, np.arange(size + 1))
        rank = np.arange(left.size) - begins[left]
        # A list that is not full has no k-th score: whatever is not in it should not be.
        self.last = np.full(size, -np.inf)
        self.last[left[rank == k - 1]] = score[rank == k - 1]
        kept = rank < k
        pairs = left[kept] * size + right[kept]
        order = np.argsort(pairs)
        self.size, self.pairs, self.score = size, pairs[order], score[kept][order].astype(np.float64)

    def lacks(self, other: "Answer", tolerance: float) -> int:
        """How many pairs of the other's should have been in this one."""
        absent = ~np.isin(other.pairs, self.pairs, assume_unique=True)
        last = self.last[other.pairs[absent] // self.size]
        score = other.score[absent]
        return int((score > last + tolerance * np.maximum(1, np.abs(score))).sum())


def columns(path: str) -> tuple[str, list[np.ndarray]]:
    names = pq.read_schema(path).names
    ids = names[:2]
    table = pq.read_table(path, columns=[*ids, "score"])
    return ids[0], [table[name].to_numpy() for name in (*ids, "score")]


def as_text(word: str, ids: np.ndarray) -> np.ndarray:
    distinct, at = np.unique(ids, return_inverse=True)
    return text_ids(word, distinct)[at]


def same(ours: str, theirs: str, text: bool, k: int, tolerance: float = 1e-4) -> tuple[bool, str]:
    name, ours_columns = columns(ours)
    _, theirs_columns = columns(theirs)
    if text:
        words = (name.removesuffix("_id"), "item")
        theirs_columns[:2] = [as_text(word, ids) for word, ids in zip(words, theirs_columns)]
    ids = [column.astype(str if text else np.int64) for column in (*ours_columns[:2], *theirs_columns[:2])]
    distinct, numbers = np.unique(np.concatenate(ids), return_inverse=True)
    parts = np.split(numbers, np.cumsum([column.size for column in ids])[:-1])
    a = Answer(parts[0], parts[1], ours_columns[2], distinct.size, k)
    b = Answer(parts[2], parts[3], theirs_columns[2], distinct.size, k)
    common, at, there = np.intersect1d(a.pairs, b.pairs, assume_unique=True, return_indices=True)
    apart = np.abs(a.score[at] - b.score[there]) / np.maximum(1, np.abs(b.score[there]))
    worst = apart.max(initial=0)
    faults = a.lacks(b, tolerance) + b.lacks(a, tolerance)
    good = faults == 0 and worst <= tolerance and common.size > 0
    return good, (f"{common.size:,} of {a.pairs.size:,} and {b.pairs.size:,} pairs in common, {faults:,} missing above "
                  f"the {k}th score, scores at most {worst:.1g} apart")


def bits(ours: str, theirs: str) -> tuple[bool, str]:
    name, _ = columns(ours)
    tables = [pq.read_table(path).sort_by([(name, "ascending"), ("rank", "ascending")]) for path in (ours, theirs)]
    equal = tables[0].drop_columns("score").equals(tables[1].drop_columns("score")) and np.array_equal(
        *(table["score"].to_numpy().view(np.int32) for table in tables))
    return equal, f"{tables[0].num_rows:,} rows, {'the same' if equal else 'not the same'} bit for bit"


if __name__ == "__main__":
    if len(sys.argv) < 4:
        raise SystemExit(__doc__)
    how, ours_path, theirs_path = sys.argv[1:4]
    if how == "bits":
        good, sentence = bits(ours_path, theirs_path)
    else:
        good, sentence = same(ours_path, theirs_path, how == "text", int(sys.argv[4]), *map(float, sys.argv[5:]))
    print(sentence)
    sys.exit(0 if good else 1)
