"""The runs of one head and one seed as a job, and many jobs in a few processes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from experiments.workers import run_all

from .runs import REFERENCE, Experiment, Head, Row


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
    waiting = [job for job in jobs if not job.complete()]
    run_all(_run, waiting, workers, "jobs (a head and a seed each)")


def _run(job: Job) -> str:
    log = job.experiment.folder / "logs" / f"{job.name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
        for row in (REFERENCE, *job.rows):
            job.experiment.run(row, job.head, job.seed)
    return job.name
