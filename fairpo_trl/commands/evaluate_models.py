"""What `fairpo evaluate` and `fairpo select` share: their parser, the models that are named, and how those write.

A model is loaded here, answers from a server, or wrote its texts elsewhere; both commands read its name alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from datasets import DatasetDict, IterableDatasetDict
from rich.console import Console

from fairpo_trl.commands.evaluate_inputs import EvaluateArguments
from fairpo_trl.commands.evaluate_judges import JudgeArguments, check_judges
from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.evaluation.completions import Completion, Prompt
from fairpo_trl.evaluation.judges import KINDS, JudgeSpec, parse_judge
from fairpo_trl.evaluation.models import LoadedModels, ModelSource, find_model, load_tokenizer
from fairpo_trl.evaluation.paths import Source
from fairpo_trl.evaluation.served import FORMS, ServedModel, WrittenModel, label_of, parse_source
from fairpo_trl.evaluation.writing import Sampling, write_completions
from fairpo_trl.generation.data import DataArguments, load_data, main_console
from fairpo_trl.hub.privacy import last_part
from fairpo_trl.reporting.render.terminal import WIDTH


OWN_FOLDERS = ("completions", "verdicts")
"""Folders of the output that no model can be called."""

_SAMPLING = "samples_per_prompt max_new_tokens temperature top_k top_p seed batch_size dtype".split()
_HIDDEN = ("ignore_bias_buffers", "dataset_streaming", "dataset_train_split")


def text_parser(
    kind: type[EvaluateArguments], topic: str, *, command: str, summary: str, examples: Sequence[str]
) -> CommandParser:
    """
    The parser of a command whose models write and are judged.

    Args:
        kind (`type`):
            [`EvaluateArguments`] or a subclass.
        topic (`str`):
            Topic of the help with the command's own options.
        command, summary (`str`):
            See [`CommandParser`].
        examples (`Sequence[str]`):
            See [`CommandParser`].
    """
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
        ValueError: If models or judges are missing or wrong, or the data is a stream.
    """
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
        models ([`LoadedModels`]):
            Loads models.
        source (`ModelSource`, `ServedModel` or `WrittenModel`):
            Who writes.
        label (`str`):
            What its folder is called.
        prompts (`Sequence`):
            The prompts.
        seed (`int`):
            Random numbers.
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
        return label_of(elsewhere)
    path = Path(model).expanduser()
    parts = path.resolve().parts if path.is_dir() else path.parts
    name = "-".join(parts[-2:]) if parts[-1].startswith("checkpoint-") and len(parts) > 1 else parts[-1]
    return re.sub(r"[^\w.+-]+", "-", name).lstrip(".") or "model"
