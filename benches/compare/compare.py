"""Compares Lakeside with its peers and with itself, end to end, and keeps the results in benches/RESULTS.md.

    python3 -m venv venv && venv/bin/pip install -r benches/compare/requirements.txt
    venv/bin/python benches/compare/generate.py bench-data
    cargo build --release
    venv/bin/python benches/compare/compare.py bench-data --lakeside target/release/lakeside
    venv/bin/python benches/compare/compare.py bench-data --lakeside target/release/lakeside --only cosine_d20m

Whole processes, Parquet to Parquet, on a machine that does nothing else: ours, theirs, ours, theirs; the first pair
warms up, its answers are compared and its times are not counted. Answers of the pair before are removed. Ratios are medians of the ratios of pairs. Rows that
a call does not run keep what they had; they are stored in results.json beside the table.
"""
import argparse
import json
import re
import shlex
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path

import report
from measure import HERE, Failed, Run, bandwidth, busy, commit, machine, package, python, run

Command = Callable[[str], list[str]]  # of the path to write to


@dataclass
class Goal:
    kind: str  # one of report.KINDS
    must: float | None = None
    aim: float | None = None


@dataclass
class Row:
    name: str
    what: str
    ours: Command
    theirs: Command | None  # None: ours stands alone
    rival: str  # who or what theirs is
    goals: list[Goal]
    data: list[str]  # ours and, where the cost of a multiply-add is compared, theirs
    check: list[str] = field(default_factory=list)  # arguments of check.py around the two answers
    once: bool = False  # ours takes too long to repeat
    first: list[str] = field(default_factory=list)  # makes what both read


class Bench:
    """The settings of a call, and the commands made from them."""

    def __init__(self, args: argparse.Namespace, folder: Path):
        self.data = args.data.resolve()
        binary = shutil.which(args.lakeside)
        if binary is None:
            raise SystemExit(f"{args.lakeside} is no program; name one with --lakeside")
        self.binary = str(Path(binary).resolve())
        self.threads, self.runs, self.folder = args.threads, args.runs, folder

    def sql(self, statement: str, *flags: str) -> list[str]:
        return [self.binary, "sql", "--threads", str(self.threads), *flags, "-c", statement]

    def events(self, data: str, columns: str) -> str:
        return f"SELECT {columns} FROM '{self.data / data}/'"

    def neighbors(self, data: str, metric: str = "cosine", k: int = 50) -> str:
        events = self.events(data, "item_id, user_id, rating")
        return f"SELECT * FROM neighbors(({events}), metric => '{metric}', k => {k})"

    def similar(self, data: str, metric: str = "cosine", k: int = 50,
                flags: Callable[[], list[str]] = list) -> Command:
        return lambda out: self.sql(f"COPY ({self.neighbors(data, metric, k)}) TO '{out}'", *flags())

    def lists(self, data: str) -> Command:
        history = self.events(data, "user_id, item_id, rating")
        near = f"SELECT item_id, neighbor_id, score FROM '{self.neighbors_file(data)}'"
        query = f"SELECT * FROM recommend(history => ({history}), item_neighbors => ({near}), k => 20)"
        return lambda out: self.sql(f"COPY ({query}) TO '{out}'")

    def neighbors_file(self, data: str) -> str:
        return f"neighbors_{data}.parquet"

    def vectors(self, data: str) -> Command:
        events = self.events(data, "user_id, item_id, rating")
        query = f"SELECT * FROM factorize(({events}), factors => 64, iterations => 5)"
        return lambda out: self.sql(f"COPY ({query}) TO '{out}'")

    def nearest(self, vectors: str, data: str) -> Command:
        side = "SELECT id AS {0}_id, vector FROM '{1}' WHERE side = '{0}'"
        seen = self.events(data, "user_id, item_id")
        query = (f"SELECT * FROM nearest(queries => ({side.format('user', vectors)}), "
                 f"candidates => ({side.format('item', vectors)}), metric => 'dot', k => 20, exclude => ({seen}))")
        return lambda out: self.sql(f"COPY ({query}) TO '{out}'")

    def peer(self, task: str, by: str, data: str, k: int) -> Command:
        rest = ("--k", k, "--threads", self.threads)
        return lambda out: python("peers.py", task, by, self.data / data, out, *rest)

    @cache
    def quarter_of_peak(self, data: str) -> list[str]:
        """Limits to a quarter of what a run without a limit takes."""
        peak = run(self.similar(data)("full.parquet"), self.folder).peak
        return ["--memory-limit", f"{peak * 1e6 / 4 / 2**20:.0f}M"]

    @cache
    def work(self, data: str) -> dict:
        """What a similarity job on this data multiplies, and the seconds of one core in the product alone."""
        found: list[dict] = []
        while len(found) < (3 if not found or found[0]["wall"] < 5 else 1):
            result = run(self.sql(f"EXPLAIN ANALYZE {self.neighbors(data)}"), self.folder)
            node = next((line for line in result.text.splitlines() if "multiply_adds=" in line), "")
            metrics = {name: report.number(value) for name, value in re.findall(r"(\w+)=([\d.]+ ?[^\s,\]]*)", node)}
            if not {"entries", "multiply_adds", "product_time"} <= set(metrics):
                raise Failed("EXPLAIN ANALYZE shows no entries, multiply_adds and product_time of neighbors")
            found.append({"data": data, "entries": metrics["entries"], "multiply_adds": metrics["multiply_adds"],
                          "product": metrics["product_time"] * self.threads, "wall": result.wall})
        return sorted(found, key=lambda metrics: metrics["product"])[len(found) // 2]

    @cache
    def once(self, *argv: str) -> Run:
        """Long jobs run once in a call, however many rows look at them."""
        return run(list(argv), self.folder)


def peers(bench: Bench) -> list[Row]:
    ours = bench.similar("d20m")
    same = ["same", "50"]
    rows = [
        Row("cosine_d20m", "cosine top-50, 16.6 M interactions", ours, bench.peer("cosine", "similaripy", "d20m", 50),
            package("similaripy"), [Goal("faster", 4, 7), Goal("memory", 0.7, 0.4)], ["d20m"], same),
        Row("recommend_d20m", "recommend top-20 for all users, 16.6 M interactions", bench.lists("d20m"),
            bench.peer("recommend", bench.neighbors_file("d20m"), "d20m", 20),
            package("similaripy"), [Goal("faster", 3, 5)], ["d20m"], ["same", "20"],
            first=ours(bench.neighbors_file("d20m"))),
        Row("duckdb_d1m", "cosine top-50, 0.58 M interactions", bench.similar("d1m"),
            bench.peer("cosine", "duckdb", "d1m", 50), f"{package('duckdb')}, self-join",
            [Goal("faster", 40, 80)], ["d1m"], same),
        Row("duckdb_half_d1m", "cosine top-50, 0.58 M interactions", bench.similar("d1m"),
            bench.peer("cosine", "duckdb_half", "d1m", 50), f"{package('duckdb')}, self-join of each pair once",
            [Goal("faster")], ["d1m"], same),
    ]
    # sparse_dot_topn adds up in 32 bits: its scores are 2e-4 from those of implicit, too, which adds up in 64.
    for other, check in (("sparse_dot_topn", [*same, "1e-3"]), ("implicit", same)):
        rows.append(Row(f"{other}_d20m", "cosine top-50, 16.6 M interactions", ours,
                        bench.peer("cosine", other, "d20m", 50), package(other), [Goal("faster")], ["d20m"], check))
    return rows


def ourselves(bench: Bench) -> list[Row]:
    cosine = bench.similar("d20m")
    rows = [
        Row(f"{metric}_d20m", f"{metric} top-50, 16.6 M interactions", bench.similar("d20m", metric), cosine,
            "lakeside, cosine", [Goal("longer", must, aim)], ["d20m"])
        for metric, must, aim in [("jaccard", 1.5, 1.2), ("centered_cosine", 1.5, 1.2), ("pearson", 3, 2)]
    ]
    limited = bench.similar("d20m", flags=lambda: bench.quarter_of_peak("d20m"))
    return rows + [
        Row("text_d20m", "cosine top-50, ids of 36 characters", bench.similar("d20m_text"), cosine,
            "lakeside, integer ids", [Goal("longer", 1.5, 1.2)], ["d20m_text"], ["text", "50"]),
        Row("limit_d20m", "cosine top-50, memory limited to a quarter of the peak", limited, cosine,
            "lakeside without a limit", [Goal("longer", 3, 1.5)], ["d20m"], ["bits"]),
        Row("memory_d200m", "cosine top-50, 200 M interactions", bench.similar("d200m"), None, "",
            [Goal("gigabytes", 16, 8)], ["d200m"], once=True),
    ]


def cost(bench: Bench) -> list[Row]:
    """The cost of a multiply-add as data grows, over the whole process, and as it is skewed, in the product: with ten
    items there is so little to multiply that the whole is reading."""

    def row(data: str, base: str, what: str, once: bool = False) -> Row:
        kind = "growth" if data.startswith("d2") else "skew"
        goals = [Goal("whole", 2, 1), Goal("product")] if kind == "growth" else [Goal("product", 2), Goal("whole")]
        return Row(f"{kind}_{data}", f"cost of a multiply-add: {what}", bench.similar(data), bench.similar(base),
                   f"lakeside, {base}", goals, [data, base], once=once)

    return [
        row("d20m", "d1m", "16.6 M interactions"),
        row("d200m", "d1m", "200 M interactions", once=True),
        row("one_user", "d1m", "one user with 200,000 events"),
        row("one_user_wide", "d20m", "one user with all of 200,000 items"),
        row("one_item", "d1m", "an item in every basket"),
        row("singletons", "d20m", "a million items seen once"),
        row("ten_items", "d20m", "10 items in all"),
    ]


def models(bench: Bench) -> list[Row]:
    implicit, vectors = package("implicit"), "vectors_d20m.parquet"
    return [
        Row("walk_d20m", "walk top-1000, 16.6 M interactions", bench.similar("d20m", "walk", 1000),
            bench.similar("d20m"), "lakeside, cosine top-50", [Goal("longer", 1.5)], ["d20m"]),
        Row("als_d20m", "implicit ALS, 64 factors, 5 iterations, 16.6 M interactions", bench.vectors("d20m"),
            bench.peer("als", "implicit", "d20m", 64), implicit, [Goal("faster", 2, 4), Goal("memory")], ["d20m"]),
        Row("nearest_d20m", "nearest top-20 of 26.7 k items for all 138 k users, 64 dimensions",
            bench.nearest(vectors, "d20m"), bench.peer("nearest", vectors, "d20m", 20), implicit,
            [Goal("faster", 2.5, 4), Goal("memory")], ["d20m"], ["same", "20"], first=bench.vectors("d20m")(vectors)),
    ]


def cleaning(bench: Bench) -> list[Row]:
    """The shipped cleaning steps; each engine writes its four tables under the same names."""
    statements = (HERE / "clean.sql").read_text().replace("{data}", str(bench.data / "dirty20m"))
    return [Row("clean_dirty20m", "cleaning and deduplication, 20.9 M dirty rows, four tables",
                lambda out: bench.sql(statements), bench.peer("clean", "duckdb", "dirty20m", 0), package("duckdb"),
                [Goal("faster", 1), Goal("memory")], ["dirty20m"])]


def all_rows(bench: Bench) -> list[Row]:
    return [*peers(bench), *ourselves(bench), *models(bench), *cleaning(bench), *cost(bench)]


def compared(bench: Bench, row: Row) -> str:
    """What check.py says about the two answers, which the warm-up left in the folder."""
    if not row.check:
        return ""
    how, *rest = row.check
    try:
        return run(python("check.py", how, "ours.parquet", "theirs.parquet", *rest), bench.folder).text.strip()
    except Failed as failure:
        raise Failed(f"the answers differ: {failure}") from failure


def forget(folder: Path) -> None:
    """Removes answers: who replaces a file waits for the system, which writes the new one to disk and lets go of the old one."""
    for name in ("ours.parquet", "theirs.parquet", "clean_*.parquet"):
        for answer in folder.glob(name):
            answer.unlink()


def pairs_of_runs(bench: Bench, row: Row) -> tuple[str, list[tuple[Run, Run | None]]]:
    ours, theirs = row.ours("ours.parquet"), row.theirs and row.theirs("theirs.parquet")
    if theirs is None:
        forget(bench.folder)
        return "", [(bench.once(*ours), None)]

    def pair() -> tuple[Run, Run]:
        forget(bench.folder)
        return bench.once(*ours) if row.once else run(ours, bench.folder), run(theirs, bench.folder)

    pair()
    return compared(bench, row), [pair() for _ in range(bench.runs)]


def ratio(kind: str, ours: Run, theirs: Run | None, work: list[dict]) -> float:
    if kind == "gigabytes" or theirs is None:
        return ours.peak / 1000
    if kind == "product":
        return work[0]["product"] / work[0]["multiply_adds"] / (work[1]["product"] / work[1]["multiply_adds"])
    per = {
        "faster": lambda: theirs.wall / ours.wall,
        "longer": lambda: ours.wall / theirs.wall,
        "memory": lambda: ours.peak / theirs.peak,
        "whole": lambda: ours.wall / theirs.wall * work[1]["multiply_adds"] / work[0]["multiply_adds"],
    }
    return per[kind]()


def measured(bench: Bench, row: Row) -> dict:
    """One row of results.json."""
    facts = {"name": row.name, "what": row.what, "rival": row.rival, "date": date.today().isoformat()}
    try:
        if row.first:
            run(row.first, bench.folder)
        check, pairs = pairs_of_runs(bench, row)
        work = [bench.work(data) for data in row.data] if len(row.data) == 2 else []
    except Failed as failure:
        return {**facts, "failed": str(failure), "goals": []}
    sides = {"ours": [pair[0] for pair in pairs][: 1 if row.once else None],
             "theirs": [pair[1] for pair in pairs if pair[1]]}
    facts |= {side: {name: [getattr(each, name) for each in runs] for name in ("wall", "cpu", "peak")}
              for side, runs in sides.items() if runs}
    goals = []
    for goal in row.goals:
        value = statistics.median(ratio(goal.kind, *pair, work) for pair in pairs)
        goals.append({"kind": goal.kind, "value": value, "must": goal.must, "aim": goal.aim})
    commands = [command and shown(bench, command(out)) for command, out in
                ((row.ours, "ours.parquet"), (row.theirs, "theirs.parquet"))]
    return {**facts, "goals": goals, "check": check, "work": work, "commands": [c for c in commands if c]}


def shown(bench: Bench, argv: list[str]) -> str:
    """A command without this machine's paths."""
    paths = {bench.binary: "lakeside", sys.executable: "python", str(bench.data): "DATA",
             str(HERE): "benches/compare"}
    text = shlex.join(argv).replace("'\"'\"'", "\0")
    for path, name in paths.items():
        text = text.replace(path, name)
    # What the shell wants for a quote in a quote is hard on the eye; double quotes around do as well.
    return re.sub(r"'([^']*\0[^']*)'", r'"\1"', text).replace("\0", "'")


def chosen(rows: list[Row], only: list[str]) -> list[Row]:
    """The rows of these names; what is no name stands for all rows that begin with it."""
    names = {row.name for row in rows}
    begins = tuple(name for name in only if name not in names)
    for name in begins:
        if not any(row.name.startswith(name) for row in rows):
            raise SystemExit(f"no row begins with {name}; there are: {', '.join(row.name for row in rows)}")
    return [row for row in rows if not only or row.name in only or row.name.startswith(begins)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="where generate.py wrote")
    parser.add_argument("--lakeside", default="lakeside", metavar="BINARY")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="counted pairs [3]")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of ours and theirs [2]")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="rows, or what names begin with")
    parser.add_argument("--out", type=Path, default=HERE.parent / "RESULTS.md")
    parser.add_argument("--commit", default=None, help="what the binary was built from [the checkout's]")
    return parser.parse_args()


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the folder is cleared and the child stopped
    args = arguments()
    store = args.out.with_name("results.json")
    results = json.loads(store.read_text()) if store.exists() else {"rows": {}}
    with tempfile.TemporaryDirectory(prefix="lakeside-compare-") as folder:
        bench = Bench(args, Path(folder))
        rows = chosen(all_rows(bench), args.only)
        others = busy()
        if others > 0.1:
            print(f"Others use {others:.0%} of this machine: times will be off.", file=sys.stderr)
        state = {"busy": others, "lakeside": args.commit or commit(),
                 "machine": f"{machine()}; {bandwidth(bench.folder)}",
                 "with": ", ".join(package(name) for name in ("numpy", "scipy", "pyarrow"))}
        for row in rows:
            absent = [data for data in row.data if not (bench.data / data).is_dir()]
            if absent:
                print(f"{row.name}: no data; make it with generate.py {args.data} {' '.join(absent)}")
                continue
            results["rows"][row.name] = measured(bench, row) | state
            print(report.brief(results["rows"][row.name]), flush=True)
            results["order"] = [row.name for row in all_rows(bench)]
            store.write_text(json.dumps(results, indent=1) + "\n")
            args.out.write_text(report.markdown(results))


if __name__ == "__main__":
    main()
