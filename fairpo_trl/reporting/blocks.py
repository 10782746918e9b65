"""What a report is made of, whatever the medium: tables of typed cells, sentences, texts, pictures, curves.

A document becomes a [`Report`] once, and each renderer (`render/`) shows its parts in order. A medium leaves out what
it cannot show: a terminal has no curves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from fairpo_trl.reporting.cells import Cell
from fairpo_trl.reporting.documents import ROLES, Role
from fairpo_trl.reporting.verdict import Verdict


Row: TypeAlias = tuple[Cell, ...]
Sections: TypeAlias = tuple[tuple[str, tuple[Row, ...]], ...]
"""(name, rows) each; a name may be empty."""

MOST_NAMED = 12
"""With more lines over steps than this neither colours nor a legend tell them apart: roles do."""


@dataclass(frozen=True)
class Block:
    """
    One table.

    Attributes:
        title (`str`): Its title.
        header (`tuple[str, ...]`): Names of the columns; a line break may stand where a narrow column wants one.
        sections (`tuple[tuple[str, tuple[Row, ...]], ...]`): (name, rows) each; a name may be empty.
        texts (`int`, *optional*, defaults to 1): Leading columns of text; the others hold numbers.
        note (`str`, *optional*): What a reader has to know, shown below.
        wide (`bool`, *optional*, defaults to `False`): Whether a terminal has no room for an interval beside its
            number, so that it stands below it.
        roles (`tuple[str, ...]`, *optional*): Role of each row, over all sections, where each is a name with a role.
        drawn (`int`, *optional*): Column that a page also draws, as a point with its interval; needs `roles`.
        filtered (`bool`, *optional*, defaults to `False`): Whether a page lets its reader choose rows.
    """

    title: str
    header: tuple[str, ...]
    sections: Sections
    texts: int = 1
    note: str = ""
    wide: bool = False
    roles: tuple[Role, ...] = ()
    drawn: int | None = None
    filtered: bool = False

    def rows(self) -> list[Row]:
        """All rows, without the names of the sections."""
        return [row for _, rows in self.sections for row in rows]


@dataclass(frozen=True)
class Sentences:
    """Sentences, one a line."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Text:
    """A prompt with what both models wrote; `said`: (attribute, what is said of it) each."""

    prompt: str
    reference: str
    trained: str
    said: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Texts:
    """Texts side by side under a title; `regressions`: whether they are those on which a model lost most."""

    title: str
    texts: tuple[Text, ...]
    regressions: bool = False


@dataclass(frozen=True)
class Guess:
    """A label with its probability; `right` if it is a true one of the image."""

    name: str
    role: Role
    right: bool
    probability: float

    def __str__(self) -> str:
        star = " *" if self.role == "privileged" else ""
        return f"{'✓' if self.right else '·'} {self.name}{star} {100 * self.probability:.0f}"


@dataclass(frozen=True)
class Picture:
    """An image (a file below the report's folder, or `None`), its true labels and the best ones of both models."""

    id: str
    image: str | None
    true: tuple[tuple[str, Role], ...]
    guesses: tuple[tuple[str, tuple[Guess, ...]], ...]


@dataclass(frozen=True)
class Pictures:
    """Images with the best labels of both models."""

    title: str
    pictures: tuple[Picture, ...]
    note: str = "✓: a true label; * privileged. Probabilities in per cent."


@dataclass(frozen=True)
class Figure:
    """A drawn picture: what it shows, and its PNG, relative to the report's folder."""

    title: str
    image: str


@dataclass(frozen=True)
class Lines:
    """
    Curves over optimizer steps.

    Attributes:
        title, unit (`str`): Of the chart and its vertical axis.
        entries (`Sequence[Mapping[str, float]]`): `{"step": optimizer step, name: value}` each.
        partition (`Mapping[str, str]`): Name -> role.
        neutral (`float`, *optional*): What is as good as the reference.
    """

    title: str
    unit: str
    entries: Sequence[Mapping[str, float]]
    partition: Mapping[str, Role]
    neutral: float | None = None


Shown: TypeAlias = Block | Sentences | Texts | Pictures | Figure | Lines


@dataclass(frozen=True)
class Report:
    """
    What a report shows of one document.

    Attributes:
        title, kind (`str`): Its title, and what the document is about: `language model`.
        first, further (`tuple`): What came out, and below its plots all else.
        facts (`tuple[tuple[str, str], ...]`): How it was run: names with their texts.
        settings (`Mapping[str, Any]`, *optional*): Options with their values.
        command (`str`, *optional*): The command line.
        verdict ([`Verdict`], *optional*): One sentence on what came out.
        name, reference_name (`str`, *optional*): What the two models are called.
    """

    title: str
    kind: str
    first: tuple[Shown, ...]
    further: tuple[Shown, ...]
    facts: tuple[tuple[str, str], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    verdict: Verdict | None = None
    name: str = ""
    reference_name: str = "reference"

    def parts(self) -> tuple[Shown, ...]:
        """All parts in order."""
        return (*self.first, *self.further)


def tabled(part: Shown, most: int | None = None, of_each: int | None = None) -> Shown:
    """
    A part of texts or pictures as a table of the first `most`; any other part as it is.

    Regressions begin with what is said of them; of each attribute there are at most `of_each`.
    """
    if isinstance(part, Texts):
        rows: list[Row] = []
        seen = Counter[str]()
        for text in part.texts:
            row: Row = (text.prompt, text.reference, text.trained)
            if part.regressions:
                attribute = text.said[0][0]
                seen[attribute] += 1
                if of_each is not None and seen[attribute] > of_each:
                    continue
                row = ("; ".join(said for _, said in text.said), *row)
            rows.append(row)
        header = (*(("change",) if part.regressions else ()), "prompt", "reference", "trained")
        return Block(part.title, header, (("", tuple(rows[:most])),), texts=len(header))
    if isinstance(part, Pictures):
        found = tuple(
            (
                picture.id,
                ", ".join(f"{name} *" if role == "privileged" else name for name, role in picture.true) or "none",
                *("\n".join(map(str, guesses)) for _, guesses in picture.guesses),
            )
            for picture in part.pictures[:most]
        )
        return Block(part.title, ("image", "true", "reference", "trained"), (("", found),), texts=4, note=part.note)
    return part


def sections_of(rows: Sequence[tuple[str, Row]]) -> Sections:
    """Rows with the names of their sections -> sections, in order of first appearance."""
    names = dict.fromkeys(name for name, _ in rows)
    return tuple((name, tuple(row for found, row in rows if found == name)) for name in names)


def roles_of_lines(entries: Iterable[Mapping[str, float]], partition: Mapping[str, Role]) -> dict[str, Role | None]:
    """The names that have lines over steps, privileged ones first; one may be a role itself, or have none."""
    roles: Mapping[str, Role] = {role: role for role in ROLES} | dict(partition)
    names = {name: roles.get(name) for entry in entries for name in entry if name != "step"}
    return dict(sorted(names.items(), key=lambda item: item[1] != "privileged"))


def known(facts: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
    """The facts of a run that there are."""
    return tuple((name, text) for name, text in facts.items() if text)


def with_content(parts: Iterable[Shown | None]) -> tuple[Shown, ...]:
    """The parts that have anything to show."""
    content = {Block: "sections", Lines: "entries", Sentences: "lines", Texts: "texts", Pictures: "pictures"}
    return tuple(part for part in parts if part and getattr(part, content.get(type(part), "title")))
