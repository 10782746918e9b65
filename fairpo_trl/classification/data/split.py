"""One split of multi-label data in memory, what is checked between splits, and what is printed about them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from rich.console import Console

from fairpo_trl.core.messages import second_spellings
from fairpo_trl.hashing import sha256
from fairpo_trl.reporting.blocks import Block
from fairpo_trl.reporting.render.terminal import print_part


ImageSource = Path | bytes | Image.Image
"""An image as [`~fairpo_trl.classification.data.images.open_image`] takes it: a file, its bytes, or a PIL image."""

_NAMED = 5  # names listed in a message
_CHUNK = 4096  # rows of features checked at a time, so that a memory-mapped file need not fit into memory


@dataclass(frozen=True, eq=False)
class MultiLabelSplit:
    """
    One split: N examples with T labels each, as images, as precomputed features, or both.

    Args:
        name (`str`):
            `"train"`, `"validation"` or `"test"`.
        label_names (`tuple[str, ...]`):
            T names; the column order of `labels`.
        labels (`np.ndarray`):
            `[N, T]`, kept as int8: 1 present, 0 absent, -1 unknown.
        ids (`tuple[str, ...]`):
            N unique ids (for files: the posix path relative to the data folder).
        images (`Sequence[ImageSource]`, *optional*):
            N images: `pathlib.Path`, `bytes` or `PIL.Image.Image`. May be lazy.
        features (`np.ndarray`, *optional*):
            `[N, D]`, float16 or float32, finite; may be memory-mapped.
        series (`tuple[str, ...]`, *optional*):
            Cluster of near-duplicates each example belongs to, which no split may cut; `None`: each is its own.
        notes (`Mapping[str, int | str]`, *optional*):
            What a loader dropped or counted, for the printed summary.

    Raises:
        ValueError: For the first thing that does not fit, with its row and column (rows count from 0).
    """

    name: str
    label_names: tuple[str, ...]
    labels: NDArray[np.int8]
    ids: tuple[str, ...]
    images: Sequence[ImageSource] | None = None
    features: NDArray[Any] | None = None
    series: tuple[str, ...] | None = None
    notes: Mapping[str, int | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.label_names, str):
            raise ValueError(f"`label_names` must be a list of names, got the string {self.label_names!r}.")
        object.__setattr__(self, "label_names", tuple(self.label_names))
        object.__setattr__(self, "ids", tuple(self.ids))
        where = f"The {self.name} split"
        if not self.label_names:
            raise ValueError(f"{where} has no label names.")
        _check_strings(self.label_names, f"{where}: label name", "column")
        if same := second_spellings(self.label_names):
            raise ValueError(
                f"{where}: the labels {same[0]} differ only in case, white space or the form of their letters, but "
                "would be labels with a role each. Write one spelling everywhere."
            )
        object.__setattr__(self, "labels", _checked_labels(self.labels, self.label_names, where))
        n = len(self.labels)
        if n == 0:
            raise ValueError(
                f"{where} has no example left. Dropped or counted on the way: {dict(self.notes) or None}."
            )
        for option, values in (("ids", self.ids), ("images", self.images), ("series", self.series)):
            if values is not None and len(values) != n:
                raise ValueError(f"{where} has {n} rows of labels but {len(values)} `{option}`.")
        _check_strings(self.ids, f"{where}: id", "row")
        if self.series is not None:
            object.__setattr__(self, "series", tuple(self.series))
            _check_strings(self.series, f"{where}: series", "row", unique=False)
        if self.features is not None:
            _check_features(self.features, n, where)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: ArrayLike, name: str | None = None) -> MultiLabelSplit:
        """
        The rows at `indices`, in that order.

        Args:
            indices (`ArrayLike`):
                Row numbers from 0, each at most once, or a boolean mask `[N]`.
            name (`str`, *optional*):
                Name of the new split; `None` keeps it.

        Raises:
            ValueError: If a row does not exist or is named twice, or no row is left.
        """
        rows = np.asarray(indices)
        if rows.dtype == bool:
            if rows.shape != (len(self),):
                raise ValueError(f"A mask must have one entry for each of {len(self)} rows, got shape {rows.shape}.")
            rows = np.flatnonzero(rows)
        if rows.ndim != 1 or (rows.size and not np.issubdtype(rows.dtype, np.integer)):
            raise ValueError(f"`indices` must be a list of row numbers, got shape {rows.shape} of {rows.dtype}.")
        rows = rows.astype(np.int64)
        outside = rows[(rows < 0) | (rows >= len(self))]
        if outside.size:
            raise ValueError(f"The {self.name} split has rows 0 to {len(self) - 1}, not {outside[:_NAMED].tolist()}.")
        in_a_row = rows.size > 0 and bool((np.diff(rows) == 1).all())
        take = slice(int(rows[0]), int(rows[-1]) + 1) if in_a_row else rows  # a slice keeps a memory map one
        return replace(
            self,
            name=self.name if name is None else name,
            labels=self.labels[rows],
            ids=tuple(self.ids[i] for i in rows),
            images=None if self.images is None else _Rows(self.images, rows),
            features=None if self.features is None else self.features[take],
            series=None if self.series is None else tuple(self.series[i] for i in rows),
        )

    def with_features(self, features: NDArray[Any]) -> MultiLabelSplit:
        """The same split with precomputed `features`, `[N, D]`, float16 or float32."""
        return replace(self, features=features)

    def label_counts(self) -> dict[str, int]:
        """Label name -> number of positives."""
        return dict(zip(self.label_names, (self.labels == 1).sum(axis=0).tolist(), strict=True))

    def content_hash(self) -> str:
        """SHA-256 over ids, label names and labels, in their order; the name, images and features do not enter."""
        names = json.dumps([self.ids, self.label_names], ensure_ascii=True).encode()
        return sha256([names, np.ascontiguousarray(self.labels).data])

    def carve_validation(self, share: float = 0.1, seed: int = 0) -> tuple[MultiLabelSplit, MultiLabelSplit]:
        """
        Splits this (training) split into train and validation at random, without cutting a series.

        Every label that has a positive keeps one in train: a series whose move would take the last is not moved. Rows
        keep their order. What validation cannot have is stated in its notes, such as labels whose positives all lie
        in one series.

        Args:
            share (`float`, *optional*, defaults to `0.1`):
                Share of the rows to move, in (0, 1). Long series may leave validation smaller, which is noted.
            seed (`int`, *optional*, defaults to `0`):
                Seed of the draw.

        Returns:
            `tuple[MultiLabelSplit, MultiLabelSplit]`: train and validation.

        Raises:
            ValueError: If `share` is out of its range, or no series fits into validation.
        """
        if not 0 < share < 1:
            raise ValueError(f"`share` must be between 0 and 1, got {share}.")
        target = max(1, round(share * len(self)))
        series = np.arange(len(self)) if self.series is None else np.unique(self.series, return_inverse=True)[1]
        order = np.argsort(series, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(series[order])) + 1)
        left = (self.labels == 1).sum(axis=0)
        moved = np.zeros(len(self), dtype=bool)
        room = target
        for cluster in np.random.default_rng(seed).permutation(len(members)):
            rows = members[cluster]
            positives = (self.labels[rows] == 1).sum(axis=0)
            if len(rows) > room or bool(((positives > 0) & (left == positives)).any()):
                continue
            moved[rows] = True
            left -= positives
            room -= len(rows)
            if room == 0:
                break
        if not moved.any():
            raise ValueError(
                f"No series of the {self.name} split fits into a validation part of {target} rows without taking a "
                f"label's last positive from train: raise `share` (now {share}) or give a validation split."
            )
        train, validation = self.select(~moved), self.select(moved, name="validation")
        notes: dict[str, int | str] = {"carved from": f"{self.name}, share {share}, seed {seed}"}
        if room:
            notes["rows fewer than asked for (series are not cut, labels stay in train)"] = room
        for part, at, notes_of in ((train, "train", {**self.notes}), (validation, "validation", notes)):
            empty = [name for name, count in part.label_counts().items() if count == 0]
            if empty:
                notes_of[f"labels without a positive in {at}"] = first_few(empty)
            object.__setattr__(part, "notes", notes_of)
        return train, validation


class StoredImages(Sequence[ImageSource]):
    """Images that stay where they are until one is asked for. Subclasses say how many there are and get one."""

    def get(self, row: int) -> ImageSource:
        """The image of a row."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> ImageSource: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ImageSource]: ...
    def __getitem__(self, index: int | slice) -> ImageSource | Sequence[ImageSource]:
        return _Rows(self, np.arange(len(self))[index]) if isinstance(index, slice) else self.get(index)


class _Rows(StoredImages):
    """Some items of a sequence by number."""

    def __init__(self, base: Sequence[ImageSource], rows: NDArray[np.int64]) -> None:
        self.base: Sequence[ImageSource] = base.base if isinstance(base, _Rows) else base
        self.rows: NDArray[np.int64] = base.rows[rows] if isinstance(base, _Rows) else rows

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, row: int) -> ImageSource:
        return self.base[int(self.rows[row])]


def check_splits(splits: Mapping[str, MultiLabelSplit]) -> None:
    """
    Checks what holds between splits: the same labels in the same order, and no id and no series in two of them.

    Args:
        splits (`Mapping[str, MultiLabelSplit]`):
            Split name -> split.

    Raises:
        ValueError: Names the two splits and what they share, or the first label that differs.
    """
    seen: list[tuple[str, MultiLabelSplit]] = []
    for name, split in splits.items():
        for other_name, other in seen:
            if split.label_names != other.label_names:
                raise ValueError(
                    f"The splits {other_name!r} and {name!r} have other labels or another order: "
                    f"{first_difference(other.label_names, split.label_names)}. Give both the same `label_names`."
                )
            for what, mine, theirs, mend in (
                ("ids", split.ids, other.ids, "remove them from one of the two"),
                ("series", split.series, other.series, "keep each series in one split, or leave out `series`"),
            ):
                shared = sorted(set(mine or ()) & set(theirs or ()))
                if shared:
                    raise ValueError(
                        f"The splits {other_name!r} and {name!r} share {len(shared)} {what}, so that one leaks into "
                        f"the other: {first_few(shared)}. Mend: {mend}."
                    )
        seen.append((name, split))


def print_data_summary(splits: Mapping[str, MultiLabelSplit], console: Console | None = None) -> None:
    """
    Prints the size, source and hash of each split, the label order, what was dropped, and the rarest and commonest
    labels.

    Args:
        splits (`Mapping[str, MultiLabelSplit]`):
            Split name -> split, all with the same labels.
        console (`rich.console.Console`, *optional*):
            Where to print; `None` is standard output.

    Raises:
        ValueError: As [`check_splits`].
    """
    check_splits(splits)
    console = Console() if console is None else console
    rows = []
    for name, split in splits.items():
        sources = ["images"] if split.images is not None else []
        if split.features is not None:
            sources.append(f"features {split.features.shape[1]} x {split.features.dtype}")
        unlabelled = int((~(split.labels == 1).any(axis=1)).sum())
        series = "–" if split.series is None else f"{len(set(split.series)):,}"
        unknown = f"{int((split.labels == -1).sum()):,}"
        source = " + ".join(sources) or "labels only"
        rows.append((name, source, f"{len(split):,}", f"{unlabelled:,}", series, unknown))
    header = ("split", "source", "rows", "without a label", "series", "unknown labels")
    print_part(Block("Data", header, (("", tuple(rows)),), texts=2), console)

    names = next(iter(splits.values())).label_names
    console.print(f"{len(names)} labels in this order: {first_few(names)}", markup=False, highlight=False)
    for name, split in splits.items():
        console.print(f"{name}: content hash {split.content_hash()}", markup=False, highlight=False)
        for what, value in split.notes.items():
            number = f"{value:,}" if isinstance(value, int) else value
            console.print(f"{name}: {what}: {number}", markup=False, highlight=False)

    counts = {name: split.label_counts() for name, split in splits.items()}
    first = counts[next(iter(counts))]
    by_count = sorted(names, key=lambda label: (first[label], names.index(label)))
    ends = [by_count] if len(by_count) <= 2 * _NAMED else [by_count[:_NAMED], by_count[-_NAMED:]]
    sections = tuple(
        ("", tuple((label, *(f"{count[label]:,}" for count in counts.values())) for label in end)) for end in ends
    )
    print_part(Block("Positives of the rarest and commonest labels", ("label", *counts), sections), console)


def _checked_labels(labels: ArrayLike, names: Sequence[str], where: str) -> NDArray[np.int8]:
    """`[N, T]` int8 of -1, 0 and 1."""
    try:
        array = np.asarray(labels)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{where}: `labels` is no matrix with {len(names)} columns: {error}.") from error
    if array.ndim != 2 or array.shape[1] != len(names):
        raise ValueError(
            f"{where} has {len(names)} label names, so `labels` must have shape [N, {len(names)}], got "
            f"{list(array.shape)}."
        )
    wrong = np.argwhere((array != 0) & (array != 1) & (array != -1))
    if len(wrong):
        row, column = wrong[0]
        raise ValueError(
            f"{where}: row {row}, label {names[column]!r} holds {array[row, column]}; labels are 1 (present), "
            "0 (absent) or -1 (unknown)."
        )
    return np.ascontiguousarray(array, dtype=np.int8)


def _check_strings(values: Sequence[str], what: str, unit: str, unique: bool = True) -> None:
    """Non-empty strings, each once if `unique`; the message names the place."""
    for position, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{what} in {unit} {position} must be a non-empty string, got {value!r}.")
    if unique and len(set(values)) < len(values):
        first: dict[str, int] = {}
        for position, value in enumerate(values):
            if value in first:
                raise ValueError(f"{what} {value!r} occurs twice, in {unit}s {first[value]} and {position}.")
            first[value] = position


def _check_features(features: NDArray[Any], n: int, where: str) -> None:
    """`[N, D]` of finite float16 or float32."""
    if not isinstance(features, np.ndarray):
        raise ValueError(f"{where}: features must be a NumPy array, got {type(features).__name__}.")
    if features.ndim != 2 or features.shape[0] != n or features.shape[1] == 0:
        raise ValueError(f"{where} has {n} rows of labels, so features must be [{n}, D], got {list(features.shape)}.")
    if features.dtype not in (np.float16, np.float32):
        raise ValueError(f"{where}: features must be float16 or float32, got {features.dtype}.")
    for start in range(0, n, _CHUNK):
        wrong = np.argwhere(~np.isfinite(features[start : start + _CHUNK]))
        if len(wrong):
            row, column = wrong[0]
            value = features[start + row, column]
            raise ValueError(
                f"{where}: feature {value} in row {start + row}, column {column}; remove or mend that row."
            )


def first_few(names: Sequence[Any]) -> str:
    """The first few names and how many there are."""
    more = f", ... ({len(names)} in all)" if len(names) > _NAMED else ""
    return ", ".join(map(str, names[:_NAMED])) + more


def first_difference(left: Sequence[str], right: Sequence[str]) -> str:
    """Where two lists of label names differ first, in words."""
    for column, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return f"column {column} is {a!r} in one and {b!r} in the other"
    return f"{len(left)} labels against {len(right)}"
