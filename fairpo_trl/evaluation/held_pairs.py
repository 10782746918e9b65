"""Losses of held-out preference pairs as a held measure: what training optimises, on pairs that it has not seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from fairpo_trl.evaluation.completions import Completion, Model
from fairpo_trl.evaluation.guards import mean_token_log_prob
from fairpo_trl.evaluation.models import ModelSource, load_tokenizer
from fairpo_trl.evaluation.paths import Source
from fairpo_trl.evaluation.writing import kept_numbers
from fairpo_trl.hashing import sha256_of_json
from fairpo_trl.preferences.rules import completion_text, prompt_key


class HeldPairLosses:
    """
    Minus the mean DPO loss of the pairs of each prompt, in nats; a measure that [`run_selection`] can hold.

        -mean_pairs log(1 + exp(-beta ((log p(chosen) - log p(rejected)) - (the same of the reference))))

    The reference's own value is minus log 2. The numbers are kept on disk by model and pairs.

    Args:
        pairs (`Sequence[Mapping[str, Any]]`):
            With `prompt`, `chosen` and `rejected`: plain text or messages. The prompt is the unit: losses of pairs
            with the same one are averaged.
        reference (`ModelSource`, *optional*):
            What the loss is relative to.
        open_model (`Callable`):
            Loads a model.
        folder (`str` or `os.PathLike`):
            Where the numbers are kept.
        name (`str`, *optional*, defaults to `"pairs"`):
            What the pairs are called.
        margin (`float`, *optional*, defaults to `0.02`):
            How far the mean loss may rise, in nats.
        beta (`float`, *optional*, defaults to `0.1`):
            Of the loss.
        batch_size (`int`, *optional*, defaults to `16`):
            Texts computed at once.
        dtype (`str`, *optional*, defaults to `"auto"`):
            In which `open_model` loads it: a part of what the kept numbers depend on.

    Raises:
        ValueError: If there are pairs of fewer than two prompts, or the margin is not positive.
    """

    lowest: float | None = None
    highest: float | None = None

    def __init__(
        self,
        pairs: Sequence[Mapping[str, Any]],
        reference: ModelSource,
        open_model: Callable[[ModelSource], AbstractContextManager[Model]],
        folder: str | os.PathLike[str],
        name: str = "pairs",
        margin: float = 0.02,
        beta: float = 0.1,
        batch_size: int = 16,
        dtype: str = "auto",
    ) -> None:
        self._pairs = [{side: pair[side] for side in ("prompt", "chosen", "rejected")} for pair in pairs]
        keys = [prompt_key(pair["prompt"]) for pair in self._pairs]
        self._prompts = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self._prompt_of = np.array([self._prompts[key] for key in keys], dtype=np.intp)
        if len(self._prompts) < 2:
            raise ValueError(f"{name!r} has pairs of {len(self._prompts)} prompts: a measure needs at least two.")
        if not margin > 0:
            raise ValueError(f"The margin of {name!r} must be positive, got {margin}.")
        self._reference, self._open, self._folder = reference, open_model, Path(folder)
        self._beta, self._batch_size, self._dtype = beta, batch_size, dtype
        self._digest = sha256_of_json(self._pairs)
        self.name, self.margin = name, margin
        self.description = f"DPO loss of {len(self._pairs)} pairs, nats"

    def values(self, source: Source) -> NDArray[np.float64]:
        """
        Minus the loss, `[prompts]`.

        Raises:
            ValueError: If the model is not loaded here, or the kept numbers are damaged.
        """
        ratios = self._log_ratios(source) - self._log_ratios(self._reference)
        losses = np.logaddexp(0, -self._beta * ratios)
        return -np.bincount(self._prompt_of, weights=losses) / np.bincount(self._prompt_of)

    def _log_ratios(self, source: Source) -> NDArray[np.float64]:
        """Log-probability of the chosen less that of the rejected, `[pairs]`."""
        if not isinstance(source, ModelSource):
            raise ValueError(
                f"{source.name!r} is written elsewhere: losses of pairs need a model that is loaded here."
            )

        def compute() -> NDArray[np.float64]:
            with self._open(source) as model:
                return pair_log_ratios(model, load_tokenizer(source), self._pairs, self._batch_size)

        key = {"model": source.fingerprint(), "dtype": self._dtype, "pairs": self._digest}
        return kept_numbers(self._folder, "pairs", key, compute, len(self._pairs))


def pair_log_ratios(
    model: Model, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Mapping[str, Any]], batch_size: int = 16
) -> NDArray[np.float64]:
    """
    Log-probability of the chosen text less that of the rejected one, in nats, summed over their tokens.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its tokenizer.
        pairs (`Sequence[Mapping[str, Any]]`):
            With `prompt`, `chosen` and `rejected`; each text ends with the end token.
        batch_size (`int`, *optional*, defaults to `16`):
            Texts computed at once.

    Returns:
        `NDArray[np.float64]`: `[pairs]`.
    """
    sides = [[_completion(tokenizer, pair[side]) for side in ("chosen", "rejected")] for pair in pairs]
    lengths = np.array([[len(side.token_ids) + 1 for side in pair] for pair in sides])
    sums = mean_token_log_prob(model, tokenizer, [pair["prompt"] for pair in pairs], sides, batch_size) * lengths
    return sums[:, 0] - sums[:, 1]


def _completion(tokenizer: PreTrainedTokenizerBase, side: Any) -> Completion:
    text = side if isinstance(side, str) else completion_text(side)
    return Completion(text, tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), ended=True)
