"""`fairpo select`: tests which of a path of models keeps its promise, and hands over the boldest one that does."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from datasets import DatasetDict, IterableDatasetDict
from rich.console import Console

from fairpo_trl.commands.evaluate_inputs import check_templates, distinct_prompts
from fairpo_trl.commands.evaluate_judges import JudgeArguments, check_judges, load_judges
from fairpo_trl.commands.evaluate_runs import choose_partition, read_run
from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.commands.select_inputs import (
    SelectArguments,
    divide_prompts,
    find_candidates,
    find_selection_reference,
    make_path,
    parse_margins,
)
from fairpo_trl.core.messages import shortened
from fairpo_trl.evaluation.comparison import Writing
from fairpo_trl.evaluation.completions import Completion, Prompt
from fairpo_trl.evaluation.held_texts import TextLogProbs, read_documents
from fairpo_trl.evaluation.judges import JUDGE_NAMES, KINDS, assign_judges, parse_judge
from fairpo_trl.evaluation.models import LoadedModels, ModelSource, load_tokenizer
from fairpo_trl.evaluation.paths import Source, copy_model
from fairpo_trl.evaluation.run import JudgedAttribute, Write, run_selection
from fairpo_trl.evaluation.selection import CandidateTest
from fairpo_trl.evaluation.served import ServedModel, WrittenModel
from fairpo_trl.evaluation.statement import describe, statement
from fairpo_trl.evaluation.writing import Sampling, write_completions
from fairpo_trl.files import write_text
from fairpo_trl.generation.data import DataArguments, load_data, main_console
from fairpo_trl.hub.privacy import last_part, public_command
from fairpo_trl.preferences.rules import prompt_key
from fairpo_trl.reporting.selection_report import card_of_chosen, print_selection, write_selection_report
from fairpo_trl.reporting.selection_results import SelectionResults


MOST_PROMPTS = 10**9
"""More than any data have: prompts are divided here, not cut."""


def make_parser() -> CommandParser:
    """Parser of the command."""
    data = {entry.name for entry in fields(DataArguments)}
    sampling = "samples_per_prompt max_new_tokens temperature top_k top_p seed batch_size dtype".split()
    hidden = ("ignore_bias_buffers", "dataset_streaming", "dataset_train_split")
    own = [entry.name for entry in fields(SelectArguments) if entry.name not in data]
    return CommandParser(
        (SelectArguments, JudgeArguments),
        command="fairpo select",
        summary="Tests models from the safest to the boldest; hands over the boldest that is shown not to be worse.",
        examples=(
            "fairpo select out --dataset pairs.jsonl --judges concise=count:words:fewer helpful=reward:my/reward \\",
            "    --margin 0.05 --level 0.05 --output_dir chosen",
            "fairpo select out --path checkpoints --dataset ratings.csv --ratings helpful kind \\",
            "    --judges all=llm:http://localhost:8000/v1#my-judge --judge_api_key_env JUDGE_KEY",
        ),
        topics={
            "selection": [name for name in own if name not in sampling],
            "judging": [entry.name for entry in fields(JudgeArguments)],
            "sampling": sampling,
            "data": [name for name in (e.name for e in fields(DataArguments)) if name not in hidden],
        },
        positional="models",
    )


def run(
    args: SelectArguments, judging: JudgeArguments, console: Console | None = None, command: str = ""
) -> SelectionResults:
    """
    Tests the path, writes `selection.json`, its picture and the chosen model, and prints the verdict.

    Texts are kept in the output folder: the same call after an interruption writes only what is missing.

    Args:
        args ([`SelectArguments`]):
            Path, margins, level, data, sampling.
        judging ([`JudgeArguments`]):
            The judges.
        console (`Console`, *optional*):
            Where to print; the standard output by default.
        command (`str`, *optional*):
            The command line, for the report.

    Returns:
        [`~fairpo_trl.reporting.selection_results.SelectionResults`]

    Raises:
        FileNotFoundError: If data, a model or a file are not there.
        ValueError: If an option is wrong or things do not go together; before any model is loaded.
        OSError: If a judge cannot be reached, or the output cannot be written.
    """
    started = time.time()
    console = console or main_console()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("`fairpo select` runs in one process: call it without a launcher.")
    if not args.models:
        raise ValueError("Name the model: `fairpo select FOLDER_OR_HUB_ID`.")
    if not judging.judges:
        raise ValueError(f"Name the judges: `--judges ATTRIBUTE=KIND:TARGET ...`. Kinds: {'; '.join(KINDS.values())}.")
    specs = [parse_judge(entry) for entry in judging.judges]
    check_judges(specs, judging)
    data = load_data(args, args.attribute_column, console)
    if isinstance(data, IterableDatasetDict):
        raise ValueError("A stream cannot be selected on: leave out `dataset_streaming`.")
    every, attributes, _ = distinct_prompts(replace(args, max_prompts=MOST_PROMPTS), data)
    _refuse_trained_on(args, data, every)
    prompts, test_prompts = divide_prompts(args, every)
    assigned = assign_judges(specs, attributes)
    sources = find_candidates(args)
    reference = find_selection_reference(args, list(sources.values()))
    steps = make_path(args, sources, reference)
    here = {name: source for name, source in sources.items() if isinstance(source, ModelSource)}
    runs = {name or "the model": read_run(source.folder) for name, source in here.items()}
    partition = choose_partition(attributes, args.privileged_attributes, runs)
    margins = parse_margins(args, partition.non_privileged)
    output = Path(args.output_dir)
    judges = load_judges(specs, judging, attributes, output, args.batch_size)
    if args.held_texts and not (len(here) == len(sources) and isinstance(reference, ModelSource)):
        raise ValueError("`held_texts` needs models that are loaded here: a server or a file gives texts only.")
    check_templates(prompts, {**here, **({"": reference} if isinstance(reference, ModelSource) else {})})

    judged, described = [], {}
    for attribute in (*partition.privileged, *partition.non_privileged):
        for number, spec in zip(JUDGE_NAMES, assigned[attribute], strict=False):
            measure = attribute if len(assigned[attribute]) == 1 else f"{attribute}, {number.replace('_', ' ')}"
            privileged = attribute in partition.privileged
            judge = judges[str(spec)]
            judged.append(JudgedAttribute(attribute, measure, judge, privileged, margins.get(attribute, args.margin)))
            described[measure] = judge.description
    console.print(
        f"{len(prompts)} prompts decide, {len(test_prompts)} are set aside; up to {len(steps)} candidates, "
        f"{steps[0].name} to {steps[-1].name}, against {_short(reference.name)}.",
        soft_wrap=True,
    )
    models = LoadedModels(args.dtype)
    measures = []
    if args.held_texts is not None:
        documents = TextLogProbs(
            read_documents(args.held_texts), models.open, output / "texts", "held texts", args.held_texts_margin
        )
        measures.append(documents)
        described[documents.name] = documents.description

    def report(test: CandidateTest) -> None:
        worst = f"; worst: {describe(test.worst)}" if test.worst else ""
        console.print(f"{test.name} {test.status}: gain {test.gain:+.3f}{worst}", markup=False, soft_wrap=True)

    outcome = run_selection(
        steps,
        reference,
        _writer(args, models),
        judged,
        prompts,
        test_prompts,
        measures=measures,
        level=args.level,
        bound=args.bound,  # type: ignore[arg-type]
        seed=args.seed,
        measure_all=args.measure_all,
        report=report,
    )
    models.close()
    selection = outcome.selection
    results = SelectionResults(
        model=_short(args.models[0]) if len(args.models) == 1 else f"{len(args.models)} models",
        reference=_short(reference.name),
        data=f"{len(prompts)} prompts of {args.dataset_test_split}, {_short(args.dataset_name or 'a mixture')}",
        selection=selection,
        statement=statement(selection, outcome.test, shared_draws=len(here) == len(sources)),
        scales={step.name: step.scale for step in steps if step.scale is not None},
        test=outcome.test,
        privileged=[item.measure for item in judged if item.privileged],
        lost_texts=outcome.lost_texts,
        judges=described,
        settings={
            **{name: getattr(args, name) for name in ("samples_per_prompt", "max_new_tokens", "temperature")},
            **{name: getattr(args, name) for name in ("top_k", "top_p", "seed", "path", "dtype")},
            "prompts": len(prompts),
            "test_prompts": len(test_prompts),
        },
        seconds=time.time() - started,
        command=command,
    )
    output.mkdir(parents=True, exist_ok=True)
    page = write_selection_report(results, output)
    chosen = next((step for step in steps if step.name == selection.chosen), None)
    shutil.rmtree(output / "chosen", ignore_errors=True)  # of an earlier test with other margins
    source = None if chosen is None else chosen.make()
    if isinstance(source, ModelSource):
        copy_model(source, output / "chosen")
        write_text(output / "chosen" / "README.md", card_of_chosen(results, "peft" if source.base else "transformers"))
    console.print()
    print_selection(results, console)
    if isinstance(source, ModelSource):
        console.print(f"\nThe model: {output / 'chosen'}", markup=False, soft_wrap=True)
    console.print(f"Report: {page}   (Markdown, JSON and the picture beside it)", markup=False, soft_wrap=True)
    return results


def _writer(args: SelectArguments, models: LoadedModels) -> Write:
    """Lets a model write, or reads what it wrote in an earlier call."""
    sampling = Sampling(args.samples_per_prompt, args.max_new_tokens, args.temperature, args.top_k, args.top_p)

    folder = Path(args.output_dir) / "completions"

    def write(source: Source, label: str, prompts: Sequence[Prompt], seed: int) -> Writing:
        if isinstance(source, ServedModel):
            return _texts(source.write(folder, label, prompts, sampling, seed))
        if isinstance(source, WrittenModel):
            again = label == "reference" and seed % 2 == 1
            return _texts(source.write(prompts, sampling.samples_per_prompt, sampling.samples_per_prompt * again))
        try:
            written = write_completions(
                folder,
                label,
                f"{source.fingerprint()}-{args.dtype}",
                lambda: models.open(source),
                load_tokenizer(source),
                prompts,
                sampling,
                seed=seed,
                batch_size=args.batch_size,
                desc=f"{label} writes",
            )
        except FloatingPointError as error:
            raise ValueError(f"{source.name!r} cannot be tested: {error}") from error
        return _texts(written)

    return write


def _texts(completions: Sequence[Sequence[Completion]]) -> Writing:
    return [[completion.text for completion in row] for row in completions]


def _refuse_trained_on(args: SelectArguments, data: DatasetDict, prompts: Sequence[Prompt]) -> None:
    """Prompts of the training split show nothing about others."""
    train = args.dataset_train_split
    if train not in data or train == args.dataset_test_split or "prompt" not in data[train].column_names:
        return
    trained_on = {prompt_key(prompt) for prompt in data[train]["prompt"]}
    shared = [prompt for prompt in prompts if prompt_key(prompt) in trained_on]
    if shared:
        raise ValueError(
            f"{len(shared)} of {len(prompts)} prompts of {args.dataset_test_split!r} are in {train!r} too, as "
            f"{shortened(shared[0])}: a model that was trained on a prompt shows nothing about others. Remove them "
            "from one of the two, or divide the data by prompt with `test_share` as in training."
        )


def _short(name: str) -> str:
    """A Hub id as it is; a path by its last part."""
    return name if name.count("/") == 1 and not Path(name).expanduser().exists() else last_part(name) or name


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    args, judging = make_parser().parse(arguments)
    run(args, judging, command=public_command(["fairpo", "select", *arguments]).removeprefix("python "))
