"""Pieces of a model card that both trainers write: the paper, escaped text, tables, the command."""

from __future__ import annotations

import html
import importlib.metadata
import re
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from fairpo_trl.hub.privacy import printable, public_command


PAPER = {
    "title": "FairPO: Robust Preference Optimization for Fair Multi-Label Learning",
    "id": "2505.02433",
    # docstyle-ignore
    "citation": textwrap.dedent("""\
        @article{mondal2025fairpo,
            title  = {{FairPO: Robust Preference Optimization for Fair Multi-Label Learning}},
            author = {Soumen Kumar Mondal and Prateek Chanda and Akshit Varmora and Ganesh Ramakrishnan},
            year   = 2025,
            eprint = {arXiv:2505.02433},
        }"""),
}
"""Title, arXiv id and citation, in the form TRL's card takes."""

PAPERS = {"fairpo": "https://arxiv.org/abs/2505.02433", "group_robust": "https://arxiv.org/abs/2405.20304"}
"""Where the two papers are."""


def escape(text: Any) -> str:
    """Text for a Markdown table cell that shows as it is: no HTML, no Markdown, no links, one line."""
    escaped = re.sub(r"([\\`*_{}\[\]|~#$])", r"\\\1", printable(str(text)))
    # After the backslashes, so that the entities keep their `#`; quotes need no escape outside of attributes.
    escaped = html.escape(escaped, quote=False)
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: int = 0) -> str:
    """A Markdown table whose last `numbers` columns are right-aligned."""
    rule = ["---"] * (len(header) - numbers) + ["---:"] * numbers
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def command_section(processes: int) -> list[str]:
    """The command of the run as a section of a card, in a list that is empty where there was none."""
    command = public_command(sys.argv)
    if not command:
        return []
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", command)), default=0))
    on = f"On {processes} processes. " if processes > 1 else ""
    return [f"## Command\n\n{fence}bash\n{command}\n{fence}\n\n{on}Paths are reduced to their last part."]


def package_version(package: str) -> str:
    """The installed version, or nothing for a package used from a checkout."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
