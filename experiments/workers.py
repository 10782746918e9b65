"""Many trainings in a few processes, each with its output in a log of its own."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Job:
    """
    One piece of work.

    Attributes:
        name (`str`): What is said when it is done.
        log (`Path`): Gets its output.
        work (`Callable`): Does it; a function or method that a worker process can import.
        arguments (`tuple`): What `work` takes.
    """

    name: str
    log: Path
    work: Callable[..., object]
    arguments: tuple[Any, ...] = ()


def run_all(jobs: Sequence[Job], workers: int, what: str) -> None:
    """
    Runs every job and says what is done.

    Args:
        jobs (`Sequence[Job]`): The first ones are begun first.
        workers (`int`): Processes; with one the jobs run here, with all threads of this process.
        what (`str`): What the jobs are, in the plural.
    """
    if not jobs:
        return
    _forget_imports()
    print(f"{len(jobs)} {what} with {workers} process{'es' if workers > 1 else ''}.", flush=True)
    started = time.time()
    with ExitStack() as stack:
        names: Iterable[str] = map(_run, jobs)
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"), _share_cores, (workers,)))
            names = pool.map(_run, jobs)
        for done, name in enumerate(names, start=1):
            print(f"[{done}/{len(jobs)}] {name} after {time.time() - started:.0f} s", flush=True)


def _run(job: Job) -> str:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    with job.log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        job.work(*job.arguments)
    return job.name


def _share_cores(workers: int) -> None:
    """Initialises a worker: several small processes use a CPU better than one with several threads."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    logging.disable(logging.WARNING)
    _forget_imports()


def _forget_imports() -> None:
    """Every training begins with a full garbage collection: what was imported is not looked through each time."""
    gc.freeze()
