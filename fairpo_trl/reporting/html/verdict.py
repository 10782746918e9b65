"""One sentence that says what came out, and the numbers it rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from fairpo_trl.reporting.html.charts import mean_interval
from fairpo_trl.reporting.label_blocks import measure_text
from fairpo_trl.reporting.label_results import LabelResults, difference
from fairpo_trl.reporting.numbers import delta, interval, percent, verdict, verdict_text
from fairpo_trl.reporting.results import AttributeResult, Interval, Results, Role, by_role


Sign: TypeAlias = Literal["better", "worse", "same"]


@dataclass(frozen=True)
class Tile:
    """A number that stands out: what it is, its text, what it is of."""

    title: str
    value: str
    about: str


@dataclass(frozen=True)
class Verdict:
    """What came out: `better` (privileged better, nothing held worse), `worse`, or `same`, which is unclear."""

    kind: Sign
    sentence: str
    details: tuple[str, ...]
    tiles: tuple[Tile, ...]


def first_difference(entry: AttributeResult) -> Interval | None:
    """An attribute's difference to the reference against itself, as its first judge sees it."""
    for rates in entry.get("win_rate", {}).values():
        return rates.get("difference")
    return None


def changes(results: Results, role: Role) -> dict[str, Interval]:
    """Attributes of a role with the difference their first judge found; those without one are left out."""
    found = {entry["attribute"]: first_difference(entry) for entry in by_role(results) if entry["role"] == role}
    return {name: value for name, value in found.items() if value is not None}


def worst(values: dict[str, Interval]) -> tuple[str, Interval] | None:
    """The lowest of several differences with its name; `None` of none."""
    return min(values.items(), key=lambda item: item[1]["mean"]) if values else None


def generation_verdict(results: Results) -> Verdict:
    """Whether the privileged attributes got better and a held one worse, as the first judge of each sees it.

    Where only another judge sees a held attribute fall, the verdict is unclear and says so.
    """
    privileged, held = changes(results, "privileged"), changes(results, "non_privileged")
    aims = [name for name, role in results["partition"].items() if role == "privileged"]
    others = [name for name in results["partition"] if name not in aims]
    found = {verdict(privileged.get(name)) for name in aims}
    fell = [name for name in others if verdict(held.get(name)) == "worse"]
    unknown = [name for name in others if verdict(held.get(name)) is None]
    doubts = _falls_by_later_judges(results)
    if not others:
        second = "nothing is held"
    elif fell:
        second = f"{_listed(fell)} got worse"
    elif unknown:
        second = f"whether {_listed(unknown)} kept {'its' if len(unknown) == 1 else 'their'} level was not measured"
    else:
        second = "no held attribute got measurably worse"
    first = _privileged_clause(aims, privileged)
    kind: Sign = "same"
    if fell or "worse" in found:
        kind = "worse"
    elif found == {"better"} and not unknown and not doubts:
        kind = "better"
    joint = "; " if found != {"better"} else ", but " if fell else ", and "
    sentence = first + joint + second
    if doubts and not fell:
        sentence += "".join(
            f", but the {_plain(judge)} sees {_listed(names)} worse" for judge, names in doubts.items()
        )
    if not {"better", "worse"} & found:  # otherwise it begins with a name, which stays as it is
        sentence = _capital(sentence)
    low = worst(held)
    details = []
    if privileged or held:
        numbers = [f"{name} {interval(value, signed=True)}" for name, value in privileged.items()]
        numbers += [f"lowest held: {low[0]} {interval(low[1], signed=True)}"] if low else []
        details.append(f"Change of the win rate, less that of the reference against itself: {'; '.join(numbers)}.")
    tiles = [
        Tile(title, interval(value, signed=True), about)
        for title, value, about in (
            ("privileged", mean_interval(list(privileged.values())), _listed(list(privileged))),
            ("held, mean", mean_interval(list(held.values())), f"of {len(held)}"),
            ("held, worst", low[1] if low else None, low[0] if low else ""),
        )
        if value is not None
    ]
    return Verdict(kind, f"{sentence}.", (*details, *_second_opinions(results)), tuple(tiles))


def label_verdict(results: LabelResults) -> Verdict:
    """Whether the privileged labels gained in the mean, and which held ones fell."""
    comparison, measure = results["comparison"], measure_text(results)
    groups = {group: difference(row) for group, row in comparison["by_group"].items()}
    privileged, held = groups.get("privileged"), groups.get("non_privileged")
    fell, surely = comparison["fell"], comparison["fell_surely"]
    found, kept = verdict(privileged), verdict(held)
    eps = f"{100 * comparison['eps']:g}"
    unit = "point" if eps == "1" else "points"
    words = {
        "better": "the privileged labels got better in the mean",
        "worse": "the privileged labels got worse in the mean",
        "same": "it is unclear whether the privileged labels got better in the mean",
        None: "whether the privileged labels got better has no interval",
    }
    if kept == "worse":
        second = "the held labels got worse in the mean"
    elif surely:
        second = f"{len(surely)} held {'label' if len(surely) == 1 else 'labels'} fell by more than {eps} {unit}"
    elif fell:
        count = "1 held label" if len(fell) == 1 else f"{len(fell)} held labels"
        second = f"{count} fell by more than {eps} {unit}, none with the whole interval"
    else:
        second = f"no held label fell by more than {eps} {unit}"
    kind: Sign = "same"
    if "worse" in (found, kept) or surely:
        kind = "worse"
    elif found == "better":
        kind = "better"
    joint = ", but " if found == "better" and kind == "worse" else "; " if found != "better" else ", and "
    tiles = [
        Tile(f"{name}, change of {measure.group}", delta(value), f"{percent(before)} → {percent(after)} %")
        for name, group, value in (
            ("privileged", "privileged", privileged),
            ("held", "non_privileged", held),
        )
        if value is not None
        for before, after in (
            [
                results["evaluations"][model]["by_group"].get(group, {}).get(measure.group.lower())
                for model in ("reference", "trained")
            ],  # type: ignore[literal-required]
        )
    ]
    about = "none with the whole interval" if not surely else f"{len(surely)} with the whole interval"
    tiles.append(Tile(f"held labels that fell > {eps} {unit}", str(len(fell)), about if fell else "none"))
    return Verdict(kind, _capital(f"{words[found]}{joint}{second}."), (), tuple(tiles))


def _privileged_clause(names: Sequence[str], values: dict[str, Interval]) -> str:
    if not names:
        return "nothing is privileged"
    groups: dict[str | None, list[str]] = {}
    for name in names:
        groups.setdefault(verdict(values.get(name)), []).append(name)
    parts = []
    for found, words in (("better", "got better"), ("worse", "got worse")):
        if found in groups:
            parts.append(f"{_listed(groups[found])} {words}")
    if "same" in groups:
        parts.append(f"it is unclear whether {_listed(groups['same'])} got better")
    if None in groups:
        parts.append(f"whether {_listed(groups[None])} got better was not measured")
    return "; ".join(parts)


def _falls_by_later_judges(results: Results) -> dict[str, list[str]]:
    """Judge -> held attributes which it sees fall although their first judge does not."""
    found: dict[str, list[str]] = {}
    for entry in by_role(results):
        if entry["role"] == "non_privileged" and verdict(first_difference(entry)) != "worse":
            for judge, rates in list(entry.get("win_rate", {}).items())[1:]:
                if verdict(rates.get("difference")) == "worse":
                    found.setdefault(judge, []).append(entry["attribute"])
    return found


def _second_opinions(results: Results) -> list[str]:
    """Whether the judges after an attribute's first one come to the same verdicts."""
    found: dict[str, list[str]] = {}
    for entry in by_role(results):
        first = verdict(first_difference(entry))
        for judge, rates in list(entry.get("win_rate", {}).items())[1:]:
            value = rates.get("difference")
            if (second := verdict(value)) is not None:
                told = f"{entry['attribute']} {interval(value, signed=True)} {verdict_text(value)}"
                found.setdefault(judge, []).extend([told] if second != first else [])
    return [
        f"The {_plain(judge)} sees it differently: {', '.join(told)}."
        if told
        else f"The {_plain(judge)} agrees with every verdict."
        for judge, told in found.items()
    ]


def _plain(judge: str) -> str:
    return judge.replace("_", " ")


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
