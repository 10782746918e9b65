"""
What can be held of a model itself, besides judged texts: how probable it finds documents that it should still know,
losses of held-out pairs, tasks of lm-eval. The numbers are kept on disk, by model and by what they depend on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from fairpo_trl.core.messages import require_known, shortened, unknown_names_message
from fairpo_trl.evaluation.completions import Completion, Model, context_length, evaluation_mode
from fairpo_trl.evaluation.guards import mean_token_log_prob
from fairpo_trl.evaluation.models import ModelSource, load_tokenizer
from fairpo_trl.evaluation.paths import Source
from fairpo_trl.evaluation.run import ModelMeasure
from fairpo_trl.evaluation.writing import kept_numbers
from fairpo_trl.hashing import sha256_of_file, sha256_of_json
from fairpo_trl.preferences.rules import completion_text, prompt_key
from fairpo_trl.tables import read_rows


SHARES = ("acc", "acc_norm", "acc_mutual_info", "exact_match", "em", "f1", "mcc_acc", "contains")
"""Metrics of lm-eval whose value of a document lies within 0 and 1."""

OpenModel: TypeAlias = Callable[[ModelSource], AbstractContextManager[Model]]
"""Loads a model."""


class _KeptMeasure(ModelMeasure):
    """
    Numbers of models that are loaded here, kept on disk.

    Its `values` raise `ValueError` if a model is not loaded here, or the kept numbers are damaged.
    """

    lowest: float | None = None
    highest: float | None = None

    def __init__(
        self, name: str, margin: float, open_model: OpenModel, folder: str | os.PathLike[str], dtype: str
    ) -> None:
        if not margin > 0:
            raise ValueError(f"The margin of {name!r} must be positive, got {margin}.")
        self.name, self.margin = name, margin
        self._open, self._folder, self._dtype = open_model, Path(folder), dtype

    def _kept(
        self,
        source: Source,
        label: str,
        key: Mapping[str, Any],
        compute: Callable[[Model, PreTrainedTokenizerBase], NDArray[np.float64]],
        count: int | None = None,
    ) -> NDArray[np.float64]:
        """What `compute` finds, once for each model and precision, and for what `key` says that it depends on."""
        if not isinstance(source, ModelSource):
            raise ValueError(f"{source.name!r} is written elsewhere: {self.name!r} needs a model that is loaded here.")

        def computed() -> NDArray[np.float64]:
            with self._open(source) as model:
                return compute(model, load_tokenizer(source))

        whole = {"model": source.fingerprint(), "dtype": self._dtype, **key}
        return kept_numbers(self._folder, label, whole, computed, count)


class TextLogProbs(_KeptMeasure):
    """
    Mean log-probability per token of each of some documents, in nats.

    What a model forgets, on average over documents, is the fall of this number against the reference.

    Args:
        documents (`Sequence[str]`):
            At least two. Of a document that is longer than the model's context only the beginning is read.
        open_model (`Callable`):
            Loads a model.
        folder (`str` or `os.PathLike`):
            Where the numbers are kept.
        name (`str`, *optional*, defaults to `"text"`):
            What the documents are called.
        margin (`float`, *optional*, defaults to `0.02`):
            In nats per token: 0.02 is 2 % of perplexity.
        dtype (`str`, *optional*, defaults to `"auto"`):
            In which `open_model` loads it.

    Raises:
        ValueError: If there are fewer than two documents, one is empty, or the margin is not positive.
    """

    def __init__(
        self,
        documents: Sequence[str],
        open_model: OpenModel,
        folder: str | os.PathLike[str],
        name: str = "text",
        margin: float = 0.02,
        dtype: str = "auto",
    ) -> None:
        super().__init__(name, margin, open_model, folder, dtype)
        if len(documents) < 2:
            raise ValueError(f"A measure needs at least two documents, got {len(documents)}.")
        empty = next((i for i, text in enumerate(documents) if not text.strip()), None)
        if empty is not None:
            raise ValueError(f"Document {empty} is empty: remove it.")
        self._documents = list(documents)
        self.description = f"log-probability per token of {len(documents)} documents"

    def values(self, source: Source) -> NDArray[np.float64]:
        """Log-probability per token of each document, `[documents]`; see [`document_log_probs`]."""

        def compute(model: Model, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.float64]:
            return document_log_probs(model, tokenizer, self._documents)

        return self._kept(source, "text", {"documents": self._documents}, compute, len(self._documents))


def document_log_probs(
    model: Model, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]
) -> NDArray[np.float64]:
    """
    Mean log-probability per token of each document, computed by itself, in nats, `[documents]`.

    The first token, which nothing comes before, is left out.

    Raises:
        ValueError: If a document has fewer than two tokens.
        FloatingPointError: If a number is not finite.
    """
    longest = context_length(model)
    found = np.empty(len(documents))
    with evaluation_mode(model):
        for i, text in enumerate(tqdm(documents, desc="Reading documents", unit="text")):
            ids: Any = tokenizer(text)["input_ids"]
            ids = torch.tensor([ids[: int(min(len(ids), longest))]], device=model.device)
            if ids.shape[1] < 2:
                raise ValueError(f"Document {i}, {shortened(text)}, has fewer than two tokens: remove it.")
            logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
            log_probs = logits.gather(-1, ids[:, 1:, None]).squeeze(-1) - torch.logsumexp(logits, dim=-1)
            found[i] = float(log_probs.double().mean())
    if not np.isfinite(found).all():
        raise FloatingPointError("The model's logits are not finite: the model has diverged.")
    return found


def read_documents(path: str | os.PathLike[str]) -> list[str]:
    """
    Documents of a file: JSON lines with `text`, or plain text with an empty line between two.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a row is no object with `text`; names it.
    """
    path = Path(path).expanduser()
    if path.suffix != ".jsonl":
        if not path.is_file():
            raise FileNotFoundError(f"There is no file {str(path)!r} with documents.")
        text = path.read_text(encoding="utf-8-sig")
        return [part.strip() for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
    rows = read_rows(path)
    assert isinstance(rows, list)  # by the suffix
    for number, row in enumerate(rows):
        if not isinstance(row.get("text"), str):
            raise ValueError(f"Row {number} of {path.name} must have a `text`, got {shortened(row)}.")
    return [row["text"] for row in rows]


class HeldPairLosses(_KeptMeasure):
    """
    Minus the mean DPO loss of the pairs of each prompt, in nats: what training optimises, on pairs it has not seen.

        -mean_pairs log(1 + exp(-beta ((log p(chosen) - log p(rejected)) - (the same of the reference))))

    The reference's own value is minus log 2.

    Args:
        pairs (`Sequence[Mapping[str, Any]]`):
            With `prompt`, `chosen` and `rejected`: plain text or messages. The prompt is the unit: losses of pairs
            with the same one are averaged.
        reference (`ModelSource`):
            What the loss is relative to.
        open_model, folder, dtype:
            As in [`TextLogProbs`].
        name (`str`, *optional*, defaults to `"pairs"`):
            What the pairs are called.
        margin (`float`, *optional*, defaults to `0.02`):
            How far the mean loss may rise, in nats.
        beta (`float`, *optional*, defaults to `0.1`):
            Of the loss.
        batch_size (`int`, *optional*, defaults to `16`):
            Texts computed at once.

    Raises:
        ValueError: If there are pairs of fewer than two prompts, or the margin is not positive.
    """

    def __init__(
        self,
        pairs: Sequence[Mapping[str, Any]],
        reference: ModelSource,
        open_model: OpenModel,
        folder: str | os.PathLike[str],
        name: str = "pairs",
        margin: float = 0.02,
        beta: float = 0.1,
        batch_size: int = 16,
        dtype: str = "auto",
    ) -> None:
        super().__init__(name, margin, open_model, folder, dtype)
        self._pairs = [{side: pair[side] for side in ("prompt", "chosen", "rejected")} for pair in pairs]
        keys = [prompt_key(pair["prompt"]) for pair in self._pairs]
        prompts = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self._prompt_of = np.array([prompts[key] for key in keys], dtype=np.intp)
        if len(prompts) < 2:
            raise ValueError(f"{name!r} has pairs of {len(prompts)} prompts: a measure needs at least two.")
        self._reference, self._beta, self._batch_size = reference, beta, batch_size
        self._digest = sha256_of_json(self._pairs)
        self.description = f"DPO loss of {len(self._pairs)} pairs, nats"

    def values(self, source: Source) -> NDArray[np.float64]:
        """Minus the loss, `[prompts]`."""
        ratios = self._log_ratios(source) - self._log_ratios(self._reference)
        losses = np.logaddexp(0, -self._beta * ratios)
        return -np.bincount(self._prompt_of, weights=losses) / np.bincount(self._prompt_of)

    def _log_ratios(self, source: Source) -> NDArray[np.float64]:
        def compute(model: Model, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.float64]:
            return pair_log_ratios(model, tokenizer, self._pairs, self._batch_size)

        return self._kept(source, "pairs", {"pairs": self._digest}, compute, len(self._pairs))


def pair_log_ratios(
    model: Model, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[Mapping[str, Any]], batch_size: int = 16
) -> NDArray[np.float64]:
    """
    Log-probability of the chosen text less that of the rejected one, in nats, summed over their tokens, `[pairs]`.

    Each text ends with the end token.
    """
    sides = [[_completion(tokenizer, pair[side]) for side in ("chosen", "rejected")] for pair in pairs]
    lengths = np.array([[len(side.token_ids) + 1 for side in pair] for pair in sides])
    sums = mean_token_log_prob(model, tokenizer, [pair["prompt"] for pair in pairs], sides, batch_size) * lengths
    return sums[:, 0] - sums[:, 1]


def _completion(tokenizer: PreTrainedTokenizerBase, side: Any) -> Completion:
    text = completion_text(side)
    return Completion(text, tuple(tokenizer(text, add_special_tokens=False)["input_ids"]), ended=True)


class TaskResults(_KeptMeasure):
    """
    One metric of one task of EleutherAI's lm-eval, document by document, for whoever fears that a benchmark falls.

    Needs the extra `fairpo_trl[lm-eval]`. A task's file may name Python functions, which are run: as in lm-eval
    itself, a task is code of whoever wrote it.

    Args:
        task (`str`):
            Its name, or `NAME=METRIC` for another than its first metric, as `hellaswag=acc_norm`.
        open_model, folder, batch_size, dtype:
            As in [`HeldPairLosses`].
        margin (`float`, *optional*, defaults to `0.02`):
            In the metric's unit: 0.02 is two points of accuracy.
        include_path (`str` or `os.PathLike`, *optional*):
            A folder with task files of one's own, besides those of lm-eval.

    Raises:
        ImportError: If lm-eval is not installed.
        ValueError: If there is no such task, it is a group, or the margin is not positive.
    """

    def __init__(
        self,
        task: str,
        open_model: OpenModel,
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

        super().__init__(task.replace("=", ", "), margin, open_model, folder, dtype)
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
        self._batch_size = batch_size
        if self._metric in SHARES:
            self.lowest, self.highest = -1.0, 1.0
        self.description = f"lm-eval {version('lm_eval')}, task {self._task}"

    def values(self, source: Source) -> NDArray[np.float64]:
        """
        The metric of each document, higher is better, `[documents]`.

        Raises:
            ValueError: If the task has no such metric for single documents.
        """
        files = [sha256_of_file(path) for path in sorted(self._path.rglob("*.*"))] if self._path else []
        key = {"task": self._task, "metric": self._metric, "by": self.description, "files": files}
        return self._kept(source, "task", key, self._compute)

    def _compute(self, model: Model, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.float64]:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM

        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=self._batch_size)
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
