"""One form for the pages that experiments leave behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fairpo_trl.reporting.render.markdown import pipe_table


def write_page(path: Path, title: str, about: Mapping[str, str], parts: Sequence[str]) -> None:
    """
    Writes a page of Markdown.

    Args:
        path (`Path`):
            The file.
        title (`str`):
            Its heading.
        about (`Mapping[str, str]`):
            What was run, and where: the first table.
        parts (`Sequence[str]`):
            Paragraphs, tables and pictures below it.
    """
    table = pipe_table(["", ""], [list(row) for row in about.items()])
    path.write_text("\n\n".join([f"# {title}", table, *parts]) + "\n", encoding="utf-8")
