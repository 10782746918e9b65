"""Results as a notebook shows them: tables in the notebook's own style, without script, picture or page around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from fairpo_trl.reporting.blocks import Block, Report, Sentences, Shown, tabled
from fairpo_trl.reporting.cells import Cell, Value
from fairpo_trl.reporting.numbers import ABSENT, Unit, role_text
from fairpo_trl.reporting.render.html import environment


_UNITS: dict[str, Unit] = {"margin": "decimal", "loss": "fine", "bce": "fine", "prevalence": "fine"}
"""Metrics that are no shares."""

MOST_TEXTS = 3
"""Samples and regressions that a notebook shows; the report has them all."""


def report_html(report: Report) -> str:
    """The verdict and tables of a report as a fragment, with some of its texts; see [`parts_html`]."""
    return parts_html(report.parts(), report.title, report.verdict.sentence if report.verdict else "")


def parts_html(parts: Sequence[Shown], title: str = "", sentence: str = "") -> str:
    """
    Some parts of a report as a fragment of HTML, in which text that came from data is text; no curves, no pictures.

    Above them stand the title and a sentence on what came out.
    """
    shown: list[Block | Sentences] = []
    for part in parts:
        part = tabled(part, MOST_TEXTS, of_each=1)
        if isinstance(part, Block):
            shown.append(replace(part, drawn=None, filtered=False))  # what only the page's own style can draw
        elif isinstance(part, Sentences):
            shown.append(part)
    return environment().get_template("notebook.html").render(parts=shown, title=title, sentence=sentence)


def metrics_html(frames: Mapping[str, pd.DataFrame], note: str = "") -> str:
    """
    Data frames of metrics by their titles as a fragment: texts in the first columns, numbers behind them (NaN was not
    measured); the note stands below the last one.
    """
    *_, last = frames
    return parts_html([_block(title, frame, note if title == last else "") for title, frame in frames.items()])


def _block(title: str, frame: pd.DataFrame, note: str) -> Block:
    names = [name for name in frame if list(frame[name]) != list(frame.index)]  # roles by role once
    texts = sum(not pd.api.types.is_numeric_dtype(frame[name]) for name in names)
    rows = tuple(
        (role_text(str(index)), *(_cell(name, row[name]) for name in names)) for index, row in frame.iterrows()
    )
    return Block(title, ("", *(str(name).replace("_", " ") for name in names)), (("", rows),), 1 + texts, note)


def _cell(name: str, value: Any) -> Cell:
    if isinstance(value, str):
        return role_text(value) if name == "role" else value
    if pd.isna(value):
        return ABSENT
    return Value(float(value), "count" if isinstance(value, int) else _UNITS.get(name, "share"))
