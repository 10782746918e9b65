"""The progress bar of the Trainer, with log lines that fit a terminal."""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import ProgressCallback

from fairpo_trl.hub.privacy import one_line


class CompactProgressCallback(ProgressCallback):
    """Shows loss, weights and worst attribute beside the bar; trackers and `log_history` get every metric."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """As upstream, with the few entries one reads while training."""
        shown = {
            key: value
            for key, value in (logs or {}).items()
            if key.startswith("weight/") or key.endswith(("loss", "/worst_attribute", "_runtime"))
        }
        super().on_log(args, state, control, logs=shown, **kwargs)


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
