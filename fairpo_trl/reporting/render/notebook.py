"""Results as a notebook shows them: tables in the notebook's own style, without script, picture or page around."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from fairpo_trl.reporting.blocks import (
    Block,
    Figure,
    Lines,
    Pictures,
    Report,
    Sentences,
    Shown,
    Texts,
    pictures_block,
    texts_block,
)
from fairpo_trl.reporting.cells import Cell, Value
from fairpo_trl.reporting.numbers import ABSENT, Unit, role_text
from fairpo_trl.reporting.render.html import environment


_UNITS: dict[str, Unit] = {"margin": "decimal", "loss": "fine", "bce": "fine", "prevalence": "fine"}
"""Metrics that are no shares."""

MOST_TEXTS = 3
"""Samples and regressions that a notebook shows; the report has them all."""


def report_html(report: Report) -> str:
    """
    A report as a fragment: its verdict and tables, some of its texts; curves are left to the plots.

    Args:
        report ([`Report`]):
            What it says.

    Returns:
        `str`: HTML in which text that came from data is text.
    """
    return parts_html(report.parts(), report.title, report.verdict.sentence if report.verdict else "")


def parts_html(parts: Sequence[Shown], title: str = "", sentence: str = "") -> str:
    """
    Some parts of a report as a fragment; see [`report_html`].

    Args:
        parts (`Sequence[Shown]`):
            Tables, sentences and texts.
        title (`str`, *optional*):
            Written above them.
        sentence (`str`, *optional*):
            What came out, below the title.
    """
    shown: list[Block | Sentences] = []
    for part in parts:
        if isinstance(part, Texts):
            part = texts_block(part.first_of_each(1) if part.regressions else part, MOST_TEXTS)
        if isinstance(part, Pictures):
            part = pictures_block(part, MOST_TEXTS)
        if isinstance(part, Block):
            shown.append(replace(part, drawn=None, filtered=False))  # what only the page's own style can draw
        elif not isinstance(part, Lines | Figure):
            shown.append(part)
    return environment().get_template("notebook.html").render(parts=shown, title=title, sentence=sentence)


def metrics_html(frames: Mapping[str, pd.DataFrame], note: str = "") -> str:
    """
    Data frames of metrics as a fragment.

    Args:
        frames (`Mapping[str, pd.DataFrame]`):
            Title -> texts in the first columns and numbers behind them; NaN was not measured.
        note (`str`, *optional*):
            What a reader has to know, below the last one.
    """
    *_, last = frames
    return parts_html([_block(title, frame, note if title == last else "") for title, frame in frames.items()])


def _block(title: str, frame: pd.DataFrame, note: str) -> Block:
    names = [name for name in frame if list(frame[name]) != list(frame.index)]  # roles by role once
    numeric = {name: pd.api.types.is_numeric_dtype(frame[name]) for name in names}
    rows = tuple(
        (role_text(str(index)), *(_cell(name, row[name]) for name in names)) for index, row in frame.iterrows()
    )
    header = ("", *(str(name).replace("_", " ") for name in names))
    return Block(title, header, (("", rows),), texts=1 + sum(not found for found in numeric.values()), note=note)


def _cell(name: str, value: Any) -> Cell:
    if isinstance(value, str):
        return role_text(value) if name == "role" else value
    if pd.isna(value):
        return ABSENT
    return Value(float(value), "count" if isinstance(value, int) else _UNITS.get(name, "share"))
