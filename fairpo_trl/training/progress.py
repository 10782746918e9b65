"""The progress bar of the Trainer, with log lines that fit a terminal."""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import ProgressCallback


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
