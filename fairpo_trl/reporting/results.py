"""The results file of a run: its schema, and reading and writing it.

`results.json` is everything a report needs and nothing private: numbers are finite, what was not measured is absent,
and absolute paths are cut to their last part.
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, cast


Role: TypeAlias = Literal["privileged", "non_privileged"]
"""`privileged` attributes should get better, `non_privileged` ("held") ones must not get worse."""

ROLES: tuple[Role, Role] = ("privileged", "non_privileged")


class Interval(TypedDict):
    """A mean with its 95 % interval, absent if it could not be had; `n` is the number of prompts."""

    mean: float
    low: NotRequired[float]
    high: NotRequired[float]
    n: NotRequired[int]


class Delta(Interval):
    """A difference of means; `seed_sd` is its standard deviation over seeds, another uncertainty than the interval."""

    seed_sd: NotRequired[float]


class JudgeWinRates(TypedDict):
    """Win rates against the reference as seen by one judge (0 to 1; 0.5 is as good as the reference).

    `reference_vs_itself` compares two seeds of the reference; `difference` is `trained - reference_vs_itself`.
    """

    trained: Interval
    reference_vs_itself: NotRequired[Interval]
    difference: NotRequired[Interval]


class PairAccuracy(TypedDict):
    """Share of held-out pairs whose preferred text is the more probable one (0 to 1)."""

    trained: float
    reference: NotRequired[float]


class JudgeScores(TypedDict):
    """Mean scores by one judge, in its own unit; `difference` is paired by prompt."""

    trained: Interval
    reference: Interval
    difference: NotRequired[Interval]


class AttributeResult(TypedDict):
    """One attribute. `inside_hinge`: share of pairs without hinge loss; `final_weight`: its group's.

    `length_controlled`: judge -> win rate at equal length (0 to 1); `scores`: judge -> mean scores.
    """

    attribute: str
    role: Role
    pairs: NotRequired[int]
    win_rate: NotRequired[dict[str, JudgeWinRates]]
    length_controlled: NotRequired[dict[str, Interval]]
    scores: NotRequired[dict[str, JudgeScores]]
    pair_accuracy: NotRequired[PairAccuracy]
    inside_hinge: NotRequired[float]
    final_weight: NotRequired[float]


class Guards(TypedDict):
    """Means and shares by name (see `TextGuards.to_dict`) of the reference's and the trained model's completions."""

    reference: dict[str, float]
    trained: dict[str, float]


class SampleScores(TypedDict):
    """How much of one attribute a judge saw in either text, in its own unit."""

    reference: float
    trained: float


class Sample(TypedDict):
    """One prompt with what either model wrote; `scores` maps attribute to the first judge's scores."""

    prompt: str
    reference: str
    trained: str
    scores: NotRequired[dict[str, SampleScores]]


class Regression(Sample):
    """A prompt on which the trained model became worse in one attribute, by `change` of the judge's unit (< 0)."""

    attribute: str
    judge: str
    change: float


class JudgeCalls(TypedDict):
    """What a judge was and what it did: `failures` were left out of every number."""

    kind: str
    calls: int
    cached: int
    failures: int


class Results(TypedDict):
    """One run.

    `partition` maps attribute to role, `seconds` are wall-clock seconds. The histories are lists of
    `{"step": optimizer step, name: value}`: group weights or multipliers, and margins per attribute (nats, the
    log-ratio difference of preferred and rejected text against the reference). `regressions` are the worst changes of
    each attribute, worst first; `name` and `reference_name` are what a report calls the two models.
    """

    title: str
    partition: dict[str, Role]
    attributes: list[AttributeResult]
    command: NotRequired[str]
    model: NotRequired[str]
    data: NotRequired[str]
    settings: NotRequired[dict[str, Any]]
    seeds: NotRequired[list[int]]
    hardware: NotRequired[str]
    seconds: NotRequired[float]
    guards: NotRequired[Guards]
    weights_history: NotRequired[list[dict[str, float]]]
    margins_history: NotRequired[list[dict[str, float]]]
    samples: NotRequired[list[Sample]]
    regressions: NotRequired[list[Regression]]
    name: NotRequired[str]
    reference_name: NotRequired[str]
    judges: NotRequired[dict[str, JudgeCalls]]


_ABSOLUTE_PATH = re.compile(
    r"(?:(?<![\w./:~-])(?:~|/[\w.+@-]+)(?:/[\w.+@-]+)+|\b[A-Za-z]:\\(?:[^\s\\\"']+\\)*[^\s\\\"']+)/?"
)


def without_local_paths(text: str) -> str:
    """Cut absolute paths, and those below `~`, to their last part: `train /home/me/x.json` -> `train x.json`.

    Addresses on the web and relative paths stay as they are.
    """
    return _ABSOLUTE_PATH.sub(lambda match: re.split(r"[/\\]", match.group().rstrip("/"))[-1], text)


def check_results(results: Results) -> None:
    """Raise unless `results` has the shape of [`Results`].

    Raises:
        ValueError: A required part is missing, a number is NaN or infinite, a role is unknown or contradicts
            `partition`, or an interval is upside down. The message names the place.
    """
    check_document(results, Results)
    for entry in results["attributes"]:
        if results["partition"].get(entry["attribute"]) != entry["role"]:
            raise ValueError(
                f"Attribute {entry['attribute']!r} has role {entry['role']!r}, another than in partition."
            )


def check_document(document: Mapping[str, Any], schema: Any) -> None:
    """Raise unless a document has the parts of its schema, finite numbers, intervals the right way up, known roles.

    Args:
        document: What is to be written or was read; its `partition` maps names to roles.
        schema: Its `TypedDict`.

    Raises:
        ValueError: The message names the place.
    """
    missing, unknown = schema.__required_keys__ - document.keys(), document.keys() - schema.__annotations__.keys()
    if missing or unknown:
        raise ValueError(f"{schema.__name__} lack {sorted(missing)} and have unknown parts {sorted(unknown)}.")
    for place, value in _walk(document):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{place} is {value}: leave out what was not measured.")
        low, high = (value.get("low"), value.get("high")) if isinstance(value, Mapping) else (None, None)
        if low is not None and high is not None and low > high:
            raise ValueError(f"{place}: the interval's low end is above its high end.")
    for name, role in document["partition"].items():
        if role not in ROLES:
            raise ValueError(f"partition.{name}: role {role!r} is unknown; it must be one of {ROLES}.")


def write_results(results: Results, path: str | os.PathLike[str]) -> Path:
    """Check and write results as JSON; a reader sees the old file or the new one, never half of one.

    Args:
        results: The results; numbers of numpy must have been turned into Python's. Absolute paths in any text but the
            samples and regressions are cut to their last part.
        path: The file; its folder is created if needed.

    Returns:
        The path.

    Raises:
        ValueError: See [`check_results`].
        TypeError: A value is not JSON.
    """
    check_results(results)
    return write_document(public_results(results), path)


def public_results(results: Results) -> Results:
    """Results without local paths in any text but those that models read or wrote."""
    texts = ("samples", "regressions")
    return cast(Results, {key: value if key in texts else public(value) for key, value in results.items()})


def write_document(document: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write a document as JSON; a reader sees the old file or the new one, never half of one.

    Args:
        document: What to write, as it is.
        path: The file; its folder is created if needed.

    Returns:
        The path.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: A value is not JSON.
    """
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def read_results(path: str | os.PathLike[str]) -> Results:
    """Read and check a results file.

    Args:
        path: A file written by [`write_results`].

    Returns:
        The results.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not JSON, or not results; see [`check_results`].
    """
    results = cast(Results, json.loads(Path(path).read_text(encoding="utf-8")))
    check_results(results)
    return results


def judges(results: Results) -> list[str]:
    """Names of all judges, in order of first appearance."""
    return list(dict.fromkeys(judge for entry in results["attributes"] for judge in entry.get("win_rate", {})))


def has_equal_length(results: Results, judge: str) -> bool:
    """Whether any attribute has its win rate at equal length by this judge."""
    return any(judge in entry.get("length_controlled", {}) for entry in results["attributes"])


def by_role(results: Results) -> list[AttributeResult]:
    """The attributes, privileged ones first, otherwise in their order."""
    return sorted(results["attributes"], key=lambda entry: ROLES.index(entry["role"]))


def _walk(value: object, place: str = "") -> Iterator[tuple[str, object]]:
    yield place, value
    if isinstance(value, Mapping):
        for key, child in value.items():
            yield from _walk(child, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list | tuple):
        for i, child in enumerate(value):
            yield from _walk(child, f"{place}[{i}]")


def public(value: Any) -> Any:
    """A value of a document with every text in it `without_local_paths`."""
    if isinstance(value, str):
        return without_local_paths(value)
    if isinstance(value, Mapping):
        return {key: public(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [public(child) for child in value]
    return value
