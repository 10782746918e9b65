"""Judges of completions: what they have in common, and how a command line names them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.evaluation.completions import Prompt


T = TypeVar("T")

Kind: TypeAlias = Literal["count", "reward", "classifier", "python", "llm"]

KINDS: dict[Kind, str] = {
    "count": "count:words:fewer (words, characters or sentences; fewer or more)",
    "reward": "reward:FOLDER_OR_HUB_ID[#LABEL] (a sequence classifier that reads prompt and completion)",
    "classifier": "classifier:FOLDER_OR_HUB_ID[#LABEL] (one that reads the completion alone)",
    "python": "python:FILE.py:FUNCTION or python:MODULE:FUNCTION (your own; its code is run)",
    "llm": "llm:http://HOST:PORT/v1#MODEL (an OpenAI-compatible endpoint) or llm:FOLDER_OR_HUB_ID (run here)",
}
"""Kind -> how it is written."""

ALL = "all"
"""Stands for every attribute."""

JUDGE_NAMES = ("first_judge", "second_judge", "third_judge")
"""What the first, second and third judge of an attribute are called in results."""


class ScoreJudge(Protocol):
    """Says how much of an attribute a completion has."""

    description: str

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> NDArray[np.float64]:
        """Scores of completions, `[completions]`, higher is more; NaN where it failed, which is never imputed."""
        ...


@dataclass(frozen=True)
class Verdicts:
    """
    What a pairwise judge says.

    Attributes:
        outcomes: `[comparisons]`: 1 the first text has more of the attribute, 0 the second, 0.5 neither; NaN failed.
        calls: Questions it was asked.
        cached: Questions whose answers were on disk or were asked already.
        failures: Questions without a usable answer.
    """

    outcomes: NDArray[np.float64]
    calls: int
    cached: int
    failures: int


class PairJudge(Protocol):
    """Says which of two completions has more of an attribute."""

    description: str

    def compare(
        self, attribute: str, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]
    ) -> Verdicts:
        """Compares `first[i]` with `second[i]`, both written after `prompts[i]`."""
        ...


Judge: TypeAlias = ScoreJudge | PairJudge


@dataclass(frozen=True)
class JudgeSpec:
    """
    A judge as the user names it: `ATTRIBUTE=KIND:TARGET[#OPTION]`.

    Attributes:
        attribute: Name of the attribute, or `all`.
        kind: One of `KINDS`.
        target: What is counted, a model, a function or an address.
        option: Label of a classifier, or model of an endpoint; `None` if absent.
    """

    attribute: str
    kind: Kind
    target: str
    option: str | None = None

    def __str__(self) -> str:
        """As it is written, without the attribute."""
        return f"{self.kind}:{self.target}" + ("" if self.option is None else f"#{self.option}")


def parse_judge(entry: str) -> JudgeSpec:
    """
    Read one judge as it is written on a command line.

    Args:
        entry (`str`):
            `ATTRIBUTE=KIND:TARGET[#OPTION]`, see `KINDS`; the attribute may be `all`.

    Returns:
        `JudgeSpec`: the parts.

    Raises:
        ValueError: If it is not of this form, or the kind is unknown; the message shows the forms.

    Example:
        >>> parse_judge("helpful=reward:models/helpful#1")
        JudgeSpec(attribute='helpful', kind='reward', target='models/helpful', option='1')
    """
    attribute, equals, judge = entry.partition("=")
    kind, colon, target = judge.partition(":")
    if not (attribute.strip() and equals and colon and target):
        raise ValueError(
            f"`judges`: {entry!r} is not of the form ATTRIBUTE=KIND:TARGET. Kinds: {'; '.join(KINDS.values())}."
        )
    if kind not in get_args(Kind):
        raise ValueError(f"`judges`: {entry!r}: {unknown_names_message('kind of judge', [kind], list(KINDS))}")
    known = cast(Kind, kind)
    option: str | None = None
    if known in ("reward", "classifier", "llm"):
        target, found, option = target.partition("#")
        if not target or (found and not option):
            raise ValueError(f"`judges`: {entry!r} must be written {KINDS[known]}.")
        option = option or None
    return JudgeSpec(attribute, known, target, option)


def assign_judges(specs: Sequence[JudgeSpec], attributes: Sequence[str]) -> dict[str, list[JudgeSpec]]:
    """
    Give every attribute its judges, in the order they were named; the first one decides the verdicts.

    Args:
        specs (`Sequence[JudgeSpec]`):
            The judges.
        attributes (`Sequence[str]`):
            Every attribute of the data.

    Returns:
        `dict[str, list[JudgeSpec]]`: Attribute -> one to three judges.

    Raises:
        ValueError: If a judge names an attribute that does not exist, the same judge twice, or an attribute has no
            judge or more than three.
    """
    unknown = list(dict.fromkeys(s.attribute for s in specs if s.attribute != ALL and s.attribute not in attributes))
    if unknown:
        raise ValueError(f"`judges`: {unknown_names_message('attribute', unknown, [*attributes, ALL])}")
    found = {name: [spec for spec in specs if spec.attribute in (name, ALL)] for name in attributes}
    for name, own in found.items():
        written = [str(spec) for spec in own]
        if len(set(written)) < len(written):
            raise ValueError(f"`judges`: {name!r} has the same judge twice among {written}.")
        if len(own) > len(JUDGE_NAMES):
            raise ValueError(f"`judges`: {name!r} has {len(own)} judges, at most {len(JUDGE_NAMES)} are compared.")
    lacking = [name for name, own in found.items() if not own]
    if lacking:
        raise ValueError(
            f"`judges`: no judge for {', '.join(map(repr, lacking))}. Name one for each attribute, "
            f"{lacking[0]}=KIND:TARGET or {ALL}=KIND:TARGET, or choose other `attributes`."
        )
    return found


def parse_entries(
    option: str, form: str, entries: Sequence[str], what: str, known: Sequence[str], read: Callable[[str], T | None]
) -> dict[str, T]:
    """
    Read entries `NAME=VALUE` of an option, at most one for each name; `read` gives a value, `None` for what is none.

    Raises:
        ValueError: If an entry is not of the `form`, or names something unknown or twice.
    """
    found: dict[str, T] = {}
    for entry in entries:
        name, _, text = entry.partition("=")
        value = read(text.strip())
        if not name or value is None:
            raise ValueError(f"`{option}`: {entry!r} is not of the form {form}.")
        if name not in known:
            raise ValueError(f"`{option}`: {unknown_names_message(what, [name], known)}")
        if name in found:
            raise ValueError(f"`{option}` names {name!r} twice.")
        found[name] = value
    return found


def parse_descriptions(entries: Sequence[str], attributes: Sequence[str]) -> dict[str, str]:
    """Read `ATTRIBUTE=what it means`, which LLM judges are told; see [`parse_entries`]."""
    form = "ATTRIBUTE=what it means"
    return parse_entries("descriptions", form, entries, "attribute", attributes, lambda text: text or None)
