"""The runs of one head and one seed as a job, since they share a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.workers import Job as WorkerJob
from experiments.workers import run_all

from .runs import REFERENCE, Experiment, Head, Row


@dataclass(frozen=True)
class Job:
    """Rows of one head and one seed; `name` is that of their log."""

    name: str
    experiment: Experiment
    rows: Sequence[Row]
    head: Head
    seed: int

    def complete(self) -> bool:
        """Whether all of its runs are there."""
        return all(self.experiment.complete(row, self.head, self.seed) for row in (REFERENCE, *self.rows))

    def run(self) -> None:
        """Runs what is missing."""
        for row in (REFERENCE, *self.rows):
            self.experiment.run(row, self.head, self.seed)


def run_jobs(jobs: Sequence[Job], workers: int) -> None:
    """Runs what is missing and says what is done."""
    waiting = [
        WorkerJob(job.name, job.experiment.folder / "logs" / f"{job.name}.log", job.run)
        for job in jobs
        if not job.complete()
    ]
    run_all(waiting, workers, "jobs (a head and a seed each)")
