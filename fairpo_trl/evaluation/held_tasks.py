"""Tasks of EleutherAI's lm-eval as held measures: whoever fears that a benchmark falls holds it.

Needs the extra `fairpo_trl[lm-eval]`. A task's file may name Python functions, which are run: as in lm-eval itself, a
task is code of whoever wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.core.messages import require_known, unknown_names_message
from fairpo_trl.evaluation.completions import Model
from fairpo_trl.evaluation.models import ModelSource, load_tokenizer
from fairpo_trl.evaluation.paths import Source
from fairpo_trl.evaluation.writing import kept_numbers
from fairpo_trl.hashing import sha256_of_file


SHARES = ("acc", "acc_norm", "acc_mutual_info", "exact_match", "em", "f1", "mcc_acc", "contains")
"""Metrics whose value of a document lies within 0 and 1."""


class TaskResults:
    """
    One metric of one task of lm-eval, document by document; a measure that [`run_selection`] can hold.

    The numbers are kept on disk by model and task.

    Args:
        task (`str`):
            Its name, or `NAME=METRIC` for another than its first metric, as `hellaswag=acc_norm`.
        open_model (`Callable`):
            Loads a model.
        folder (`str` or `os.PathLike`):
            Where the numbers are kept.
        margin (`float`, *optional*, defaults to `0.02`):
            How far the mean may fall, in the metric's unit: 0.02 is two points of accuracy.
        include_path (`str` or `os.PathLike`, *optional*):
            A folder with task files of one's own, besides those of lm-eval.
        batch_size (`int`, *optional*, defaults to `16`):
            Texts computed at once.
        dtype (`str`, *optional*, defaults to `"auto"`):
            In which `open_model` loads it: a part of what the kept numbers depend on.

    Raises:
        ImportError: If lm-eval is not installed.
        ValueError: If there is no such task, it is a group, or the margin is not positive.
    """

    def __init__(
        self,
        task: str,
        open_model: Callable[[ModelSource], AbstractContextManager[Model]],
        folder: str | os.PathLike[str],
        margin: float = 0.02,
        include_path: str | os.PathLike[str] | None = None,
        batch_size: int = 16,
        dtype: str = "auto",
    ) -> None:
        if find_spec("lm_eval") is None:
            raise ImportError(
                'Tasks need lm-eval, which is not installed: `pip install "fairpo_trl[lm-eval]"`, or leave out '
                "`held_tasks`."
            )
        from lm_eval.tasks import TaskManager

        if not margin > 0:
            raise ValueError(f"The margin of the task {task!r} must be positive, got {margin}.")
        self._task, _, self._metric = task.partition("=")
        self._path = None if include_path is None else Path(include_path).expanduser()
        if self._path is not None and not self._path.is_dir():
            raise ValueError(f"`held_tasks_path`: there is no folder {str(include_path)!r}.")
        own = None if self._path is None else str(self._path)
        # Reading lm-eval's own tasks takes half a minute: not where the folder has the task.
        self._manager = TaskManager(include_path=own, include_defaults=own is None)
        if own is not None and self._task not in self._manager.all_subtasks:
            self._manager = TaskManager(include_path=own)
        require_known("task", [self._task], list(self._manager.all_subtasks))
        self._open, self._folder, self._batch_size, self._dtype = open_model, Path(folder), batch_size, dtype
        self.name, self.margin = task.replace("=", ", "), margin
        share = self._metric in SHARES
        self.lowest: float | None = -1.0 if share else None
        self.highest: float | None = 1.0 if share else None
        self.description = f"lm-eval {version('lm_eval')}, task {self._task}"

    def values(self, source: Source) -> NDArray[np.float64]:
        """
        The metric of each document, higher is better, `[documents]`.

        Raises:
            ValueError: If the model is not loaded here, the task has no such metric for single documents, or the kept
                numbers are damaged.
        """
        if not isinstance(source, ModelSource):
            raise ValueError(f"{source.name!r} is written elsewhere: tasks need a model that is loaded here.")
        key: dict[str, Any] = {
            "model": source.fingerprint(),
            "dtype": self._dtype,
            "task": self._task,
            "metric": self._metric,
            "by": self.description,
        }
        key["files"] = [sha256_of_file(path) for path in sorted(self._path.rglob("*.*"))] if self._path else []
        return kept_numbers(self._folder, "task", key, lambda: self._compute(source))

    def _compute(self, source: ModelSource) -> NDArray[np.float64]:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        with self._open(source) as model:
            wrapped = HFLM(pretrained=model, tokenizer=load_tokenizer(source), batch_size=self._batch_size)
            found: Any = simple_evaluate(
                model=wrapped, tasks=[self._task], task_manager=self._manager, log_samples=True, bootstrap_iters=0
            )
        samples = sorted(found["samples"][self._task], key=lambda sample: sample["doc_id"])
        known = [name for name in samples[0]["metrics"] if isinstance(samples[0].get(name), int | float)]
        metric = self._metric or next(iter(known), "")
        if metric not in known:
            raise ValueError(
                f"`held_tasks`: the task {self._task!r} has "
                + (unknown_names_message("metric", [metric], known) if known else "no metric of single documents.")
            )
        sign = 1.0 if found["higher_is_better"][self._task].get(metric, True) else -1.0
        return sign * np.array([float(sample[metric]) for sample in samples])
