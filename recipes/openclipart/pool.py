"""Many small trainings in a few processes."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing import get_context

import torch

from .experiment import REFERENCE, Experiment, Head, Row


@dataclass(frozen=True)
class Job:
    """Rows of one head and one seed, which share a reference; `name` is that of their log."""

    name: str
    experiment: Experiment
    rows: Sequence[Row]
    head: Head
    seed: int

    def complete(self) -> bool:
        """Whether all of its runs are there."""
        return all(self.experiment.complete(row, self.head, self.seed) for row in (REFERENCE, *self.rows))


def run_jobs(jobs: Sequence[Job], workers: int) -> None:
    """Runs what is missing and says what is done; each job's output is in its log. With one worker it runs here."""
    waiting, started = [job for job in jobs if not job.complete()], time.time()
    if not waiting:
        return
    print(f"{len(waiting)} jobs (a head and a seed each) with {workers} processes.", flush=True)
    with ExitStack() as stack:
        names: Iterable[str] = map(_run, waiting)
        if workers > 1:
            pool = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"), one_thread))
            names = pool.map(_run, waiting)
        for done, name in enumerate(names, start=1):
            print(f"[{done}/{len(waiting)}] {name} after {time.time() - started:.0f} s", flush=True)


def one_thread() -> None:
    """Initialises a worker: several small processes use a CPU better than one with several threads."""
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)


def _run(job: Job) -> str:
    log = job.experiment.folder / "logs" / f"{job.name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        for row in (REFERENCE, *job.rows):
            job.experiment.run(row, job.head, job.seed)
    return job.name
