"""The HTML report of language models: one document per candidate, all against their reference."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from fairpo_trl.reporting.html.charts import (
    DotColumn,
    History,
    Plane,
    ends,
    history,
    mark,
    mean_interval,
    plane,
    scale,
)
from fairpo_trl.reporting.html.page import write_page
from fairpo_trl.reporting.html.verdict import Verdict, changes, generation_verdict, worst
from fairpo_trl.reporting.label_blocks import Block
from fairpo_trl.reporting.numbers import (
    ABSENT,
    GUARD_LABELS,
    duration,
    guard,
    interval,
    role_text,
    share,
    verdict_text,
)
from fairpo_trl.reporting.results import (
    AttributeResult,
    Interval,
    Regression,
    Results,
    Sample,
    by_role,
    check_results,
    public_results,
)


@dataclass(frozen=True)
class Text:
    """A prompt with both texts. `chips` are (number of the attribute, what is said of it), `numbers` theirs."""

    prompt: str
    reference: str
    trained: str
    chips: tuple[tuple[int, str], ...]
    numbers: str


@dataclass(frozen=True)
class Candidate:
    """What the page shows of one document; `choices` are the attributes its texts can be chosen by, with numbers."""

    number: int
    name: str
    reference_name: str
    title: str
    verdict: Verdict
    dots: DotColumn | None
    rates: Block
    tables: tuple[Block, ...]
    guards: Block | None
    judges: Block | None
    histories: tuple[History, ...]
    choices: tuple[tuple[int, str], ...]
    samples: tuple[Text, ...]
    regressions: tuple[Text, ...]
    about: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    command: str


def write_html_report(documents: Sequence[Results], path: str | os.PathLike[str]) -> Path:
    """Write one self-contained page for one or several candidate models.

    Args:
        documents: The results of each candidate; with several a switch chooses between them.
        path: The page; its folder is created if needed.

    Returns:
        The path.

    Raises:
        ValueError: There is no document, or one is not sound; see `check_results`.
        OSError: The page cannot be written.
    """
    if not documents:
        raise ValueError("There are no results to report: pass at least one document.")
    for document in documents:
        check_results(document)
    shown = [public_results(document) for document in documents]
    candidates = [_candidate(i, document) for i, document in enumerate(shown)]
    references = list(dict.fromkeys(candidate.reference_name for candidate in candidates))
    title = candidates[0].title
    if len(candidates) > 1:
        title = f"{len(candidates)} models against {', '.join(references)}"
    return write_page("generation.html", path, title=title, candidates=candidates, planes=_planes(shown, candidates))


def _candidate(number: int, results: Results) -> Candidate:
    partition = results["partition"]
    names = [entry["attribute"] for entry in by_role(results)]
    samples = [_sample(sample, names) for sample in results.get("samples", [])]
    regressions = [_regression(found, names) for found in results.get("regressions", [])]
    used = sorted({i for text in (*samples, *regressions) for i, _ in text.chips})
    histories = (
        history("Group weights during training", "weight", results.get("weights_history", []), partition, None),
        history("Margins of the pairs over the reference", "nats", results.get("margins_history", []), partition, 0.0),
    )
    dots, rates = _rates(results)
    return Candidate(
        number=number,
        name=results.get("name", results["title"]),
        reference_name=results.get("reference_name", "reference"),
        title=results["title"],
        verdict=generation_verdict(results),
        dots=dots,
        rates=rates,
        tables=tuple(block for block in (_scores(results), _pairs(results)) if block is not None),
        guards=_guards(results),
        judges=_judges(results),
        histories=tuple(found for found in histories if found is not None),
        choices=tuple((i, names[i]) for i in used),
        samples=tuple(samples),
        regressions=tuple(regressions),
        about=_about(results),
        settings=tuple((name, str(value)) for name, value in results.get("settings", {}).items()),
        command=results.get("command", ""),
    )


def _rates(results: Results) -> tuple[DotColumn | None, Block]:
    """The table of win rates, one row per attribute and judge, and the differences (or else the rates) drawn."""
    rows = [
        (entry, judge, rates) for entry in by_role(results) for judge, rates in entry.get("win_rate", {}).items()
    ]  # fmt: skip
    controlled = any("length_controlled" in entry for entry in results["attributes"])

    def cells(entry: AttributeResult) -> list[tuple[str, ...]]:
        found = []
        for judge, rates in entry.get("win_rate", {}).items():
            difference = rates.get("difference")
            row = [
                entry["attribute"],
                judge.replace("_", " "),
                interval(difference, signed=True),
                verdict_text(difference),
                interval(rates["trained"]),
                interval(rates.get("reference_vs_itself")),
            ]
            found.append((*row, *([interval(entry.get("length_controlled", {}).get(judge))] if controlled else [])))
        return found or [(entry["attribute"], ABSENT, *[ABSENT] * (5 if controlled else 4))]

    header = ["attribute", "judge", "difference", "", "trained", "reference vs itself"]
    prompts = {rates["trained"].get("n") for _, _, rates in rows}
    counted = f" Mean over {prompts.pop()} held-out prompts." if len(prompts) == 1 and None not in prompts else ""
    note = (
        f"Win rates of fresh completions against the reference; .50 is as good as it.{counted} The difference is "
        "trained minus reference against itself with another seed, paired by prompt. In brackets: 95 % intervals."
    )
    if controlled:
        note += " At equal length: the win rate predicted for completions as long as the reference's."
    block = Block(
        "Win rates",
        (*header, *(["at equal length"] if controlled else [])),
        _sections(results, cells),
        texts=2,
        note=note,
    )
    drawn: list[tuple[AttributeResult, Interval | None]] = []
    differences = any("difference" in rates for _, _, rates in rows)
    for entry in by_role(results):
        judged = list(entry.get("win_rate", {}).values())
        drawn += [(entry, rates.get("difference") if differences else rates["trained"]) for rates in judged] or [
            (entry, None)
        ]
    values = ends([value for _, value in drawn])
    if not values:
        return None, block
    axis = scale(values, neutral=0.0 if differences else 0.5, signed=differences)
    marks = tuple(mark(axis, value, entry["role"], interval(value)) for entry, value in drawn)
    return DotColumn("worse ← → better", axis, marks), block


def _scores(results: Results) -> Block | None:
    if not any(entry.get("scores") for entry in results["attributes"]):
        return None

    def cells(entry: AttributeResult) -> list[tuple[str, ...]]:
        return [
            (
                entry["attribute"],
                judge.replace("_", " "),
                interval(found["reference"]),
                interval(found["trained"]),
                interval(found.get("difference"), signed=True),
                verdict_text(found.get("difference")),
            )
            for judge, found in entry.get("scores", {}).items()
        ]

    return Block(
        "Mean scores",
        ("attribute", "judge", "reference", "trained", "difference", ""),
        _sections(results, cells),
        texts=2,
        note="In each judge's own unit; the difference is paired by prompt.",
    )


def _pairs(results: Results) -> Block | None:
    parts = ("pairs", "pair_accuracy", "inside_hinge", "final_weight")
    if not any(part in entry for part in parts for entry in results["attributes"]):
        return None

    def cells(entry: AttributeResult) -> list[tuple[str, ...]]:
        accuracy = entry.get("pair_accuracy")
        return [
            (
                entry["attribute"],
                str(entry["pairs"]) if "pairs" in entry else ABSENT,
                share(accuracy.get("reference") if accuracy else None),
                share(accuracy["trained"] if accuracy else None),
                share(entry.get("inside_hinge")),
                share(entry.get("final_weight")),
            )
        ]

    return Block(
        "Held-out preference pairs",
        ("attribute", "pairs", "accuracy, reference", "accuracy, trained", "inside hinge", "final weight"),
        _sections(results, cells),
        note="Accuracy: share of pairs whose preferred text is the more probable one. Inside hinge: share of pairs "
        "without hinge loss. Final weight: of the attribute's group at the end of training.",
    )


def _guards(results: Results) -> Block | None:
    if "guards" not in results:
        return None
    reference, trained = results["guards"]["reference"], results["guards"]["trained"]
    rows = tuple(
        (GUARD_LABELS.get(name, name.replace("_", " ")), guard(name, reference), guard(name, trained))
        for name in dict.fromkeys([*GUARD_LABELS, *reference, *trained])
        if name in reference or name in trained
    )
    return Block("Does the text stay sound?", ("", "reference", "trained"), (("", rows),))


def _judges(results: Results) -> Block | None:
    if not results.get("judges"):
        return None
    rows = tuple(
        (name.replace("_", " "), calls["kind"], *(str(calls[part]) for part in ("calls", "cached", "failures")))  # type: ignore[literal-required]
        for name, calls in results["judges"].items()
    )
    note = "Failed calls are left out of every number."
    return Block("Judges", ("judge", "kind", "calls", "from cache", "failures"), (("", rows),), texts=2, note=note)


def _about(results: Results) -> tuple[tuple[str, str], ...]:
    rows: list[tuple[str, str]] = [(name, results[name]) for name in ("model", "data", "hardware") if name in results]  # type: ignore[literal-required]
    for role in ("privileged", "non_privileged"):
        names = [name for name, found in results["partition"].items() if found == role]
        rows.append((role_text(role), ", ".join(names) or ABSENT))
    if "seeds" in results:
        rows.append(("seeds", ", ".join(map(str, results["seeds"]))))
    if "seconds" in results:
        rows.append(("time", duration(results["seconds"])))
    return tuple(rows)


def _sample(sample: Sample, names: Sequence[str]) -> Text:
    chips = [
        (
            names.index(name) if name in names else -1,
            f"{name} {share(found['reference'])} → {share(found['trained'])}",
        )
        for name, found in sample.get("scores", {}).items()
    ]
    return _text(sample, chips)


def _regression(found: Regression, names: Sequence[str]) -> Text:
    name = found["attribute"]
    told = f"{name} {_signed(found['change'])} by the {found['judge'].replace('_', ' ')}"
    return _text(found, [(names.index(name) if name in names else -1, told)])


def _text(sample: Sample, chips: Sequence[tuple[int, str]]) -> Text:
    numbers = " ".join(str(i) for i, _ in chips)
    return Text(sample["prompt"], sample["reference"], sample["trained"], tuple(chips), numbers)


def _planes(documents: Sequence[Results], candidates: Sequence[Candidate]) -> tuple[Plane, ...]:
    """Privileged gain against the mean and the worst held change, of the candidates that have both."""
    points: list[tuple[str, Interval, Interval, Interval]] = []
    for document, candidate in zip(documents, candidates, strict=True):
        held = changes(document, "non_privileged")
        gain, mean, low = mean_interval(list(changes(document, "privileged").values())), None, worst(held)
        mean = mean_interval(list(held.values()))
        if gain and mean and low:
            points.append((candidate.name, gain, mean, low[1]))
    if not points:
        return ()
    shared = [(gain, value) for _, gain, *values in points for value in values]
    return tuple(
        plane(
            f"Held attributes, {what}",
            ("privileged gain", f"held, {what}"),
            [(name, gain, values[i]) for name, gain, *values in points],
            shared,
        )
        for i, what in enumerate(("mean", "worst"))
    )


def _sections(
    results: Results, cells: Callable[[AttributeResult], list[tuple[str, ...]]]
) -> tuple[tuple[str, tuple[tuple[str, ...], ...]], ...]:
    return tuple(
        (role_text(role), rows)
        for role, entries in groupby(by_role(results), key=lambda entry: entry["role"])
        if (rows := tuple(row for entry in entries for row in cells(entry)))
    )


def _signed(value: float) -> str:
    return interval({"mean": value}, signed=True)
