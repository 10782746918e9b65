"""Judges that score a completion: counts, sequence classifiers (reward models), functions of the user."""

import functools
import importlib
import importlib.util
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from fairpo_trl.core.messages import shortened, unknown_names_message
from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.loading import explained, rendered
from fairpo_trl.preferences.rules import completion_text


COUNTS: dict[str, Callable[[str], int]] = {
    "words": lambda text: len(text.split()),
    "characters": lambda text: len(text.strip()),
    "sentences": lambda text: len(re.findall(r"[^.!?…]*\w[^.!?…]*", text)),
}
"""What can be counted: words between white space, characters within, stretches with a letter between `.`, `!`, `?`."""

DIRECTIONS = {"fewer": -1.0, "more": 1.0}

Function: TypeAlias = Callable[[list[str], list[str]], Sequence[float | None]]
"""Takes prompts and completions (text, equally many) and returns a number per completion, `None` where it failed."""


class CountJudge:
    """
    Counts; the score of `fewer` is the negative count.

    Args:
        target (`str`):
            `words:fewer`, `characters:more`, ...

    Raises:
        ValueError: Something else is to be counted, or the direction is missing.
    """

    def __init__(self, target: str) -> None:
        what, _, direction = target.partition(":")
        if what not in COUNTS:
            raise ValueError(f"`judges`: count:{target}: {unknown_names_message('count', [what], list(COUNTS))}")
        if direction not in DIRECTIONS:
            raise ValueError(
                f"`judges`: count:{target} must say which is better: count:{what}:fewer or count:{what}:more."
            )
        self.description = f"{what}, {direction}"
        self._count, self._sign = COUNTS[what], DIRECTIONS[direction]

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> NDArray[np.float64]:
        """The counts, `[completions]`."""
        return self._sign * np.array([self._count(text) for text in completions], dtype=np.float64)


class ClassifierJudge:
    """
    A sequence classifier: the logit of a reward model, or the probability of one label.

    A reward model reads prompt and completion: as a conversation if its tokenizer has a chat template, else as a pair
    of texts. What does not fit its context is a failure, since cut text would get the score of another text.

    Args:
        folder (`Path`):
            The model with its tokenizer, safetensors only; it is loaded when the first text comes.
        label (`str`, *optional*):
            Index or name of a label; needed if there are several.
        with_prompt (`bool`):
            Whether it reads the prompt too.
        name (`str`):
            What it is called.
        batch_size (`int`, *optional*, defaults to `16`):
            Texts computed at once.

    Raises:
        ValueError: If the label is missing, unknown or needless.
    """

    def __init__(self, folder: Path, label: str | None, *, with_prompt: bool, name: str, batch_size: int = 16) -> None:
        with explained(folder, "judge"):
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        self._label = _label_index(config, label, name)
        self._several = config.num_labels > 1
        self._independent = config.problem_type == "multi_label_classification"
        self.description = f"{'reward model' if with_prompt else 'classifier'} {name}"
        if self._several:
            self.description += f", {config.id2label[self._label]}"
        self._folder = folder
        # A causal model finds the end of a text by its padding: both must mean the same token.
        paddings = (self._tokenizer.pad_token_id, config.pad_token_id, self._tokenizer.eos_token_id)
        self._padding = next((token for token in paddings if token is not None), None)
        if self._padding is None:
            raise ValueError(f"`judges`: {name} has neither a padding nor an end token.")
        self._tokenizer.pad_token_id = self._padding
        self._with_prompt, self._batch_size = with_prompt, batch_size
        positions = getattr(config, "max_position_embeddings", None) or math.inf  # not every architecture has a limit
        self._limit = min(self._tokenizer.model_max_length, positions)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> NDArray[np.float64]:
        """The logits or probabilities, `[completions]`; NaN where a text is too long."""
        encoded = [self._encode(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
        lengths = [len(row["input_ids"]) for row in encoded]
        scores = np.full(len(encoded), np.nan)
        order = sorted((i for i, length in enumerate(lengths) if 0 < length <= self._limit), key=lengths.__getitem__)
        with torch.inference_mode(), tqdm(total=len(order), desc=self.description, unit="text") as bar:
            for start in range(0, len(order), self._batch_size):
                batch = order[start : start + self._batch_size]
                inputs = self._tokenizer.pad([encoded[i] for i in batch], return_tensors="pt").to(self._model.device)
                logits = self._model(**inputs).logits.double()
                if self._several:
                    logits = logits.sigmoid() if self._independent else logits.softmax(-1)
                scores[batch] = logits[:, self._label].cpu().numpy()
                bar.update(len(batch))
        if np.isinf(scores).any():
            raise ValueError(f"{self.description} gives infinite scores: its weights are damaged.")
        return scores

    @functools.cached_property
    def _model(self) -> Any:
        with explained(self._folder, "judge"):
            model = AutoModelForSequenceClassification.from_pretrained(
                self._folder, use_safetensors=True, trust_remote_code=False
            ).eval()
        model.config.pad_token_id = self._padding
        return model.to("cuda" if torch.cuda.is_available() else "cpu")

    def _encode(self, prompt: Prompt, text: str) -> dict[str, Any]:
        tokenizer = self._tokenizer
        if not self._with_prompt:
            return dict(tokenizer(text))
        if tokenizer.chat_template is None:
            return dict(tokenizer(completion_text(prompt if isinstance(prompt, str) else list(prompt)), text))
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        messages = [*messages, {"role": "assistant", "content": text}]
        with rendered(tokenizer):
            return dict(tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True))


class PythonJudge:
    """
    A function of the user.

    Args:
        target (`str`):
            `FILE.py:FUNCTION` or `MODULE:FUNCTION`. The code is run.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the module has no such function.
    """

    def __init__(self, target: str) -> None:
        place, _, name = target.rpartition(":")
        if not (place and name):
            raise ValueError(f"`judges`: python:{target} must be python:FILE.py:FUNCTION or python:MODULE:FUNCTION.")
        module = _module(place)
        if not callable(getattr(module, name, None)):
            names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
            raise ValueError(
                f"`judges`: python:{target}: {unknown_names_message('function', [name], names)}"
                if names
                else f"`judges`: python:{target}: {place} has no functions."
            )
        self.description = f"function {name}"
        self._function: Function = getattr(module, name)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> NDArray[np.float64]:
        """What the function returns, `[completions]`; `None` and NaN are failures."""
        texts = [completion_text(prompt if isinstance(prompt, str) else list(prompt)) for prompt in prompts]
        values = list(self._function(texts, list(completions)))
        if len(values) != len(completions):
            raise ValueError(
                f"{self.description} returned {len(values)} scores for {len(completions)} completions: it must "
                "return one per completion, None where it cannot say."
            )
        scores = np.full(len(values), np.nan)
        for i, value in enumerate(values):
            if value is None:
                continue
            try:
                scores[i] = float(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f"{self.description} returned {shortened(value)} for completion {i}, which is no number."
                ) from None
            if math.isinf(scores[i]):
                raise ValueError(f"{self.description} returned an infinite score for completion {i}.")
        return scores


def _module(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"`judges`: there is no file {place!r}.")
    spec = importlib.util.spec_from_file_location(f"fairpo_judge_{path.stem}", path)
    assert spec is not None and spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _label_index(config: Any, label: str | None, name: str) -> int:
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    if label is None:
        if config.num_labels > 1:
            raise ValueError(f"`judges`: {name} has the labels {names}: choose one with #, as in {name}#{names[-1]}.")
        return 0
    if label in names:
        return names.index(label)
    if label.isdecimal() and int(label) < config.num_labels:
        return int(label)
    raise ValueError(f"`judges`: {name}: {unknown_names_message('label', [label], names)}")
