"""What `fairpo evaluate` works on: its options, the models with their names, the prompts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from datasets import DatasetDict

from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.evaluation.models import ModelSource, find_model, load_tokenizer
from fairpo_trl.generation.data import DataArguments
from fairpo_trl.preferences.rules import attribute_names, prompt_key


OWN_FOLDERS = ("completions", "verdicts")
"""Folders of the output that no model can be called."""


@dataclass
class EvaluateArguments(DataArguments):
    """Which models, on which prompts, judged by whom."""

    models: list[str] | None = field(
        default=None, metadata={"help": "Models to evaluate: folders or Hub ids of adapters or full models."}
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
        for name in ("max_prompts", "samples_per_prompt", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not self.temperature >= 0 or self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "`temperature` and `top_k` must be at least 0, and `top_p` within (0, 1]; got "
                f"{self.temperature}, {self.top_k} and {self.top_p}."
            )


def candidate_names(args: EvaluateArguments) -> dict[str, str]:
    """
    Name -> model, as the user gave it; names are folders of the output.

    Raises:
        ValueError: If a name cannot be that of a folder, or there are two.
    """
    models = args.models or []
    if args.names is not None and len(args.names) != len(models):
        raise ValueError(f"`names` has {len(args.names)} entries for {len(models)} models.")
    names = args.names or [_folder_name(model) for model in models]
    wrong = [name for name in names if not re.fullmatch(r"[\w+-][\w.+-]*", name) or name in OWN_FOLDERS]
    if wrong:
        raise ValueError(
            f"`names`: {wrong[0]!r} cannot name a folder of the results: use letters, digits, '.', '-' and '_', and "
            f"none of {list(OWN_FOLDERS)}."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"Several models would be called {twice[0]!r}: give each a name with `names`.")
    return dict(zip(names, models, strict=True))


def _folder_name(model: str) -> str:
    """The last part; for a checkpoint the run's name before it."""
    path = Path(model).expanduser()
    parts = path.resolve().parts if path.is_dir() else path.parts
    name = "-".join(parts[-2:]) if parts[-1].startswith("checkpoint-") and len(parts) > 1 else parts[-1]
    return re.sub(r"[^\w.+-]+", "-", name).lstrip(".") or "model"


def find_reference(args: EvaluateArguments, sources: Sequence[ModelSource]) -> ModelSource:
    """
    The model that is named, or the one base of all adapters.

    Raises:
        ValueError: If none is named and there is no such base.
    """
    if args.reference is not None:
        return find_model(args.reference, base_model=args.base_model, tokenizer=args.tokenizer)
    bases = {source.base for source in sources}
    if None in bases or len(bases) > 1:
        full = [source.name for source in sources if source.base is None]
        why = f"{full[0]!r} is a full model" if full else "the adapters have different bases"
        raise ValueError(f"Name the `reference` to compare with: {why}, so there is none by default.")
    return find_model(str(next(iter(bases))), tokenizer=args.tokenizer)


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


def check_templates(prompts: Sequence[Prompt], sources: Mapping[str, ModelSource]) -> None:
    """
    Conversations need a chat template, of every model.

    Raises:
        ValueError: If one has none.
    """
    if all(isinstance(prompt, str) for prompt in prompts):
        return
    for source in sources.values():
        if load_tokenizer(source).chat_template is None:
            raise ValueError(
                f"The prompts are conversations, but the tokenizer of {source.name!r} has no chat template: name one "
                "that has with `tokenizer`."
            )
