"""`fairpo evaluate`: lets models write on held-out prompts, judges every attribute against the reference, reports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from fairpo_trl.commands.evaluate_inputs import (
    EvaluateArguments,
    candidate_names,
    check_templates,
    distinct_prompts,
    find_reference,
    find_source,
    loaded_here,
    read_inputs,
    report_console,
    short_name,
    text_parser,
    write,
)
from fairpo_trl.commands.evaluate_judges import JudgeArguments, load_judges
from fairpo_trl.commands.evaluate_results import (
    AGAIN,
    REFERENCE,
    ModelTexts,
    attribute_results,
    judge_calls,
    judge_texts,
    regressions_of,
    samples_of,
)
from fairpo_trl.commands.evaluate_runs import RunFacts, choose_partition, read_run
from fairpo_trl.commands.parsing import CommandParser
from fairpo_trl.evaluation.completions import Completion, Prompt
from fairpo_trl.evaluation.guards import mean_token_log_prob, text_guards
from fairpo_trl.evaluation.judges import assign_judges
from fairpo_trl.evaluation.models import LoadedModels, ModelSource, load_tokenizer
from fairpo_trl.evaluation.paths import Source
from fairpo_trl.evaluation.writing import kept_numbers
from fairpo_trl.generation.trained_prompts import trained_on
from fairpo_trl.hub.privacy import public_command
from fairpo_trl.reporting import Results, print_results, write_html_report, write_report
from fairpo_trl.reporting.documents import hardware


SETTINGS = ("samples_per_prompt", "max_new_tokens", "temperature", "top_k", "top_p", "max_prompts", "dtype")
"""Options that the results name."""

GUARDED = 100
"""Prompts whose completions' log-prob under the reference is taken: enough for a mean."""


def make_parser() -> CommandParser:
    """Parser of the command."""
    return text_parser(
        EvaluateArguments,
        "evaluation",
        command="fairpo evaluate",
        summary="Models write on held-out prompts; every attribute is judged against the reference; an HTML report.",
        examples=(
            "fairpo evaluate out --dataset pairs.jsonl --judges concise=count:words:fewer helpful=reward:my/reward",
            "fairpo evaluate run-a run-b --reference my/base-model --dataset ratings.csv --ratings helpful kind \\",
            "    --judges all=llm:http://localhost:8000/v1#my-judge --judge_api_key_env JUDGE_KEY",
        ),
    )


def run(
    args: EvaluateArguments, judging: JudgeArguments, console: Console | None = None, command: str | None = None
) -> list[Results]:
    """
    Evaluates every model, writes its results and the reports, and prints the tables.

    Completions and answers of language-model judges are kept in the output folder: the same call after an interruption
    computes only what is missing.

    Args:
        args ([`EvaluateArguments`]):
            Models, data, sampling.
        judging ([`JudgeArguments`]):
            The judges.
        console (`Console`, *optional*):
            Where to print; the standard output by default.
        command (`str`, *optional*):
            The command line, for the report.

    Returns:
        `list[Results]`: one document per model, in their order.

    Raises:
        FileNotFoundError: If data, a model or a file are not there.
        ValueError: If an option is wrong or things do not go together; before any model is loaded.
        OSError: If a judge cannot be reached, or the output cannot be written.
    """
    started = time.time()
    console = console or report_console()
    specs, data = read_inputs(args, judging, "fairpo evaluate", console)
    names = candidate_names(args)
    prompts, attributes, pairs = distinct_prompts(args, data)
    if len(prompts) > args.max_prompts:
        chosen = np.random.default_rng(args.seed).choice(len(prompts), args.max_prompts, replace=False)
        prompts = [prompts[i] for i in sorted(chosen.tolist())]
    assigned = assign_judges(specs, attributes)
    sources = {name: find_source(args, model) for name, model in names.items()}
    reference = find_reference(args, list(sources.values()))
    runs: dict[str, RunFacts | None] = dict.fromkeys(names)
    runs |= {name: read_run(source.folder) for name, source in loaded_here(sources).items()}
    partition = choose_partition(attributes, args.privileged_attributes, runs)
    judges = load_judges(specs, judging, attributes, Path(args.output_dir), args.batch_size)
    for source in loaded_here(sources).values():
        if seen := trained_on(source.folder, prompts):
            console.print(
                f"{short_name(source.name)} was trained on {len(seen)} of these {len(prompts)} prompts: what it "
                "writes there says little about others. Evaluate it with the `test_share` of its training, or on "
                "other data.",
                markup=False,
                soft_wrap=True,
            )
    sources = {REFERENCE: reference, **sources}
    check_templates(prompts, list(sources.values()))
    console.print(
        f"{len(prompts)} prompts, {len(names)} {'model' if len(names) == 1 else 'models'} against "
        f"{short_name(reference.name)}.",
        soft_wrap=True,
    )

    models = LoadedModels(args.dtype)
    texts = _write(args, models, sources, prompts)
    guards = _guards(args, models, sources, texts)
    models.close()
    comparisons = judge_texts(texts, assigned, judges)
    documents = []
    data_name = short_name(args.dataset_name or ", ".join(args.mixture or ()))
    described = {written: judge.description for written, judge in judges.items()}
    for name in names:
        found, own_run = comparisons[name], runs[name]
        results: dict[str, Any] = {
            "title": f"{name} against {short_name(reference.name)}",
            "name": name,
            "reference_name": short_name(reference.name),
            "model": short_name(sources[name].name),
            "data": f"{data_name}, {len(prompts)} prompts of {args.dataset_test_split}",
            "partition": {attribute: partition.role_of(attribute) for attribute in partition.names},
            "settings": {setting: getattr(args, setting) for setting in SETTINGS},
            "shared_draws": isinstance(reference, ModelSource) and name in loaded_here(sources),
            "seeds": [args.seed],
            "hardware": hardware(),
            "attributes": attribute_results(found, partition, own_run, pairs, args.seed),
            "guards": {"reference": guards[REFERENCE], "trained": guards[name]},
            "judges": judge_calls(found, assigned, described),
            "samples": samples_of(texts, name, found),
            "regressions": regressions_of(texts, name, found),
            "command": command or None,
        }
        if own_run is not None:
            results |= {"weights_history": own_run.weights_history, "margins_history": own_run.margins_history}
        documents.append(Results(**results, seconds=time.time() - started))
    _report(args, documents, list(names), console)
    return documents


def main(arguments: list[str]) -> None:
    """Parses and runs."""
    args, judging = make_parser().parse(arguments)
    run(args, judging, command=public_command(["fairpo", "evaluate", *arguments]).removeprefix("python "))


def _write(
    args: EvaluateArguments, models: LoadedModels, sources: dict[str, Source], prompts: list[Prompt]
) -> ModelTexts:
    """What every model writes; every base is loaded once."""
    # The reference's first writing has its own random numbers; its second one shares those of the models.
    jobs = [(REFERENCE, REFERENCE, 2 * args.seed), (AGAIN, REFERENCE, 2 * args.seed + 1)]
    jobs += [(name, name, 2 * args.seed + 1) for name in sources if name != REFERENCE]

    def base(name: str) -> object:
        source = sources[name]
        return source.weights if isinstance(source, ModelSource) else None

    # Models on one base in a row; those on the reference's last, since the guards read it next.
    order = list(dict.fromkeys(base(name) for _, name, _ in jobs))
    order.sort(key=lambda weights: weights == base(REFERENCE))
    written = {}
    for key, name, seed in sorted(jobs, key=lambda job: order.index(base(job[1]))):
        written[key] = write(args, models, sources[name], name or "reference", prompts, seed, again=key == AGAIN)
    return ModelTexts(prompts, {key: written[key] for key, _, _ in jobs})


def _guards(
    args: EvaluateArguments, models: LoadedModels, sources: dict[str, Source], texts: ModelTexts
) -> dict[str, dict[str, float]]:
    """Guards of every model; the log-prob under the reference where a model has the reference's vocabulary."""
    reference = sources[REFERENCE]
    found = {}
    for name, source in sources.items():
        # The reference is measured on the writing that shares its random numbers with the models'.
        completions = texts.completions[AGAIN if name == REFERENCE else name]
        found[name] = text_guards(completions).to_dict()
        if not (isinstance(source, ModelSource) and isinstance(reference, ModelSource)):
            continue  # texts from elsewhere come without tokens
        tokenizer = load_tokenizer(reference)
        same = source.tokenizer == reference.tokenizer or load_tokenizer(source).get_vocab() == tokenizer.get_vocab()
        if same and all(row[0].token_ids or row[0].ended for row in completions[:GUARDED]):
            first = [row[:1] for row in completions[:GUARDED]]
            log_probs = _log_probs(args, models, reference, texts.prompts[:GUARDED], first)
            found[name]["mean_token_log_prob"] = float(log_probs.mean())
    return found


def _log_probs(
    args: EvaluateArguments,
    models: LoadedModels,
    judge: ModelSource,
    prompts: list[Prompt],
    completions: list[list[Completion]],
) -> NDArray[np.float64]:
    """[`mean_token_log_prob`] of one completion for each prompt, kept in the output folder."""

    def compute() -> NDArray[np.float64]:
        with models.open(judge) as model:
            return mean_token_log_prob(model, load_tokenizer(judge), prompts, completions, args.batch_size)[:, 0]

    tokens = [[c.token_ids, c.ended] for (c,) in completions]
    key = {"model": f"{judge.fingerprint()}-{args.dtype}", "prompts": prompts, "tokens": tokens}
    return kept_numbers(Path(args.output_dir) / "completions", "log-probs", key, compute, len(prompts))


def _report(args: EvaluateArguments, documents: list[Results], names: Sequence[str], console: Console) -> None:
    output = Path(args.output_dir)
    for name, document in zip(names, documents, strict=True):
        write_report(document, output / name)
        print_results(document, console)
        console.print(f"\n{_worst(document)}", markup=False, soft_wrap=True)
    page = write_html_report(documents, output / "report.html")
    beside = "results.json, report.md and plots in a folder per model beside it"
    console.print(f"\nReport: {page}   ({beside})", markup=False, soft_wrap=True)


def _worst(document: Results) -> str:
    """The attribute with the lowest difference to the reference against itself, by its first judge."""
    found = {
        entry.attribute: entry.first_difference.mean
        for entry in document.attributes
        if entry.first_difference is not None
    }
    if not found:
        return "No attribute could be judged: every judge failed."
    name = min(found, key=found.__getitem__)
    return f"Worst attribute: {name} ({found[name]:+.2f} against the reference, less the reference against itself)."
