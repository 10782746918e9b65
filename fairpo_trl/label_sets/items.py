"""Items of a file with `text` and `labels`: loaded, checked, divided so that no text is on two sides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.classification.data.split import MultiLabelSplit, check_splits
from fairpo_trl.core.messages import require_known, shortened
from fairpo_trl.hashing import sha256_of_json
from fairpo_trl.label_sets.reader import Vocabulary
from fairpo_trl.preferences.read import check_columns, read_table
from fairpo_trl.preferences.rules import prompt_key


PROMPT = "{text}\nLabels:"
"""What the model continues; the label set follows after a space."""


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """
    One split: texts with their label sets.

    Args:
        texts (`tuple[str, ...]`):
            N texts.
        split (`MultiLabelSplit`):
            Their ids and labels, `[N, T]` of 0 and 1; its `series` are the texts without case and white space, so that
            equal texts stay together.
    """

    texts: tuple[str, ...]
    split: MultiLabelSplit

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the items."""
        return self.split.ids

    @property
    def prompts(self) -> list[str]:
        """What the model is asked, one prompt an item."""
        return [PROMPT.format(text=text) for text in self.texts]

    def sets(self) -> list[tuple[str, ...]]:
        """The true label set of each item, in canonical order."""
        names = self.split.label_names
        return [tuple(names[column] for column in np.flatnonzero(row == 1)) for row in self.split.labels]

    def select(self, rows: Sequence[int] | NDArray[Any], name: str | None = None) -> LabelledTexts:
        """The items at `rows` (numbers from 0, or a boolean mask)."""
        split = self.split.select(rows, name)
        by_id = dict(zip(self.ids, self.texts, strict=True))
        return LabelledTexts(tuple(by_id[item] for item in split.ids), split)

    def content_hash(self) -> str:
        """Hash of ids, labels and texts, in their order."""
        return sha256_of_json([self.split.content_hash(), self.texts])[:12]


def load_items(
    path: str | Path,
    *,
    text_column: str = "text",
    labels_column: str = "labels",
    labels: Sequence[str] | None = None,
    test_share: float = 0.3,
    seed: int = 0,
) -> tuple[dict[str, LabelledTexts], Vocabulary]:
    """
    The items of a file as `train` and `test`, and the vocabulary in canonical (alphabetical) order.

    Args:
        path (`str` or `Path`):
            JSONL, JSON, CSV or Parquet. A row's labels are a list of strings, or text with commas between the labels.
            A column `id` names the items (by default they are numbered), a column `split` divides them.
        text_column, labels_column (`str`):
            Names of the two columns.
        labels (`Sequence[str]`, *optional*):
            Keep only these labels; items without any of them are left out, which the notes of the splits count.
        test_share (`float`, *optional*, defaults to `0.3`):
            Share of the items that becomes `test` where the file has no column `split`. Equal texts stay together,
            and every label keeps an item in `train`.
        seed (`int`, *optional*, defaults to `0`):
            Chooses the test items.

    Returns:
        `tuple[dict[str, LabelledTexts], Vocabulary]`.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: For a column that is missing, a row without text or labels, a label that occurs twice in a row or
            cannot be written, a label of `test` that `train` lacks, or a text in both splits. The message names it.
    """
    table = read_table(path)
    rows: list[dict[str, Any]] = table.astype(object).where(table.notna(), None).to_dict("records")
    name = Path(path).name
    check_columns([text_column, labels_column], list(table.columns), name)
    texts = [_text(row[text_column], f"{name}: row {number}", text_column) for number, row in enumerate(rows)]
    sets = [_labels(row[labels_column], f"{name}: row {number}", labels_column) for number, row in enumerate(rows)]
    vocabulary = Vocabulary(tuple(sorted({label for row in sets for label in row} if labels is None else labels)))
    if labels is not None:
        found = {label for row in sets for label in row}
        require_known("label in `labels`", labels, sorted(found))
        sets = [[label for label in row if label in vocabulary.labels] for row in sets]
    kept = [number for number, row in enumerate(sets) if row]
    matrix = np.array([[label in sets[n] for label in vocabulary.labels] for n in kept], dtype=np.int8)
    everything = LabelledTexts(
        tuple(texts[n] for n in kept),
        MultiLabelSplit(
            "train",
            vocabulary.labels,
            matrix.reshape(len(kept), len(vocabulary.labels)),
            ids=tuple(str(n if rows[n].get("id") is None else rows[n]["id"]) for n in kept),
            series=tuple(prompt_key(texts[n]) for n in kept),
            notes={"items without a kept label": len(rows) - len(kept)},
        ),
    )
    if "split" in table.columns:
        parts = _by_column(everything, [rows[n]["split"] for n in kept], name)
    else:
        train, test = everything.split.carve_validation(test_share, seed=seed)
        where = {item: row for row, item in enumerate(everything.ids)}
        parts = {
            "train": everything.select([where[item] for item in train.ids], "train"),
            "test": everything.select([where[item] for item in test.ids], "test"),
        }
    check_parts(parts)
    return parts, vocabulary


def check_parts(parts: Mapping[str, LabelledTexts]) -> None:
    """
    Checks that no item and no text is on two sides, and that `train` has an item of every label.

    Raises:
        ValueError: Names the splits and what they share, or the labels that `train` lacks.
    """
    check_splits({name: part.split for name, part in parts.items()})
    absent = [label for label, count in parts["train"].split.label_counts().items() if count == 0]
    if absent:
        raise ValueError(
            f"Nothing in `train` has the labels {absent}, so a model cannot learn them: give them items there, or "
            "name the labels to keep with `labels`."
        )


def _by_column(items: LabelledTexts, values: Sequence[Any], name: str) -> dict[str, LabelledTexts]:
    found = set(values)
    if found != {"train", "test"}:
        raise ValueError(
            f"{name}: the column 'split' must hold 'train' and 'test', got {sorted(map(str, found))}: rename them, or "
            "leave out the column to divide by `test_share`."
        )
    marks = np.array(values)
    return {part: items.select(marks == part, part) for part in ("train", "test")}


def _text(value: Any, where: str, column: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{where}, column {column!r}: expected a text, got {shortened(value)}. Remove or mend the row."
        )
    return " ".join(value.split())


def _labels(value: Any, where: str, column: str) -> list[str]:
    if isinstance(value, str):
        value = [label.strip() for label in value.split(",")]
    elif isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, list | tuple) or not value or not all(isinstance(x, str) and x.strip() for x in value):
        raise ValueError(
            f"{where}, column {column!r}: expected a list of labels or text with commas between them, at least one, "
            f"got {shortened(value)}. Remove or mend the row."
        )
    if repeated := sorted({label for label in value if value.count(label) > 1}):
        raise ValueError(f"{where}, column {column!r}: {repeated} occur more than once. Name each label once.")
    return list(value)
