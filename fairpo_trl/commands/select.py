"""`fairpo select`: tests which of a path of models keeps its promise, and hands over the boldest one that does."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from rich.console import Console

from fairpo_trl.commands.evaluate_inputs import (
    check_templates,
    distinct_prompts,
    find_reference,
    loaded_here,
    read_inputs,
    report_console,
    short_name,
    text_parser,
    write,
)
from fairpo_trl.commands.evaluate_judges import JudgeArguments, load_judges
from fairpo_trl.commands.evaluate_runs import choose_partition, read_run
from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.commands.select_inputs import (
    SelectArguments,
    divide_prompts,
    find_candidates,
    make_path,
    parse_margins,
)
from fairpo_trl.core.messages import shortened
from fairpo_trl.core.partition import Partition
from fairpo_trl.evaluation.comparison import Writing
from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.evaluation.held_measures import HeldPairLosses, TaskResults, TextLogProbs, read_documents
from fairpo_trl.evaluation.judges import JUDGE_NAMES, JudgeSpec, assign_judges
from fairpo_trl.evaluation.models import LoadedModels, ModelSource
from fairpo_trl.evaluation.paths import Source, Step, copy_model
from fairpo_trl.evaluation.run import JudgedAttribute, ModelMeasure, Write, run_selection
from fairpo_trl.evaluation.selection import CandidateTest
from fairpo_trl.evaluation.statement import describe, statement
from fairpo_trl.generation.data import main_console
from fairpo_trl.generation.trained_prompts import trained_on
from fairpo_trl.hub.privacy import public_command
from fairpo_trl.preferences.rules import attribute_names, prompt_key
from fairpo_trl.reporting import print_results
from fairpo_trl.reporting.selection_results import SelectionResults
from fairpo_trl.reporting.writers import write_selection


def make_parser() -> CommandParser:
    """Parser of the command."""
    return text_parser(
        SelectArguments,
        "selection",
        command="fairpo select",
        summary="Tests models from the safest to the boldest; hands over the boldest that is shown not to be worse.",
        examples=(
            "fairpo select out --dataset pairs.jsonl --judges concise=count:words:fewer helpful=reward:my/reward \\",
            "    --margin 0.05 --level 0.05 --output_dir chosen",
            "fairpo select out --path checkpoints --dataset ratings.csv --ratings helpful kind \\",
            "    --judges all=llm:http://localhost:8000/v1#my-judge --judge_api_key_env JUDGE_KEY",
        ),
    )


def run(
    args: SelectArguments, judging: JudgeArguments, console: Console | None = None, command: str = ""
) -> SelectionResults:
    """
    Tests the path, writes `selection.json`, its picture and the chosen model, and prints the verdict.

    Texts are kept in the output folder: the same call after an interruption writes only what is missing. Arguments and
    errors are those of [`fairpo_trl.commands.evaluate.run`].
    """
    started = time.time()
    console = console or report_console()
    specs, data = read_inputs(args, judging, "fairpo select", console)
    prompts, test_prompts, assigned = prompts_and_judges(args, specs, data)
    attributes = list(assigned)
    sources = find_candidates(args)
    reference = find_reference(args, list(sources.values()))
    steps = make_path(args, sources, reference)
    here = loaded_here(sources)
    asked = [*prompts, *test_prompts]
    for source in here.values():
        _refuse_trained_on(asked, trained_on(source.folder, asked), f"{short_name(source.name)!r} was trained on")
    runs = {name or "the model": read_run(source.folder) for name, source in here.items()}
    partition = choose_partition(attributes, args.privileged_attributes, runs)
    margins = parse_margins(args, partition.non_privileged)
    output = Path(args.output_dir)
    judges = load_judges(specs, judging, attributes, output, args.batch_size)
    models = LoadedModels(args.dtype)
    measures = _measures(args, models, data, prompts, partition, [reference, *sources.values()])
    check_templates(prompts, [reference, *sources.values()])

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
        f"{steps[0].name} to {steps[-1].name}, against {short_name(reference.name)}.",
        soft_wrap=True,
    )
    described |= {measure.name: measure.description for measure in measures}

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
    selection, named = outcome.selection, args.models or []
    results = SelectionResults(
        model=short_name(named[0]) if len(named) == 1 else f"{len(named)} models",
        reference=short_name(reference.name),
        data=f"{len(prompts)} prompts of {args.dataset_test_split}, {short_name(args.dataset_name or 'a mixture')}",
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
    hand_over(results, steps, output, console)
    return results


def prompts_and_judges(
    args: SelectArguments, specs: Sequence[JudgeSpec], data: DatasetDict
) -> tuple[list[Prompt], list[Prompt], dict[str, list[JudgeSpec]]]:
    """
    Prompts that decide, others that do not, and the judges of every attribute of the data.

    Raises:
        ValueError: If there are too few prompts, some were trained on, or judges and attributes do not go together.
    """
    every, attributes, _ = distinct_prompts(args, data)
    split = f"The split {args.dataset_train_split!r} has"
    _refuse_trained_on(every, _prompts_of_train(args, data, every), split)
    return *divide_prompts(args, every), assign_judges(specs, attributes)


def hand_over(
    results: SelectionResults, steps: Sequence[Step], output: Path, console: Console | None = None
) -> Path | None:
    """
    As [`~fairpo_trl.reporting.writers.write_selection`], and prints the verdict.

    Args:
        results, output:
            What was found, and where it goes.
        steps (`Sequence[Step]`):
            The path that was tested.
        console (`Console`, *optional*):
            Where to print; the standard output by default.

    Returns:
        `Path`, *optional*: the chosen model; `None` if it is the reference, or one that is not loaded here.
    """
    console = console or main_console()
    chosen = next((step.make() for step in steps if step.name == results.selection.chosen), None)
    save = functools.partial(copy_model, chosen) if isinstance(chosen, ModelSource) else None
    folder = write_selection(results, output, save)
    console.print()
    print_results(results, console)
    if folder:
        console.print(f"\nThe model: {folder}", markup=False, soft_wrap=True)
    report = output / "selection.html"
    console.print(f"Report: {report}   (Markdown, JSON and the picture beside it)", markup=False, soft_wrap=True)
    return folder


def _measures(
    args: SelectArguments,
    models: LoadedModels,
    data: DatasetDict,
    prompts: Sequence[Prompt],
    partition: Partition,
    sources: Sequence[Source],
) -> list[ModelMeasure]:
    """What is held besides judged attributes: documents, losses of pairs on the prompts that decide, tasks."""
    asked = [name for name in ("held_texts", "held_pairs", "held_tasks") if getattr(args, name)]
    here = [source for source in sources if isinstance(source, ModelSource)]
    if asked and len(here) < len(sources):
        raise ValueError(f"`{asked[0]}` needs models that are loaded here: a server or a file gives texts only.")
    folder, found = Path(args.output_dir) / "measures", list[ModelMeasure]()
    how: dict[str, Any] = {"batch_size": args.batch_size, "dtype": args.dtype}
    if args.held_texts:
        texts = read_documents(args.held_texts)
        found.append(TextLogProbs(texts, models.open, folder, "held texts", args.held_texts_margin, args.dtype))
    if args.held_pairs:
        deciding = {prompt_key(prompt) for prompt in prompts}
        rows = data[args.dataset_test_split]
        for attribute in partition.non_privileged:
            pairs = [
                row
                for row in rows
                if attribute in attribute_names(row[args.attribute_column]) and prompt_key(row["prompt"]) in deciding
            ]
            name, margin = f"{attribute}, loss of pairs", args.held_pairs_margin
            found.append(HeldPairLosses(pairs, here[0], models.open, folder, name, margin, **how))
    for task in args.held_tasks or ():
        margin, own = args.held_tasks_margin, args.held_tasks_path
        found.append(TaskResults(task, models.open, folder, margin, own, **how))
    return found


def _writer(args: SelectArguments, models: LoadedModels) -> Write:
    """Lets a model write, or reads what it wrote in an earlier call."""

    def texts(source: Source, label: str, prompts: Sequence[Prompt], seed: int) -> Writing:
        again = label == "reference" and seed % 2 == 1
        written = write(args, models, source, label, prompts, seed, again)
        return [[completion.text for completion in row] for row in written]

    return texts


def _prompts_of_train(args: SelectArguments, data: DatasetDict, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Those that the training split of the same data has too."""
    train = args.dataset_train_split
    if train not in data or train == args.dataset_test_split or "prompt" not in data[train].column_names:
        return []
    known = {prompt_key(prompt) for prompt in data[train]["prompt"]}
    return [prompt for prompt in prompts if prompt_key(prompt) in known]


def _refuse_trained_on(prompts: Sequence[Prompt], shared: Sequence[Prompt], where: str) -> None:
    """Prompts that a model was trained on show nothing about others."""
    if shared:
        raise ValueError(
            f"{where} {len(shared)} of {len(prompts)} prompts that should test it, as {shortened(shared[0])}: a model "
            "that was trained on a prompt shows nothing about others. Name other data, or divide them by prompt with "
            "the `test_share` of the training."
        )


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    args, judging = make_parser().parse(arguments)
    run(args, judging, command=public_command(["fairpo", "select", *arguments]).removeprefix("python "))
