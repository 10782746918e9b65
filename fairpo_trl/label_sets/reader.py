"""Label sets written as text and read back, strictly: what is not exactly a label is counted, never repaired."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairpo_trl.core.messages import shortened, unknown_names_message


SEPARATOR = ", "


@dataclass(frozen=True)
class SetReading:
    """
    What one text says.

    Attributes:
        text (`str`): As it was written.
        labels (`tuple[str, ...]`): The set in canonical order; empty unless the text is well-formed.
        unknown (`tuple[str, ...]`): Parts that are no label.
        repeated (`tuple[str, ...]`): Labels that stand there more than once.
        malformed (`tuple[str, ...]`): Parts that break the form: empty, with white space around them, a line break
            within, or a known label in another spelling (`Image` for `image`). An empty text is one empty part.
        cut (`bool`): Whether the text was cut off at the length limit, so that its last part may be half a label.
        in_order (`bool`): Whether the labels stand in canonical order. Another order is another text of the same set.
    """

    text: str
    labels: tuple[str, ...]
    unknown: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    malformed: tuple[str, ...] = ()
    cut: bool = False
    in_order: bool = True

    @property
    def well_formed(self) -> bool:
        """Whether the text is a label set: known labels, each once, in the right form, and complete."""
        return not (self.unknown or self.repeated or self.malformed or self.cut)


@dataclass(frozen=True)
class Vocabulary:
    """
    The labels in their canonical order, in which every set is written.

    Args:
        labels (`tuple[str, ...]`):
            Each once, at least two, without commas, line breaks, or white space at their ends.

    Raises:
        ValueError: Names the label that cannot be written or occurs twice.

    Example:

    ```python
    >>> vocabulary = Vocabulary(("cat", "dog", "sea"))
    >>> vocabulary.write(["sea", "cat"])
    ' cat, sea'
    >>> vocabulary.read(" cat, Dog").malformed
    ('Dog',)
    ```
    """

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", tuple(self.labels))
        for label in self.labels:
            if not isinstance(label, str) or not label or label != " ".join(label.split()) or "," in label:
                raise ValueError(
                    f"The label {shortened(label)} cannot be written in a list: it must be text without commas, line "
                    "breaks, double spaces and white space at its ends. Rename it."
                )
        if repeated := sorted({label for label in self.labels if self.labels.count(label) > 1}):
            raise ValueError(f"The labels {repeated} occur more than once.")
        spellings: dict[str, str] = {}
        for label in self.labels:
            other = spellings.setdefault(label.casefold(), label)
            if other != label:
                raise ValueError(f"The labels {other!r} and {label!r} differ in case only: rename one of them.")
        if len(self.labels) < 2:
            raise ValueError(f"A label set needs at least two labels to choose from, got {list(self.labels)}.")

    def canonical(self, labels: Iterable[str]) -> tuple[str, ...]:
        """The labels in canonical order. Raises `ValueError` for an unknown label."""
        wanted = set(labels)
        if unknown := sorted(wanted - set(self.labels)):
            raise ValueError(unknown_names_message("label", unknown, self.labels))
        return tuple(label for label in self.labels if label in wanted)

    def write(self, labels: Iterable[str]) -> str:
        """
        A set as the text that follows the prompt: a space, then the labels in canonical order.

        Raises:
            ValueError: If the set is empty or has an unknown label.
        """
        ordered = self.canonical(labels)
        if not ordered:
            raise ValueError("An empty label set has no text; leave out items without labels.")
        return " " + SEPARATOR.join(ordered)

    def read(self, text: str, ended: bool = True) -> SetReading:
        """
        Reads a set.

        Args:
            text (`str`):
                What follows the prompt; the one leading space that [`write`] puts there may be missing.
            ended (`bool`, *optional*, defaults to `True`):
                Whether the model ended by itself.

        Returns:
            [`SetReading`]: with an empty set unless the text is well-formed.
        """
        known: list[str] = []
        unknown: list[str] = []
        repeated: list[str] = []
        malformed: list[str] = []
        spellings = {label.casefold() for label in self.labels}
        for part in text.removeprefix(" ").split(SEPARATOR):
            if part in self.labels:
                (repeated if part in known else known).append(part)
            elif part != part.strip() or not part or "," in part or "\n" in part or part.casefold() in spellings:
                malformed.append(part)
            else:
                unknown.append(part)
        ordered = self.canonical(known)
        fine = not (unknown or repeated or malformed) and ended
        return SetReading(
            text,
            ordered if fine else (),
            tuple(unknown),
            tuple(dict.fromkeys(repeated)),
            tuple(malformed),
            cut=not ended,
            in_order=tuple(known) == ordered,
        )

    def matrix(self, readings: Sequence[SetReading]) -> NDArray[np.bool_]:
        """The sets as 0 and 1, `[N, T]`; a text that is not well-formed is an empty set."""
        chosen = [[label in reading.labels for label in self.labels] for reading in readings]
        return np.array(chosen, dtype=bool).reshape(len(readings), len(self.labels))


def count_problems(readings: Sequence[SetReading]) -> dict[str, float]:
    """
    What went wrong, as shares of the texts: `malformed_sets` is the share that is not well-formed (coherence); beside
    it `unknown`, `repeated`, `form` and `cut`, which may overlap, and `out_of_order`, which is no fault.
    """
    total = max(1, len(readings))
    return {
        "malformed_sets": sum(not reading.well_formed for reading in readings) / total,
        "unknown": sum(bool(reading.unknown) for reading in readings) / total,
        "repeated": sum(bool(reading.repeated) for reading in readings) / total,
        "form": sum(bool(reading.malformed) for reading in readings) / total,
        "cut": sum(reading.cut for reading in readings) / total,
        "out_of_order": sum(reading.well_formed and not reading.in_order for reading in readings) / total,
    }
