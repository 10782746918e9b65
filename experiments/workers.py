"""Many small trainings in a few processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any


def run_all(run: Callable[[Any], str], jobs: Sequence[Any], workers: int, what: str) -> None:
    """
    Runs every job and says what is done.

    Args:
        run (`Callable[[Any], str]`):
            Runs one job and returns its name; a function of a module, which a worker can import.
        jobs (`Sequence[Any]`):
            What `run` takes, one after the other.
        workers (`int`):
            Processes; with one the jobs run here.
        what (`str`):
            What the jobs are, in the plural.
    """
    if not jobs:
        return
    print(f"{len(jobs)} {what} with {workers} process{'es' if workers > 1 else ''}.", flush=True)
    started = time.time()
    with ExitStack() as stack:
        names: Iterable[str] = map(run, jobs)
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"), _one_thread))
            names = pool.map(run, jobs)
        for done, name in enumerate(names, start=1):
            print(f"[{done}/{len(jobs)}] {name} after {time.time() - started:.0f} s", flush=True)


def _one_thread() -> None:
    """Initialises a worker: several small processes use a CPU better than one with several threads."""
    import torch

    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
