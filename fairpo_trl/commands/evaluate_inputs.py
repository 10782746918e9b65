"""What `fairpo evaluate` works on: its options and the prompts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from datasets import DatasetDict

from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.evaluation.served import FORMS
from fairpo_trl.generation.data import DataArguments
from fairpo_trl.preferences.rules import attribute_names, prompt_key


@dataclass
class EvaluateArguments(DataArguments):
    """Which models, on which prompts, judged by whom."""

    models: list[str] | None = field(
        default=None, metadata={"help": f"Adapters or full models: folders or Hub ids; or {FORMS}."}
    )
    reference: str | None = field(
        default=None, metadata={"help": "What they are compared with. Default: the base that all adapters share."}
    )
    base_model: str | None = field(
        default=None, metadata={"help": "Base of the adapters, if the one in adapter_config.json is elsewhere now."}
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Tokenizer (with chat template) of every model, if theirs cannot be used."}
    )
    names: list[str] | None = field(
        default=None, metadata={"help": "What the models are called, in their order. Default: the folders' names."}
    )
    privileged_attributes: list[str] | None = field(
        default=None, metadata={"help": "Attributes that should have got better. Default: those of the training."}
    )
    attribute_column: str = field(default="attribute", metadata={"help": "Column of own pairs with the attribute."})
    max_prompts: int = field(default=200, metadata={"help": "Distinct prompts of the test split at most, at random."})
    output_dir: str = field(
        default="fairpo-evaluation", metadata={"help": "Results. The same command goes on in it where it stopped."}
    )
    server_api_key_env: str | None = field(
        default=None, metadata={"help": "NAME of the environment variable with the key of a server that writes."}
    )
    server_concurrency: int = field(default=8, metadata={"help": "Chats under way at once with such a server."})
    samples_per_prompt: int = field(default=1, metadata={"help": "Completions of each prompt and model."})
    max_new_tokens: int = field(default=256, metadata={"help": "Longest completion, in tokens."})
    temperature: float = field(default=0.7, metadata={"help": "Of the sampling; 0 takes the most probable token."})
    top_k: int = field(default=50, metadata={"help": "Draw among this many most probable tokens; 0 for all."})
    top_p: float = field(default=1.0, metadata={"help": "Draw among the tokens that reach this probability."})
    seed: int = field(default=0, metadata={"help": "Of prompts, completions and bootstrap."})
    batch_size: int = field(
        default=16,
        metadata={"help": "Rows computed at once, when writing (four times as many on a CPU) and when judging."},
    )
    dtype: str = field(
        default="auto",
        metadata={"help": "Precision of the models.", "choices": ["auto", "float32", "bfloat16", "float16"]},
    )

    def __post_init__(self) -> None:
        for name in ("max_prompts", "samples_per_prompt", "max_new_tokens", "batch_size", "server_concurrency"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not self.temperature >= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "`temperature` and `top_k` must be at least 0, and `top_p` within (0, 1]; got "
                f"{self.temperature}, {self.top_k} and {self.top_p}."
            )


def distinct_prompts(args: EvaluateArguments, data: DatasetDict) -> tuple[list[Prompt], list[str], Counter[str]]:
    """
    Distinct prompts of the test split, all attributes of the data, and the test pairs of each.

    Raises:
        ValueError: If the split, a column, a prompt or an attribute is missing.
    """
    split = args.dataset_test_split
    if split not in data:
        raise ValueError(
            f"The data has no split {split!r}, only {sorted(data)}: set `dataset_test_split`, or divide the data with "
            "`test_share` as in training."
        )
    if "prompt" not in data[split].column_names:
        raise ValueError(
            f"The {split} data has no column 'prompt', only {data[split].column_names}: models need prompts to write."
        )
    if args.attribute_column not in data[split].column_names:
        raise ValueError(
            f"The {split} data has no column {args.attribute_column!r}, only {data[split].column_names}: set "
            "`attribute_column`."
        )
    attributes: dict[str, None] = {}
    pairs: Counter[str] = Counter()
    for name, rows in data.items():
        for i, value in enumerate(rows[args.attribute_column]):
            try:
                found = attribute_names(value)
            except ValueError as error:
                raise ValueError(f"Row {i} of the {name} data, column {args.attribute_column!r}: {error}.") from error
            attributes |= dict.fromkeys(found)
            pairs.update(found if name == split else ())
    distinct: dict[str, Prompt] = {}
    for i, prompt in enumerate(data[split]["prompt"]):
        if not prompt_key(prompt):
            raise ValueError(f"Row {i} of the {split} data has an empty prompt: remove it.")
        distinct.setdefault(prompt_key(prompt), prompt)
    prompts = list(distinct.values())
    if len(prompts) > args.max_prompts:
        chosen = np.random.default_rng(args.seed).choice(len(prompts), args.max_prompts, replace=False)
        prompts = [prompts[i] for i in sorted(chosen.tolist())]
    return prompts, list(attributes), pairs
