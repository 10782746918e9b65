"""Win rates of fresh completions while a model trains: in logs and trackers, for the best checkpoint, to stop early.

What it costs: every evaluation writes `prompts * samples` texts with the model in training, and at the first the
reference writes twice as many. The time is logged as `eval_win_rate_difference_runtime`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
from accelerate.utils import gather_object
from peft import PeftModel
from transformers import TrainerCallback

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.evaluation.comparison import Writing
from fairpo_trl.evaluation.completions import Model, Prompt, end_tokens, sample_completions
from fairpo_trl.evaluation.differences import AttributeMeasure
from fairpo_trl.evaluation.judges import Judge
from fairpo_trl.evaluation.writing import Sampling


PREFIX = "eval_win_rate_difference"


class WinRateCallback(TrainerCallback):
    """
    Lets the model write on a few held-out prompts at every evaluation, and judges it against the reference.

    The metrics are `eval_win_rate_difference/NAME` for each attribute (win rate against the reference less that of the
    reference against itself: 0 is as good as it), `.../privileged`, the mean over privileged attributes, and
    `.../worst_held`, the lowest of the others. They are there for `metric_for_best_model` and early stopping. Sampling
    has its own random numbers: training goes on exactly as without it.

    Example:

    ```python
    >>> callback = WinRateCallback(prompts, {"concise": CountJudge("words:fewer"), "polite": my_judge}, ["concise"])
    >>> callback.attach(trainer)  # with metric_for_best_model="win_rate_difference/worst_held", eval_strategy="steps"
    >>> trainer.train()
    ```

    Args:
        prompts (`Sequence`):
            Held-out prompts, plain or conversational.
        judges (`Mapping[str, Judge]`):
            Attribute -> who judges it.
        privileged (`Sequence[str]`):
            Attributes that should get better.
        sampling ([`~fairpo_trl.evaluation.writing.Sampling`], *optional*):
            How texts are drawn; one of up to 256 tokens a prompt by default.
        every (`int`, *optional*):
            Optimizer steps between two measurements, if not at every evaluation; such values cannot choose the best
            checkpoint.
        batch_size (`int`, *optional*, defaults to `16`):
            Rows computed at once.
        seed (`int`, *optional*, defaults to `0`):
            Of the writing: the same at every evaluation, so that what changes is the model.

    Raises:
        ValueError: If there are fewer than two prompts, or a privileged attribute has no judge.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        judges: Mapping[str, Judge],
        privileged: Sequence[str],
        *,
        sampling: Sampling | None = None,
        every: int | None = None,
        batch_size: int = 16,
        seed: int = 0,
    ) -> None:
        if len(prompts) < 2:
            raise ValueError(f"`prompts` must hold at least two prompts, got {len(prompts)}.")
        unknown = [name for name in privileged if name not in judges]
        if unknown:
            raise ValueError(f"`privileged`: {unknown_names_message('attribute', unknown, list(judges))}")
        if every is not None and every < 1:
            raise ValueError(f"`every` must be at least 1, got {every}.")
        self._prompts, self._judges, self._privileged = list(prompts), dict(judges), set(privileged)
        self._sampling, self._every = sampling or Sampling(), every
        self._batch_size, self._seed = batch_size, seed
        self._trainer: Any = None
        self._measures: dict[str, AttributeMeasure] | None = None
        self._found: tuple[int, dict[str, float]] | None = None

    def attach(self, trainer: Any) -> None:
        """
        Adds it to a trainer, before all other callbacks: early stopping then sees its metrics.

        Args:
            trainer ([`~transformers.Trainer`]):
                Its reference is `trainer.ref_model`, or the base of its adapter.

        Raises:
            ValueError: If it has neither.
        """
        model = trainer.accelerator.unwrap_model(trainer.model)
        if getattr(trainer, "ref_model", None) is None and not isinstance(model, PeftModel):
            raise ValueError(
                "There is no reference to compare with: the trainer has neither a `ref_model` nor an adapter that can "
                "be switched off. With `precompute_ref_log_probs` the reference is not kept: leave it out."
            )
        self._trainer = trainer
        trainer.callback_handler.callbacks.insert(0, self)

    def on_evaluate(
        self, args: Any, state: Any, control: Any, metrics: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        """Adds the win rates to the metrics of the evaluation, and logs them."""
        if self._every is None and metrics is not None:
            metrics.update(self._measure(state.global_step))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Logs the win rates, if they come every so many steps."""
        if self._every is not None and state.global_step % self._every == 0:
            self._measure(state.global_step)

    def _measure(self, step: int) -> dict[str, float]:
        """Measured once a step, also if several data sets are evaluated there."""
        if self._trainer is None:
            raise ValueError("Call `callback.attach(trainer)` instead of passing the callback to the trainer.")
        if self._found is not None and self._found[0] == step:
            return self._found[1]
        started = time.time()
        trainer = self._trainer
        model = trainer.accelerator.unwrap_model(trainer.model)
        if self._measures is None:
            with _reference(trainer, model) as reference:
                first, again = (self._write(reference, 2 * self._seed + draw) for draw in (0, 1))
            self._measures = {
                name: AttributeMeasure(name, judge, self._prompts, first, again)
                for name, judge in self._judges.items()
            }
        writing = self._write(model, 2 * self._seed + 1)
        found = {name: float(m.differences(writing).values.mean()) for name, m in self._measures.items()}
        metrics = {f"{PREFIX}/{name}": value for name, value in found.items()}
        gains = [value for name, value in found.items() if name in self._privileged]
        held = [value for name, value in found.items() if name not in self._privileged]
        if gains:
            metrics[f"{PREFIX}/privileged"] = float(np.mean(gains))
        if held:
            metrics[f"{PREFIX}/worst_held"] = min(held)
        # Trainers take entries with a runtime for those of an evaluation.
        metrics[f"{PREFIX}_runtime"] = time.time() - started
        self._found = step, metrics
        trainer.log(dict(metrics))
        return metrics

    def _write(self, model: Model, seed: int) -> Writing:
        """Every process writes on a stretch of the prompts; all get all texts."""
        processes, rank = self._trainer.accelerator.num_processes, self._trainer.accelerator.process_index
        bounds = [len(self._prompts) * i // processes for i in range(processes + 1)]
        start = bounds[rank]
        tokenizer = self._trainer.processing_class
        written = sample_completions(
            model,
            tokenizer,
            self._prompts[start : bounds[rank + 1]],
            **asdict(self._sampling),
            seed=seed,
            batch_size=self._batch_size,
            end_token_ids=end_tokens(model, tokenizer),
            first_prompt=start,
            progress=False,
        )
        texts = [[completion.text for completion in row] for row in written]
        return list(gather_object(texts)) if processes > 1 else texts


@contextmanager
def _reference(trainer: Any, model: Any) -> Iterator[Model]:
    """The reference of a trainer: its own model, a frozen copy of the adapter, or the base without the adapter."""
    if getattr(trainer, "ref_model", None) is not None:
        yield trainer.accelerator.unwrap_model(trainer.ref_model)
    elif "ref" in model.peft_config:  # an adapter that was trained before: TRL keeps a copy of it
        active = model.active_adapter
        model.set_adapter("ref")
        try:
            yield model
        finally:
            model.set_adapter(active)
    else:
        with model.disable_adapter():
            yield model
