"""One form for the pages that experiments leave behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from fairpo_trl.reporting.render.markdown import pipe_table


def write_page(path: Path, title: str, about: Mapping[str, str], parts: Sequence[str]) -> str:
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

    Returns:
        `str`: what was written.
    """
    text = "\n\n".join([f"# {title}", pipe_table(["", ""], [list(row) for row in about.items()]), *parts]) + "\n"
    path.write_text(text, encoding="utf-8")
    return text
