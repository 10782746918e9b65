"""The progress of the Trainer, with log lines that fit a terminal and tables that fit a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers.trainer import DEFAULT_PROGRESS_CALLBACK, Trainer
from transformers.trainer_callback import ProgressCallback, TrainerCallback

from fairpo_trl.hub.privacy import one_line


def _few(metrics: Mapping[str, float] | None) -> dict[str, float]:
    """The entries one reads while training."""
    return {
        key: value
        for key, value in (metrics or {}).items()
        if key.startswith("weight/") or key.endswith(("loss", "/worst_attribute", "map/all", "_runtime"))
    }


class CompactProgressCallback(ProgressCallback):
    """Shows loss, weights and worst attribute beside the bar; trackers and `log_history` get every metric."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """As upstream, with the few entries one reads while training."""
        super().on_log(args, state, control, logs=_few(logs), **kwargs)


def show_little(trainer: Trainer, bar: type[TrainerCallback]) -> None:
    """
    Replaces what shows the progress of a run by something with few entries.

    Args:
        trainer (`~transformers.Trainer`):
            The trainer; one with `disable_tqdm` stays as it is.
        bar (`type`):
            The callback for a terminal. In a notebook the table of evaluations, which transformers shows there, loses
            most of its columns.
    """
    if trainer.pop_callback(ProgressCallback) is not None:
        trainer.add_callback(bar)
    elif trainer.pop_callback(DEFAULT_PROGRESS_CALLBACK) is not None:
        trainer.add_callback(_compact_table(DEFAULT_PROGRESS_CALLBACK))


def _compact_table(kind: type[TrainerCallback]) -> type[TrainerCallback]:
    """`NotebookProgressCallback`, which can be loaded in a notebook only, with few columns."""

    class CompactTableCallback(kind):
        def on_evaluate(
            self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
        ) -> None:
            few = {key: value for key, value in _few(metrics).items() if not key.endswith("_runtime")}
            super().on_evaluate(args, state, control, metrics=few, **kwargs)

    return CompactTableCallback


class BarCallback(ProgressCallback):
    """One bar that carries the last loss, validation mAP and weights; no lines, and no bars of evaluations."""

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, str] = {}

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Puts the few entries one reads while training beside the bar."""
        for key, value in (logs or {}).items():
            name = {"loss": "loss", "eval_map/all": "validation mAP"}.get(key, key.removeprefix("weight/"))
            if name != key or key == "loss":
                self._shown[one_line(name)] = f"{value:.3g}"
        if self.training_bar is not None:
            self.training_bar.set_postfix(self._shown)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Evaluations of a classifier are over before a bar could be read."""
