"""What is trained on are tokens: a pair that is fine as text can be equal, empty or out of range as tokens."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase
from trl import DPOTrainer, is_conversational

from fairpo_trl.generation.collator import ROW_COLUMN
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.generation.data_check import first_rows
from fairpo_trl.preferences.tokens import TOKENS, ModelLimits, pair_length, token_problems, tokenize_pair


# Models without rotary embeddings that make further positions when they need them.
_NO_LIMIT = ("xglm",)


def model_limits(model: Any, revision: str | None = None) -> ModelLimits:
    """
    The limits of a model (a path or Hub id with its revision, or the model), before it is loaded if it is a path.

    Raises:
        ValueError: For an encoder-decoder, or a folder that holds an adapter only.
    """
    config: PreTrainedConfig | None = getattr(model, "config", None)
    if isinstance(model, str):
        files = os.listdir(model) if os.path.isdir(model) else []
        if "adapter_config.json" in files and "config.json" not in files:
            raise ValueError(
                f"{model!r} holds an adapter, not a model: load its base and put the adapter on it, "
                "PeftModel.from_pretrained(base, folder, is_trainable=True), and pass that as `model`."
            )
        try:
            config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        except (OSError, ValueError):  # whoever loads the model says what is wrong
            return ModelLimits()
    if config is None:
        return ModelLimits()
    if config.is_encoder_decoder:
        raise ValueError(
            f"The model is an encoder-decoder ({config.model_type}); FairPOTrainer trains causal language models, "
            "which write on after the prompt."
        )
    text = config.get_text_config()
    rotary = any(getattr(text, name, None) for name in ("rope_parameters", "rope_theta", "rope_scaling", "alibi"))
    positions = None if rotary or text.model_type in _NO_LIMIT else getattr(text, "max_position_embeddings", None)
    embedding = None if isinstance(model, str) else model.get_input_embeddings()
    return ModelLimits(getattr(embedding, "num_embeddings", None) or getattr(text, "vocab_size", None), positions)


def tokenise_pairs(
    dataset: Any, tokenizer: PreTrainedTokenizerBase, split: str, num_proc: int | None = None
) -> Dataset | IterableDataset:
    """
    Rows of [`prepare_rows`] with `prompt_ids`, `chosen_ids` and `rejected_ids`, as DPOTrainer makes them, none dropped
    for its length; in `num_proc` processes.

    Raises:
        ValueError: If the tokenizer lacks what these rows need, or its chat template refuses one; names the row.
    """
    first = {name: value for name, value in next(iter(dataset)).items() if name in ("prompt", "chosen", "rejected")}
    has_template = is_conversational(first)
    if has_template:
        if not tokenizer.chat_template:
            raise ValueError(
                f"The {split} data are messages, but the tokenizer has no chat template: use that of a chat model, "
                "set `tokenizer.chat_template`, or pass prompt and completions as text."
            )
    elif tokenizer.eos_token is None:
        raise ValueError(
            "The tokenizer has no end-of-sequence token, with which every completion ends: set `tokenizer.eos_token`."
        )
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    args = SimpleNamespace(dataset_num_proc=num_proc, max_length=None, truncation_mode="keep_start")
    try:
        return DPOTrainer._prepare_dataset(trainer, dataset, tokenizer, args, split)
    except Exception as error:
        looks = has_template and isinstance(dataset, Dataset)
        problem = _template_problem(dataset, tokenizer, split) if looks else None
        if problem is None:
            raise
        raise ValueError(problem) from error


def prepare_tokens(
    dataset: Dataset | IterableDataset,
    tokenizer: PreTrainedTokenizerBase,
    split: str,
    args: FairPOConfig,
    limits: ModelLimits | None = None,
) -> Dataset | IterableDataset:
    """
    Tokenised rows, checked (of a stream the first ones), with the columns that the trainer needs.

    Raises:
        ValueError: As [`tokenise_pairs`] and [`check_tokens`].
    """
    dataset = tokenise_pairs(dataset, tokenizer, split, args.dataset_num_proc)
    check_tokens(first_rows(dataset, TOKENS), split, args.max_length, args.truncation_mode, limits)
    if isinstance(dataset, IterableDataset):
        return dataset
    dataset = dataset.add_column(ROW_COLUMN, np.arange(len(dataset)))  # errors while training name the row
    length = args.length_column_name
    if args.train_sampling_strategy == "group_by_length" and length not in dataset.column_names:
        dataset = dataset.add_column(length, [pair_length(row) for row in dataset.select_columns(list(TOKENS))])
    return dataset


def _template_problem(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, split: str) -> str | None:
    """The first row on which the chat template fails, in the words of an error; `None` if it takes them all."""
    for index, row in enumerate(dataset):
        if row.get("chat_template_kwargs", {}) is None:
            return (
                f"Row {index} of the {split} data has no `chat_template_kwargs` (null) where others have them: give "
                "every row a mapping, or remove the column."
            )
        try:
            tokenize_pair(tokenizer, row)
        except Exception as error:  # whatever the template raises
            return (
                f"The chat template refuses row {index} of the {split} data: {error}. Change these messages (a system "
                "message can go to the beginning of the first question), or use another template."
            )
    return None


def check_tokens(
    rows: Iterable[Mapping[str, Any]],
    split: str,
    max_length: int | None = None,
    truncation_mode: str = "keep_start",
    limits: ModelLimits | None = None,
) -> None:
    """
    Checks rows of [`tokenise_pairs`] as they are trained on; arguments and rules are those of [`token_problems`].

    TRL drops rows whose prompt fills `max_length` without a word, and trains on the others at loss log 2.

    Raises:
        ValueError: Names the rows of the gravest fault, and the mend.
    """
    problems = token_problems(enumerate(rows), split, max_length, truncation_mode, limits)
    if problems:
        raise ValueError(problems[0].message)
