"""What `fairpo evaluate` and `fairpo select` share: options, prompts, models that are named, and how they write."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from datasets import DatasetDict, IterableDatasetDict
from rich.console import Console

from fairpo_trl.commands.evaluate_judges import JudgeArguments, check_judges
from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.core.options import option
from fairpo_trl.evaluation.completions import Completion, Prompt, check_sampling
from fairpo_trl.evaluation.judges import KINDS, JudgeSpec, parse_judge
from fairpo_trl.evaluation.models import LoadedModels, ModelSource, find_model, load_tokenizer
from fairpo_trl.evaluation.paths import Source
from fairpo_trl.evaluation.served import FORMS, ServedModel, WrittenModel, parse_source
from fairpo_trl.evaluation.writing import Sampling, write_completions
from fairpo_trl.generation.data import DataArguments, load_data, main_console
from fairpo_trl.hub.privacy import last_part
from fairpo_trl.preferences.rules import attribute_names, prompt_key
from fairpo_trl.reporting.render.terminal import WIDTH


OWN_FOLDERS = ("completions", "verdicts")
"""Folders of the output that no model can be called."""

_SAMPLING = "samples_per_prompt max_new_tokens temperature top_k top_p seed batch_size dtype".split()
_HIDDEN = ("ignore_bias_buffers", "dataset_streaming", "dataset_train_split")


@dataclass
class EvaluateArguments(DataArguments):
    """Which models, on which prompts, judged by whom."""

    models: list[str] | None = option(None, f"Adapters or full models: folders or Hub ids; or {FORMS}.")
    reference: str | None = option(None, "What they are compared with. Default: the base that all adapters share.")
    base_model: str | None = option(None, "Base of the adapters, if the one in adapter_config.json is elsewhere now.")
    tokenizer: str | None = option(None, "Tokenizer (with chat template) of every model, if theirs cannot be used.")
    names: list[str] | None = option(None, "What the models are called, in their order. Default: the folders' names.")
    privileged_attributes: list[str] | None = option(
        None, "Attributes that should have got better. Default: those of the training."
    )
    attribute_column: str = option("attribute", "Column of own pairs with the attribute.")
    max_prompts: int = option(200, "Distinct prompts of the test split at most, at random.")
    output_dir: str = option("fairpo-evaluation", "Results. The same command goes on in it where it stopped.")
    server_api_key_env: str | None = option(
        None, "NAME of the environment variable with the key of a server that writes."
    )
    server_concurrency: int = option(8, "Chats under way at once with such a server.")
    samples_per_prompt: int = option(1, "Completions of each prompt and model.")
    max_new_tokens: int = option(256, "Longest completion, in tokens.")
    temperature: float = option(0.7, "Of the sampling; 0 takes the most probable token.")
    top_k: int = option(50, "Draw among this many most probable tokens; 0 for all.")
    top_p: float = option(1.0, "Draw among the tokens that reach this probability.")
    seed: int = option(0, "Of prompts, completions and bootstrap.")
    batch_size: int = option(16, "Rows computed at once, when writing (four times as many on a CPU) and when judging.")
    dtype: str = option("auto", "Precision of the models.", choices=["auto", "float32", "bfloat16", "float16"])

    def __post_init__(self) -> None:
        counts = ("max_prompts", "samples_per_prompt", "max_new_tokens", "batch_size", "server_concurrency")
        counted = {name: getattr(self, name) for name in counts}
        check_sampling(self.temperature, self.top_k, self.top_p, **counted)


def text_parser(
    kind: type[EvaluateArguments], topic: str, *, command: str, summary: str, examples: Sequence[str]
) -> CommandParser:
    """The parser of a command whose models write and are judged; `topic` of its help has the command's own options."""
    data = [entry.name for entry in fields(DataArguments)]
    own = [entry.name for entry in fields(kind) if entry.name not in (*data, *_SAMPLING)]
    return CommandParser(
        (kind, JudgeArguments),
        command=command,
        summary=summary,
        examples=examples,
        topics={
            topic: own,
            "judging": [entry.name for entry in fields(JudgeArguments)],
            "sampling": _SAMPLING,
            "data": [name for name in data if name not in _HIDDEN],
        },
        positional="models",
    )


def read_inputs(
    args: EvaluateArguments, judging: JudgeArguments, command: str, console: Console
) -> tuple[list[JudgeSpec], DatasetDict]:
    """
    The judges as they are written, and the data.

    Raises:
        ValueError: If there are several processes, models or judges are missing or wrong, or the data is a stream.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"`{command}` runs in one process: call it without a launcher.")
    if not args.models:
        raise ValueError(f"Name the models: `{command} FOLDER_OR_HUB_ID ...`. Or {FORMS}.")
    if not judging.judges:
        raise ValueError(f"Name the judges: `--judges ATTRIBUTE=KIND:TARGET ...`. Kinds: {'; '.join(KINDS.values())}.")
    specs = [parse_judge(entry) for entry in judging.judges]
    check_judges(specs, judging)
    candidate_names(args)
    data = load_data(args, args.attribute_column, console)
    if isinstance(data, IterableDatasetDict):
        raise ValueError(f"`{command}` cannot work on a stream: leave out `dataset_streaming`.")
    return specs, data


def distinct_prompts(args: EvaluateArguments, data: DatasetDict) -> tuple[list[Prompt], list[str], Counter[str]]:
    """
    All distinct prompts of the test split, all attributes of the data, and the test pairs of each.

    Raises:
        ValueError: If the split, a column, a prompt or an attribute is missing.
    """
    split = args.dataset_test_split
    if split not in data:
        raise ValueError(
            f"The data has no split {split!r}, only {sorted(data)}: set `dataset_test_split`, or divide the data with "
            "`test_share` as in training."
        )
    columns = data[split].column_names
    needed = {"prompt": "models need prompts to write", args.attribute_column: "set `attribute_column`"}
    for column, mend in needed.items():
        if column not in columns:
            raise ValueError(f"The {split} data has no column {column!r}, only {columns}: {mend}.")
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
    return list(distinct.values()), list(attributes), pairs


def report_console() -> Console:
    """The standard output, as wide as a report where it is a file or a pipe, which have no width of their own."""
    console = main_console()
    if not console.is_terminal:
        console.width = WIDTH
    return console


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


def find_source(args: EvaluateArguments, model: str) -> Source:
    """
    A model by its name: loaded here, on a server, or a file of texts.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If the address of a server is wrong, or a folder holds no model.
    """
    options = {"api_key_env": args.server_api_key_env, "concurrency": args.server_concurrency}
    found = parse_source(model, options)
    return found or find_model(model, base_model=args.base_model, tokenizer=args.tokenizer)


def find_reference(args: EvaluateArguments, sources: Sequence[Source]) -> Source:
    """
    The model that is named, or the one base of all adapters.

    Raises:
        ValueError: If none is named and there is no such base.
    """
    if args.reference is not None:
        return find_source(args, args.reference)
    here = [source for source in sources if isinstance(source, ModelSource)]
    if len(here) < len(sources):
        raise ValueError(f"Name the `reference` of models that are written elsewhere: {FORMS}.")
    bases = {source.base for source in here}
    if None in bases or len(bases) > 1:
        full = [source.name for source in here if source.base is None]
        why = f"{full[0]!r} is a full model" if full else "the adapters have different bases"
        raise ValueError(f"Name the `reference` to compare with: {why}, so there is none by default.")
    return find_model(str(next(iter(bases))), tokenizer=args.tokenizer)


def loaded_here(sources: Mapping[str, Source]) -> dict[str, ModelSource]:
    """The models among them that are loaded here."""
    return {name: source for name, source in sources.items() if isinstance(source, ModelSource)}


def check_templates(prompts: Sequence[Prompt], sources: Sequence[Source]) -> None:
    """
    Conversations need a chat template, of every model that is loaded here.

    Raises:
        ValueError: If one has none.
    """
    if all(isinstance(prompt, str) for prompt in prompts):
        return
    for source in sources:
        if isinstance(source, ModelSource) and load_tokenizer(source).chat_template is None:
            raise ValueError(
                f"The prompts are conversations, but the tokenizer of {source.name!r} has no chat template: name one "
                "that has with `tokenizer`."
            )


def write(
    args: EvaluateArguments,
    models: LoadedModels,
    source: Source,
    label: str,
    prompts: Sequence[Prompt],
    seed: int,
    again: bool = False,
) -> list[list[Completion]]:
    """
    Lets a model write, or reads what it wrote in an earlier call.

    Args:
        args ([`EvaluateArguments`]):
            Sampling, and the output folder.
        models, source, prompts, seed:
            Who loads it, who writes, after what, and with which random numbers.
        label (`str`):
            What its folder is called.
        again (`bool`, *optional*, defaults to `False`):
            Whether this is the reference's second writing: of a file it is the second half of the texts.

    Raises:
        OSError: If a server cannot be reached or leaves chats without a reply.
        ValueError: If a model has diverged, or a file lacks texts.
    """
    sampling = Sampling(args.samples_per_prompt, args.max_new_tokens, args.temperature, args.top_k, args.top_p)
    folder = Path(args.output_dir) / "completions"
    if isinstance(source, ServedModel):
        return source.write(folder, label, prompts, sampling, seed)
    if isinstance(source, WrittenModel):
        return source.write(prompts, sampling.samples_per_prompt, sampling.samples_per_prompt * again)
    try:
        return write_completions(
            folder,
            label,
            f"{source.fingerprint()}-{args.dtype}",
            lambda: models.open(source),
            load_tokenizer(source),
            prompts,
            sampling,
            seed=seed,
            batch_size=args.batch_size,
            desc=f"{label} writes" + (" again" if again else ""),
        )
    except FloatingPointError as error:
        raise ValueError(f"{source.name!r} cannot be evaluated: {error}") from error


def short_name(name: str) -> str:
    """A Hub id as it is; a path by its last part."""
    return name if name.count("/") == 1 and not Path(name).expanduser().exists() else last_part(name) or name


def _folder_name(model: str) -> str:
    """The last part; for a checkpoint the run's name before it; of what is written elsewhere its own name."""
    if (elsewhere := parse_source(model)) is not None:
        name = elsewhere.name
    else:
        path = Path(model).expanduser()
        parts = path.resolve().parts if path.is_dir() else path.parts
        name = "-".join(parts[-2:]) if parts[-1].startswith("checkpoint-") and len(parts) > 1 else parts[-1]
    return re.sub(r"[^\w.+-]+", "-", name).lstrip(".") or "model"
