"""Runs a command as a whole process and says what it took. Standard library only.

Linux counts the memory of the process that forks into the peak of its child, so whoever measures must itself stay
small: answers are compared, and memory is timed, in processes of their own.
"""
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent


class Failed(Exception):
    """A command that did not end well; the text is its last words."""


@dataclass
class Run:
    wall: float  # seconds
    cpu: float  # user and system, seconds
    peak: float  # MB
    text: str  # what it printed


def run(argv: list[str], folder: Path) -> Run:
    # Some machines set these to a kernel for older processors, and numpy is then slower than it could be.
    slowing = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    environment = {name: value for name, value in os.environ.items() if name not in slowing}
    with open(folder / "printed", "w+") as printed:
        began = time.perf_counter()
        process = subprocess.Popen(argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=printed,
                                   stderr=subprocess.STDOUT)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            raise
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        printed.seek(0)
        text = printed.read()
    if process.returncode != 0:
        lines = text.strip().splitlines() or [f"exit code {process.returncode}"]
        # Our errors say what happened in their first line, Python's in their last.
        raise Failed(next((line for line in lines if line.startswith("error:")), lines[-1])[:300])
    return Run(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6, text)


def python(script: str, *args: object) -> list[str]:
    return [sys.executable, str(HERE / script), *map(str, args)]


def package(name: str) -> str:
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (absent)"


def git(*args: str) -> str:
    result = subprocess.run(["git", "-C", HERE, *args], capture_output=True, text=True)
    return result.stdout.strip()


def commit() -> str:
    """The checkout's commit, with a + if sources differ from it."""
    changed = git("status", "--porcelain", "--", ":/src", ":/Cargo.toml", ":/Cargo.lock")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def busy() -> float:
    """The share of the processors' time that others take, over a second in which this process sleeps."""
    def times() -> list[int]:
        return [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]

    before = times()
    time.sleep(1)
    spent = [after - earlier for after, earlier in zip(times(), before)]
    return 1 - (spent[3] + spent[4]) / max(1, sum(spent))  # idle, and waiting for disks


def machine() -> str:
    """Processor, cores, memory and how fast that is."""
    processor = Path("/proc/cpuinfo").read_text().splitlines()
    facts = {line.split(":")[0].strip(): line.split(":")[1].strip() for line in processor if ":" in line}
    flags = facts.get("flags", "").split()
    vectors = [name for flag, name in (("avx2", "AVX2"), ("avx512bw", "AVX-512")) if flag in flags]
    model = f"{facts.get('model name', 'unknown')} family {facts.get('cpu family')} model {facts.get('model')}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return f"{model} ({', '.join(vectors) or 'no AVX2'}), {os.cpu_count()} cores, {memory:.0f} GB of memory"


def bandwidth(folder: Path) -> str:
    return run(python("bandwidth.py"), folder).text.strip()
