"""One sentence that says what came out, and the numbers it rests on."""

from collections.abc import Sequence
from typing import NamedTuple

from fairpo_trl.reporting.cells import Cell, Change, Outcome, difference, text_of
from fairpo_trl.reporting.documents import Interval, Role
from fairpo_trl.reporting.label_results import LabelResults
from fairpo_trl.reporting.numbers import Sign, judge_text, listed, percent, verdict
from fairpo_trl.reporting.results import Results


class Tile(NamedTuple):
    """A number that stands out: what it is, the number, what it is of."""

    title: str
    value: Cell
    about: str


class Verdict(NamedTuple):
    """What came out: `better` (privileged better, nothing held worse), `worse`, or `same`, which is unclear."""

    kind: Sign
    sentence: str
    details: tuple[str, ...]
    tiles: tuple[Tile, ...]


def changes(results: Results, role: Role) -> dict[str, Interval]:
    """Attributes of a role with the difference their first judge found; those without one are left out."""
    found = {entry.attribute: entry.first_difference for entry in results.by_role() if entry.role == role}
    return {name: value for name, value in found.items() if value is not None}


def worst(values: dict[str, Interval]) -> tuple[str, Interval] | None:
    """The lowest of several differences with its name; `None` of none."""
    return min(values.items(), key=lambda item: item[1].mean) if values else None


def mean_interval(values: Sequence[Interval]) -> Interval | None:
    """
    Mean of several measurements; `None` of none.

    The ends are the means of the ends: at least as wide as the mean's own interval, whatever the measurements have to
    do with each other, which results do not say.
    """
    if not values:
        return None
    ends = [value.ends for value in values if value.ends is not None]
    mean = sum(value.mean for value in values) / len(values)
    if len(ends) < len(values):
        return Interval(mean=mean)
    low, high = (sum(side) / len(values) for side in zip(*ends, strict=True))
    return Interval(mean=mean, low=low, high=high)


def generation_verdict(results: Results) -> Verdict:
    """
    Whether the privileged attributes got better and a held one worse, as the first judge of each sees it.

    Where only another judge sees a held attribute fall, the verdict is unclear and says so.
    """
    privileged, held = changes(results, "privileged"), changes(results, "non_privileged")
    aims, others = results.names_of("privileged"), results.names_of("non_privileged")
    found = {verdict(privileged.get(name)) for name in aims}
    fell = [name for name in others if verdict(held.get(name)) == "worse"]
    unknown = [name for name in others if verdict(held.get(name)) is None]
    doubts = _falls_by_later_judges(results)
    if not others:
        second = "nothing is held"
    elif fell:
        second = f"{listed(fell)} got worse"
    elif unknown:
        second = f"whether {listed(unknown)} kept {'its' if len(unknown) == 1 else 'their'} level was not measured"
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
            f", but the {judge_text(judge)} sees {listed(names)} worse" for judge, names in doubts.items()
        )
    if not {"better", "worse"} & found:  # otherwise it begins with a name, which stays as it is
        sentence = _capital(sentence)
    low = worst(held)
    details = []
    if privileged or held:
        numbers = [f"{name} {text_of(difference(value))}" for name, value in privileged.items()]
        numbers += [f"lowest held: {low[0]} {text_of(difference(low[1]))}"] if low else []
        details.append(f"Change of the win rate, less that of the reference against itself: {'; '.join(numbers)}.")
    tiles = [
        Tile(title, difference(value), about)
        for title, value, about in (
            ("privileged", mean_interval(list(privileged.values())), listed(list(privileged))),
            ("held, mean", mean_interval(list(held.values())), f"of {len(held)}"),
            ("held, worst", low[1] if low else None, low[0] if low else ""),
        )
        if value is not None
    ]
    return Verdict(kind, f"{sentence}.", (*details, *_second_opinions(results)), tuple(tiles))


def label_verdict(results: LabelResults) -> Verdict:
    """Whether the privileged labels gained in the mean, and which held ones fell."""
    comparison, measure = results.comparison, results.measure
    groups = {group: row.change for group, row in comparison.by_group.items()}
    privileged, held = groups.get("privileged"), groups.get("non_privileged")
    fell, surely = comparison.fell, comparison.fell_surely
    found, kept = verdict(privileged), verdict(held)
    allowed = points_text(comparison.eps)
    words = {
        "better": "the privileged labels got better in the mean",
        "worse": "the privileged labels got worse in the mean",
        "same": "it is unclear whether the privileged labels got better in the mean",
        None: "whether the privileged labels got better has no interval",
    }
    if kept == "worse":
        second = "the held labels got worse in the mean"
    elif surely:
        second = f"{_held_labels(surely)} fell by more than {allowed}"
    elif fell:
        second = f"{_held_labels(fell)} fell by more than {allowed}, none with the whole interval"
    else:
        second = f"no held label fell by more than {allowed}"
    kind: Sign = "same"
    if "worse" in (found, kept) or surely:
        kind = "worse"
    elif found == "better":
        kind = "better"
    joint = ", but " if found == "better" and kind == "worse" else "; " if found != "better" else ", and "
    tiles = []
    for name, group, value in (("privileged", "privileged", privileged), ("held", "non_privileged", held)):
        if value is not None:
            before, after = (
                percent(evaluated.by_group.get(group, {}).get(measure.lower()))
                for evaluated in results.evaluations.by_model().values()
            )
            tiles.append(Tile(f"{name}, change of {measure}", Change(value), f"{before} → {after} %"))
    about = f"{len(surely) or 'none'} with the whole interval" if fell else "none"
    tiles.append(Tile(f"held labels that fell > {allowed}", str(len(fell)), about))
    return Verdict(kind, _capital(f"{words[found]}{joint}{second}."), (), tuple(tiles))


def points_text(share: float) -> str:
    """A fall that was allowed, in words: `1 point`, `0.5 points`."""
    return f"{100 * share:g} point" + ("" if share == 0.01 else "s")


def _privileged_clause(names: Sequence[str], values: dict[str, Interval]) -> str:
    if not names:
        return "nothing is privileged"
    groups: dict[str | None, list[str]] = {}
    for name in names:
        groups.setdefault(verdict(values.get(name)), []).append(name)
    words = {
        "better": "{} got better",
        "worse": "{} got worse",
        "same": "it is unclear whether {} got better",
        None: "whether {} got better was not measured",
    }
    return "; ".join(text.format(listed(groups[found])) for found, text in words.items() if found in groups)


def _later_judges(results: Results) -> list[tuple[str, str, Role, Interval | None, Interval | None]]:
    """(judge, attribute, role, first judge's difference, this judge's) for all but an attribute's first judge."""
    return [
        (judge, entry.attribute, entry.role, entry.first_difference, rates.difference)
        for entry in results.by_role()
        for judge, rates in list(entry.win_rate.items())[1:]
    ]


def _falls_by_later_judges(results: Results) -> dict[str, list[str]]:
    """Judge -> held attributes which it sees fall although their first judge does not."""
    found: dict[str, list[str]] = {}
    for judge, attribute, role, first, second in _later_judges(results):
        if role == "non_privileged" and verdict(first) != "worse" and verdict(second) == "worse":
            found.setdefault(judge, []).append(attribute)
    return found


def _second_opinions(results: Results) -> list[str]:
    """Whether the judges after an attribute's first one come to the same verdicts."""
    found: dict[str, list[str]] = {}
    for judge, attribute, _, first, second in _later_judges(results):
        if verdict(second) is not None:
            told = f"{attribute} {text_of(difference(second))} {text_of(Outcome(second))}"
            found.setdefault(judge, []).extend([told] if verdict(second) != verdict(first) else [])
    return [
        f"The {judge_text(judge)} sees it differently: {', '.join(differing)}."
        if differing
        else f"The {judge_text(judge)} agrees with every verdict."
        for judge, differing in found.items()
    ]


def _held_labels(names: Sequence[str]) -> str:
    return "1 held label" if len(names) == 1 else f"{len(names)} held labels"


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]
