"""Forgetting as a held measure: how probable a model finds documents that it should still know."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from fairpo_trl.core.messages import shortened
from fairpo_trl.evaluation.completions import Model, context_length, evaluation_mode
from fairpo_trl.evaluation.models import ModelSource, load_tokenizer
from fairpo_trl.evaluation.paths import Source
from fairpo_trl.evaluation.writing import kept_numbers


class TextLogProbs:
    """
    Mean log-probability per token of each of some documents, in nats; a measure that [`run_selection`] can hold.

    What a model forgets, on average over documents, is the fall of this number against the reference. The numbers are
    kept on disk by model and documents.

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
            How far the mean may fall, in nats per token: 0.02 is 2 % of perplexity.
        dtype (`str`, *optional*, defaults to `"auto"`):
            In which `open_model` loads it: a part of what the kept numbers depend on.

    Raises:
        ValueError: If there are fewer than two documents, one is empty, or the margin is not positive.
    """

    lowest: float | None = None
    highest: float | None = None

    def __init__(
        self,
        documents: Sequence[str],
        open_model: Callable[[ModelSource], AbstractContextManager[Model]],
        folder: str | os.PathLike[str],
        name: str = "text",
        margin: float = 0.02,
        dtype: str = "auto",
    ) -> None:
        if len(documents) < 2:
            raise ValueError(f"A measure needs at least two documents, got {len(documents)}.")
        empty = next((i for i, text in enumerate(documents) if not text.strip()), None)
        if empty is not None:
            raise ValueError(f"Document {empty} is empty: remove it.")
        if not margin > 0:
            raise ValueError(f"The margin of {name!r} must be positive, got {margin}.")
        self._documents, self._open, self._folder = list(documents), open_model, Path(folder)
        self.name, self.margin, self._dtype = name, margin, dtype
        self.description = f"log-probability per token of {len(documents)} documents"

    def values(self, source: Source) -> NDArray[np.float64]:
        """
        Log-probability per token of each document, `[documents]`.

        Raises:
            ValueError: If the model is not loaded here, a document has fewer than two tokens, or the kept numbers are
                damaged.
        """
        if not isinstance(source, ModelSource):
            raise ValueError(f"{source.name!r} is written elsewhere: documents need a model that is loaded here.")

        def compute() -> NDArray[np.float64]:
            with self._open(source) as model:
                return document_log_probs(model, load_tokenizer(source), self._documents)

        key = {"model": source.fingerprint(), "dtype": self._dtype, "documents": self._documents}
        return kept_numbers(self._folder, "text", key, compute, len(self._documents))


def document_log_probs(
    model: Model, tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]
) -> NDArray[np.float64]:
    """
    Mean log-probability per token of each document, in nats; the first token, which nothing comes before, is left out.

    Args:
        model ([`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            The model.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            Its tokenizer.
        documents (`Sequence[str]`):
            The documents; each is computed by itself.

    Returns:
        `NDArray[np.float64]`: `[documents]`.

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
        ValueError: If a line is no object with `text`; names it.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {str(path)!r} with documents.")
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix != ".jsonl":
        return [part.strip() for part in text.replace("\r\n", "\n").split("\n\n") if part.strip()]
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)["text"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"Line {number} of {path.name} is no JSON object with `text` ({error}).") from error
        if not isinstance(document, str):
            raise ValueError(f"Line {number} of {path.name}: `text` must be text, got {shortened(document)}.")
        found.append(document)
    return found
