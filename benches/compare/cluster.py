"""Compares a cluster on this machine with one process, and kills executors while it works.

    python3 benches/compare/cluster.py bench-data/d20m --lakeside target/release/lakeside --pairs 3 --kills 20

DATA is a folder that generate.py wrote, the binary one with the feature `cluster`. A scheduler and two executors of one
slot are started on free ports. Measured are, as whole processes by turns, the first pair not counted,

- a project of two steps, `neighbors` and `recommend`, with `--threads 2` and with `--cluster`; answers are compared;
- a query of no work, likewise;
- with --kills, the project N times on the cluster, an executor killed at a random moment and replaced: how many runs
  gave the answer of one process, and how many files belong to no published table.

Times are medians; ratios and differences are medians of those of pairs, with the least and the greatest.
"""
import argparse
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from statistics import median

from measure import Failed, Run, busy, commit, machine, run

NEAR = "SELECT * FROM neighbors(events, entity => 'item_id', feature => 'user_id', weight => 'rating', k => 50)"
LISTS = """SELECT * FROM recommend(history => (SELECT user_id, item_id, rating FROM events),
                                   item_neighbors => near, k => 20)"""
# Whole numbers, so that it does not matter in which order they are added up.
ANSWER = " UNION ALL ".join(
    f"SELECT '{table}', count(*), sum({a} * 3 + {b} * 7), sum(rank * {b}), "
    f"sum(CAST(round(CAST(score AS DOUBLE) * 1e6) AS BIGINT)) FROM {table}"
    for table, a, b in (("near", "item_id", "neighbor_id"), ("lists", "user_id", "item_id"))) + " ORDER BY 1"
# Run and process that wrote it; on a cluster stage.attempt and task.attempt; partition and number.
FILE = re.compile(r"part-(\d+T\d+-[0-9a-f]+)-(?:(\d+)-\d+-(\d+)-\d+-)?(\d+)-(\d+)\.parquet")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Cluster:
    """A scheduler and two executors of one slot, by their ports."""

    def __init__(self, binary: Path, folder: Path):
        self.binary, self.folder, self.port = binary, folder, free_port()
        self.url = f"df://127.0.0.1:{self.port}"
        self.processes: dict[int, subprocess.Popen] = {}

    def command(self, *args: object) -> list[str]:
        return [str(self.binary), *map(str, args)]

    def begin(self, *args: object) -> subprocess.Popen:
        with open(self.folder / "log", "a") as log:
            return subprocess.Popen(self.command(*args), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def executor(self) -> None:
        port, to = free_port(), ("--scheduler-port", self.port, "--work-dir", self.folder)
        self.processes[port] = self.begin("executor", "--bind-port", port, "--vcores", 1, *to)

    def start(self) -> None:
        self.processes[self.port] = self.begin("scheduler", "--bind-port", self.port, "--executor-timeout-seconds", 3)
        self.executor()
        self.executor()
        self.ready()

    def ready(self) -> None:
        """Waits until the scheduler knows the executors that there are, and no others."""
        for _ in range(600):
            told = subprocess.run(self.command("cluster", "status", self.url), capture_output=True, text=True).stdout
            if {self.port, *map(int, re.findall(r" 127\.0\.0\.1:(\d+) ", told))} == self.processes.keys():
                return
            time.sleep(0.1)
        raise Failed(f"executors do not come or go:\n{told}{(self.folder / 'log').read_text()[-1000:]}")

    def replace(self, which: int) -> None:
        port = [port for port in self.processes if port != self.port][which]
        self.processes[port].kill()
        self.processes.pop(port).wait()
        self.executor()

    def stop(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        for process in self.processes.values():
            process.kill()
            process.wait()


class Bench:
    def __init__(self, data: Path, cluster: Cluster):
        self.data, self.cluster, self.project = data, cluster, cluster.folder / "project"
        self.sides = ("--threads", 2), ("--cluster", cluster.url)
        self.project.mkdir()
        about = f'name = "bench"\nlake.url = "lake"\nsources.events.url = {json.dumps(f"{data}/")}\n'
        for name, text in {"near.sql": NEAR, "lists.sql": LISTS, "lakeside.toml": about}.items():
            (self.project / name).write_text(text)

    def run(self, *args: object) -> Run:
        return run(self.cluster.command(*args), self.cluster.folder)

    def ask(self, query: str) -> str:
        return self.run("sql", "--project", self.project, "--format", "csv", "-c", query).text

    def pairs(self, count: int, *args: object) -> list[tuple[float, float]]:
        return [tuple(self.run(*args, *where).wall for where in self.sides) for _ in range(count)]

    def published(self) -> tuple[set[str], int]:
        """The runs that the tables are of, and how many files belong to no table."""
        lake, tasks = self.project / "lake", {}
        files = [file for file in lake.rglob("*") if file.is_file() and file != lake / ".lakeside/lock"]
        for file in files:
            if file.parent.parent == lake and (name := FILE.fullmatch(file.name)):
                tasks.setdefault((file.parent.name, name[1]), set()).add(name.groups())
        newest = dict(sorted(tasks))
        return set(newest.values()), len(files) - sum(len(tasks[table]) for table in newest.items())

    def killed(self, moment: float, which: int, want: str) -> tuple[float, bool, int, bool]:
        """A run on the cluster, one executor of which is killed after so many seconds."""
        began = time.perf_counter()
        client = self.cluster.begin("run", self.project, "--cluster", self.cluster.url)
        try:
            time.sleep(moment)
            during = client.poll() is None
            self.cluster.replace(which)
            with suppress(subprocess.TimeoutExpired):  # one that is stuck is killed, which its exit code shows
                client.wait(600)
        finally:
            client.kill()
            code = client.wait()
        wall = time.perf_counter() - began
        self.cluster.ready()  # and whoever writes late has done so
        runs, stray = self.published()
        new = all(name.endswith(f"-{client.pid:x}") for name in runs)
        right = code == 0 and new and self.ask(ANSWER) == want
        if not right:
            print(f"not right: killed at {moment:.2f} s, exit code {code}, files of {runs}", file=sys.stderr)
        return wall, right, stray, during


def line_of_pairs(what: str, pairs: list[tuple[float, float]], by: list[float], form: str) -> str:
    local, cluster = map(median, zip(*pairs))
    middle, least, most = (form.format(value) for value in (median(by), min(by), max(by)))
    return f"| {what} | {local:.3f} s | {cluster:.3f} s | {middle} ({least} to {most}) |"


def line_of_kills(bench: Bench, count: int, longest: float, want: str) -> str:
    chance = random.Random(7)
    kills = [bench.killed(chance.uniform(0, longest), chance.randrange(2), want) for _ in range(count)]
    walls, right, stray, during = zip(*kills)
    return (f"| project, an executor killed within {longest:.2f} s, {count} times | | {median(walls):.3f} s "
            f"| {sum(right)} right, {sum(stray)} stray files; {sum(during)} killed before the run was done |")


def measured(bench: Bench, count: int, kills: int) -> None:
    want, got = [bench.run("run", bench.project, *where) and bench.ask(ANSWER) for where in bench.sides]
    if got != want:
        raise Failed(f"the answers differ: one process\n{want}cluster\n{got}")
    rows = int(bench.ask("SELECT count(*) FROM events").split()[-1]) / 1e6
    pairs = bench.pairs(count, "run", bench.project)
    print("| what | one process | cluster | |\n| --- | --- | --- | --- |")
    print(line_of_pairs(f"project, {bench.data.name}, {rows:.2f} M rows", pairs, [b / a for a, b in pairs], "{:.2f}x"))
    nothing = bench.pairs(count + 1, "sql", "-c", "SELECT 1")[1:]
    print(line_of_pairs("`SELECT 1`", nothing, [b - a for a, b in nothing], "{:+.3f} s"), flush=True)
    if kills:
        print(line_of_kills(bench, kills, median(pair[1] for pair in pairs), want))


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all that was started is stopped
    os.environ.pop("LAKESIDE_CLUSTER", None)  # one process is to be one
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--lakeside", type=Path, required=True, metavar="BINARY")
    parser.add_argument("--pairs", type=int, default=15, metavar="N", help="counted pairs [15]")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="runs with an executor killed [0]")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lakeside-cluster-") as folder:
        cluster = Cluster(args.lakeside.resolve(), Path(folder))
        bench = Bench(args.data.resolve(), cluster)
        version = f"{bench.run('--version').text.strip()}, checkout {commit()}, Linux {os.uname().release}"
        print(f"{machine()}; {time.strftime('%F')}; {version}; others used {busy():.0%}\n", flush=True)
        try:
            cluster.start()
            measured(bench, args.pairs, args.kills)
        except Failed as failure:
            sys.exit(f"error: {failure}")
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
