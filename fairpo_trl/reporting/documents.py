"""What all results documents share: they are checked once, when they are made, and hold nothing private.

A document is made from its parts (`Results(title=..., partition=..., ...)`, or `Results(**fields)` of what a file
holds). One that exists is sound: every number is finite, what was not measured is absent, intervals are the right way
up, and nothing private is in it (`hub/privacy.py`). Nothing that takes a document checks it again.
"""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, Self, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    ValidationError,
    model_validator,
)

from fairpo_trl.core.messages import require_known
from fairpo_trl.files import write_text
from fairpo_trl.hub.privacy import public


Role: TypeAlias = Literal["privileged", "non_privileged"]
"""`privileged` names should get better, `non_privileged` ("held") ones must not get worse."""

T = TypeVar("T")

ROLES: tuple[Role, Role] = ("privileged", "non_privileged")


def _number(value: Any) -> float:
    # Whole numbers stay whole, so that a file reads as it was written; strings and numpy's own kinds are refused.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number, got {type(value).__name__} {value!r:.60}")
    if not math.isfinite(value):
        raise ValueError(f"is {value}: leave out what was not measured")
    return value


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, got {type(value).__name__} {value!r:.60}")
    return value


def _values(value: Any, place: str = "") -> Any:
    """Raises for any number in free values (settings, rows of a table) that is not finite; names the place in them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place} is {value}: leave out what was not measured")
    for key, child in value.items() if isinstance(value, Mapping) else []:
        _values(child, f"{place}.{key}")
    for i, child in enumerate(value) if isinstance(value, list | tuple) else []:
        _values(child, f"{place}[{i}]")
    return value


Number: TypeAlias = Annotated[float, PlainValidator(_number)]
Count: TypeAlias = Annotated[int, PlainValidator(_whole)]
Facts: TypeAlias = Annotated[dict[str, Any], AfterValidator(_values)]
"""Settings and counts by name: JSON values with finite numbers."""
Frame: TypeAlias = Annotated[dict[str, dict[str, Any]], AfterValidator(_values)]
"""A table as `{row: {column: value}}`, `None` where there is no number."""
History: TypeAlias = list[dict[str, Number]]
"""`{"step": optimizer step, name: value}` for every step that was logged."""


class Part(BaseModel):
    """A part of a document: it has these fields and no others, and is never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Both(Part, Generic[T]):
    """The same of the reference and of the trained model."""

    reference: T
    trained: T

    def by_model(self) -> dict[str, T]:
        """By the model's name."""
        return {"reference": self.reference, "trained": self.trained}


class Interval(Part):
    """
    A mean with its 95 % interval, absent if it could not be had.

    Attributes:
        mean (`float`): The mean.
        low, high (`float`, *optional*): Ends of the interval.
        n (`int`, *optional*): Number of prompts.
        seed_sd (`float`, *optional*): Standard deviation over seeds: another uncertainty than the interval's.
    """

    mean: Number
    low: Number | None = None
    high: Number | None = None
    n: Count | None = None
    seed_sd: Number | None = None

    @model_validator(mode="after")
    def _right_way_up(self) -> Interval:
        if self.ends is not None and self.ends[0] > self.ends[1]:
            raise ValueError("the interval's low end is above its high end")
        return self

    @property
    def ends(self) -> tuple[float, float] | None:
        """Both ends; `None` without an interval."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def times(self, factor: float) -> Interval:
        """The same in another unit: 100 for points."""
        scaled = {name: factor * value for name, value in self.to_dict().items() if name != "n"}
        return Interval(**scaled)

    def to_dict(self) -> dict[str, Any]:
        """What is known of it, ready for JSON."""
        return self.model_dump(exclude_none=True)


class Document(Part):
    """
    A results document. It is made public and checked when it is made, and only then.

    Raises:
        ValueError: If a part is missing or unknown, or something is not what it must be. The one line names the
            first such place and says how many there are.
    """

    VERBATIM: ClassVar[Mapping[str, frozenset[str]]] = {}
    """List in the document -> what stays word for word in its entries: texts of models, files beside the report."""

    def __init__(self, **fields: Any) -> None:
        try:
            super().__init__(**_public(fields, self.VERBATIM))
        except ValidationError as error:
            raise ValueError(_complaint(type(self).__name__, error)) from None

    def _repr_html_(self) -> str:
        from fairpo_trl.reporting.render.notebook import report_html
        from fairpo_trl.reporting.writers import report_of

        return report_html(report_of(self, brief=True))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """The document ready for JSON, without what is absent."""
        return {name: value for name, value in self.model_dump(exclude_unset=True).items() if value is not None}

    def write(self, path: str | os.PathLike[str]) -> Path:
        """
        Writes the document as JSON; a reader sees the old file or the new one, never half of one.

        Args:
            path (`str` or `os.PathLike`):
                The file; its folder is created if needed.

        Raises:
            TypeError: If a free value, of the settings for example, is not JSON.
            OSError: If the file cannot be written.
        """
        path = Path(path)
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
        return path

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Self:
        """
        Reads a document.

        Args:
            path (`str` or `os.PathLike`):
                A file that [`Document.write`] wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is not JSON, or not such a document; the message names the file and the place.
        """
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise ValueError(f"{path} holds no {cls.__name__}: it is not a JSON object.")
        try:
            return cls(**found)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def _public(fields: Mapping[str, Any], verbatim: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    """The fields with every text made public, names and keys alike; each text is looked at once."""
    known: dict[str, str] = {}

    def walk(value: Any, kept: frozenset[str] = frozenset()) -> Any:
        if isinstance(value, str):
            if value not in known:
                known[value] = public(value)
            return known[value]
        if isinstance(value, Mapping):
            found = {walk(key): child if key in kept else walk(child) for key, child in value.items()}
            if len(found) < len(value):
                public(dict.fromkeys(value))  # says which names became one
            return found
        return [walk(child, kept) for child in value] if isinstance(value, list | tuple) else value

    return {key: walk(value, verbatim.get(key, frozenset())) for key, value in fields.items()}


def _complaint(name: str, error: ValidationError) -> str:
    """The first of pydantic's complaints in one line, with its place."""
    errors = error.errors(include_url=False)
    first = errors[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "missing":
        text = f"{name} lack {place!r}"
    elif first["type"] == "extra_forbidden":
        text = f"{name} have no part {place!r}"
    elif not place:
        text = message
    else:
        joint = "" if message[0] in ".[" else " " if message.startswith(("is ", "must ")) else ": "
        text = f"{place}{joint}{message}"
    more = f" (the first of {len(errors)} such places)" if len(errors) > 1 else ""
    return text.rstrip(".") + more + "."


def require(condition: object, message: str) -> None:
    """Raises `ValueError` with the message unless the condition holds: a rule between the parts of a document."""
    if not condition:
        raise ValueError(message)


def one_of(what: str, known: Sequence[str]) -> BeforeValidator:
    """Says of a value that is none of the known ones which of them is the nearest."""

    def check(value: Any) -> Any:
        require_known(what, [value], known)
        return value

    return BeforeValidator(check)


def hardware() -> str:
    """The machine that results were measured on, as they name it."""
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"
