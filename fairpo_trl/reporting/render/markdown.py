"""Reports in Markdown. Text that came from data or models can never become markup."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from fairpo_trl.reporting.blocks import Block, Figure, Report, Sentences, Shown, tabled
from fairpo_trl.reporting.cells import text_of


_MARKUP = re.compile(r"[\\`*_\[\]#|~>$:@]|(?<=www)\.", re.IGNORECASE)  # colon, at and dot: no link by itself

MOST_REGRESSIONS = 3
"""Of each attribute."""


def escape(text: str) -> str:
    """
    Text from data as Markdown that shows it literally, on one line, also within a table cell.

    Markdown's signs get a backslash, `<` and `&` become entities (no tag can open), a line break becomes `<br>`, and
    other control characters are replaced.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\t", " ").strip()
    text = "".join(c if c.isprintable() or c == "\n" else "�" for c in text)
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    return _MARKUP.sub(r"\\\g<0>", text).replace("\n", "<br>")


def report_markdown(report: Report, images: Mapping[str, str] | None = None) -> str:
    """A report as text; `images` (description -> path of a PNG relative to it) stand below its first parts."""
    parts = [f"# {escape(report.title)}"]
    if report.verdict is not None:
        parts.append(f"**{escape(report.verdict.sentence)}**")
    parts += [_about(report), *map(part_markdown, report.first)]
    parts += [image_markdown(text, path) for text, path in (images or {}).items()]
    parts += map(part_markdown, report.further)
    return "\n\n".join(part for part in parts if part) + "\n"


def part_markdown(part: Shown, level: int = 2) -> str:
    """One part of a report, with a title of this level; curves are pictures beside the text."""
    if isinstance(part, Sentences):
        return "\n".join(f"- {escape(line)}" for line in part.lines)
    if isinstance(part, Figure):
        return image_markdown(part.title, part.image)
    part = tabled(part, of_each=MOST_REGRESSIONS)
    return block_markdown(part, level) if isinstance(part, Block) else ""


def block_markdown(block: Block, level: int = 2) -> str:
    """A block as a table of Markdown under its title; sections begin with a row of their name."""
    rows: list[list[str]] = []
    for name, cells in block.sections:
        if name:
            rows.append([f"*{escape(name)}*", *[""] * (len(block.header) - 1)])
        rows += [[escape(cell) if isinstance(cell, str) else text_of(cell) for cell in row] for row in cells]
    table = pipe_table([escape(one_line(name)) for name in block.header], rows, numbers_from=block.texts)
    return "\n\n".join(part for part in (f"{'#' * level} {escape(block.title)}", table, escape(block.note)) if part)


def pipe_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> str:
    """A table of Markdown from cells that are escaped already; columns from `numbers_from` on are set to the right."""
    first_number = len(header) if numbers_from is None else numbers_from
    rule = ["---" if i < first_number else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [list(header), rule, *map(list, rows)])


def image_markdown(text: str, path: str) -> str:
    """An image with its description; `path` is relative to the document."""
    return f"![{escape(text)}]({path.replace(' ', '%20')})"


def one_line(name: str) -> str:
    """A name of a column without the line breaks a terminal wants; a hyphen before one belongs to it."""
    return name.replace("-\n", "").replace("\n", " ")


def _about(report: Report) -> str:
    rows = [[escape(name), escape(text)] for name, text in report.facts]
    if report.settings:
        rows.append(["settings", ", ".join(escape(f"{name} = {value}") for name, value in report.settings.items())])
    if report.command:
        rows.append(["command", escape(report.command)])
    return pipe_table(["", ""], rows) if rows else ""
