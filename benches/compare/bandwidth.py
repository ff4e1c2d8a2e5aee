"""How fast memory can be read, by one core and by all at once: what any kernel that reads rows is bound by."""
import os
import time
from multiprocessing import Barrier, Process, Queue

import numpy as np

MEGABYTES = 512  # far above any cache
ROUNDS = 8


def read(barrier, answers) -> None:
    block = np.ones(MEGABYTES * 1_000_000 // 4, np.float32)
    block.max()
    barrier.wait()
    began = time.perf_counter()
    for _ in range(ROUNDS):
        block.max()
    answers.put(ROUNDS * MEGABYTES / 1000 / (time.perf_counter() - began))


def gigabytes_per_second(processes: int) -> float:
    barrier, answers = Barrier(processes), Queue()
    readers = [Process(target=read, args=(barrier, answers)) for _ in range(processes)]
    for reader in readers:
        reader.start()
    total = sum(answers.get() for _ in readers)
    for reader in readers:
        reader.join()
    return total


if __name__ == "__main__":
    cores = os.cpu_count() or 1
    print(f"{gigabytes_per_second(1):.0f} GB/s read by one core, {gigabytes_per_second(cores):.0f} GB/s by {cores}")
