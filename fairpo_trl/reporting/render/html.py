"""One self-contained HTML page: no request to anywhere, readable on a phone, in the dark and on paper.

The page's policy allows nothing but images within the page and the one style sheet and script whose hashes it names,
so text that came from data could load or run nothing even if it became markup.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, partial
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from fairpo_trl.files import write_text
from fairpo_trl.reporting.blocks import Block, Figure, Lines, Pictures, Report, Sentences, Shown, Texts
from fairpo_trl.reporting.cells import pieces, text_of
from fairpo_trl.reporting.documents import Interval
from fairpo_trl.reporting.drawing import sample_image
from fairpo_trl.reporting.numbers import role_text
from fairpo_trl.reporting.render.charts import Plane, drawn_column, history, plane
from fairpo_trl.reporting.render.markdown import one_line


NARROW = 5
"""Tables of at most so many columns stand beside each other."""

KINDS: dict[type, str] = {
    Lines: "charts",
    Texts: "texts",
    Sentences: "sentences",
    Pictures: "pictures",
    Figure: "figures",
}

Point = tuple[str, Interval, Interval, Interval]
"""Name of a model, its privileged gain, the mean and the worst change of what is held."""


def write_page(
    reports: Sequence[Report], path: str | os.PathLike[str], points: Sequence[Point] = (), title: str = ""
) -> Path:
    """
    Writes one page for one or several reports, whole or not at all; with several a switch chooses between them.

    Images of the reports lie in the folder of the page. `points` are what the gain cost, drawn if there are any; the
    title is the first report's by default.

    Raises:
        FileNotFoundError: If the image of a sample or a drawn picture is not in the folder.
        ValueError: If the file of a sample is no image.
        OSError: If the page cannot be written.
    """
    path = Path(path)
    style, script = _static("report.css"), _static("report.js")
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    templates = environment()
    templates.filters["address"] = partial(_address, folder=path.parent)
    templates.filters["drawing"] = lambda image: _as_address((path.parent / image).read_bytes())
    text = templates.get_template("report.html").render(
        title=title or reports[0].title,
        candidates=[(report, list(_groups(report.parts()))) for report in reports],
        planes=_planes(points),
        style=style,
        script=script,
        policy=policy,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def visible(value: Any) -> Any:
    """A value for the page: control characters and halves of surrogate pairs in texts become replacement signs."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    if text.isprintable():
        return text
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cs") else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _groups(parts: Iterable[Shown]) -> Iterable[tuple[str, tuple[Any, ...]]]:
    """Neighbours that stand beside each other or in one place, with their kind: curves, narrow tables, texts."""

    def kind(part: Shown) -> str:
        if isinstance(part, Block):
            narrow = len(part.header) <= NARROW and part.drawn is None and part.texts < len(part.header)
            return "filtered" if part.filtered else "narrow" if narrow else "table"
        return KINDS[type(part)]

    for name, found in groupby(parts, key=kind):
        yield name, tuple(history(part) if isinstance(part, Lines) else part for part in found)


def _planes(points: Sequence[Point]) -> tuple[Plane, ...]:
    """Privileged gain against the mean and the worst held change, on the same axes."""
    shared = [(gain, value) for _, gain, *values in points for value in values]
    return tuple(
        plane(
            f"Held attributes, {what}",
            ("privileged gain", f"held, {what}"),
            [(name, gain, values[i]) for name, gain, *values in points],
            shared,
        )
        for i, what in enumerate(("mean", "worst"))
        if points
    )


def _choices(groups: Sequence[Texts]) -> list[str]:
    """The attributes that something is said of, in order of first appearance."""
    return list(dict.fromkeys(name for shown in groups for text in shown.texts for name, _ in text.said))


def _address(image: str | None, name: str, folder: Path) -> str:
    """An image as an address within the page."""
    picture = sample_image(image, name, folder)
    if picture is None:
        return ""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return _as_address(file.getvalue())


def _as_address(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def environment() -> Environment:
    """The templates, in which every value is text: nothing that came from data becomes markup."""
    found = Environment(
        loader=PackageLoader("fairpo_trl.reporting.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=visible,
    )
    found.filters |= {
        "role": role_text,
        "one_line": one_line,
        "pieces": pieces,
        "told": text_of,
        "drawn": drawn_column,
        "choices": _choices,
    }
    return found


@cache
def _static(name: str) -> Markup:
    return Markup(files("fairpo_trl.reporting.render").joinpath(name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
