"""Pairs of label sets: the true set against one the model wrote itself, made up only where it makes no mistake."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fairpo_trl.core.partition import Partition
from fairpo_trl.label_sets.items import LabelledTexts
from fairpo_trl.label_sets.reader import SetReading, Vocabulary


Kind: TypeAlias = Literal["confused", "left_out", "added"]
"""A label in place of a true one; a true one left out; a wrong one added."""

Set: TypeAlias = frozenset[str]


@dataclass(frozen=True)
class SetPair:
    """
    The true set of an item and a wrong one.

    Attributes:
        item (`str`): Id of the item.
        chosen, rejected (`frozenset[str]`): The true set and the wrong one.
        kind (`str`): What is wrong.
        own (`bool`): Whether the model wrote the wrong set itself.
    """

    item: str
    chosen: Set
    rejected: Set
    kind: Kind
    own: bool

    @property
    def in_question(self) -> Set:
        """The labels that the two sets differ in: what the preference is about."""
        return self.chosen ^ self.rejected


@dataclass(frozen=True)
class SetPairs:
    """
    The pairs of a split.

    Attributes:
        pairs (`tuple[SetPair, ...]`): In the order of the items.
        unreadable (`tuple[str, ...]`): Items that have no pair, because the model wrote no well-formed set.
        confusion (`Mapping[str, Counter[str]]`): Label -> the labels the model wrote while this one was missing.
    """

    pairs: tuple[SetPair, ...]
    unreadable: tuple[str, ...]
    confusion: Mapping[str, Counter[str]]

    def counts(self) -> dict[str, int]:
        """How many pairs there are, by origin and kind, and how many items have none."""
        own = [pair for pair in self.pairs if pair.own]
        found = {"pairs": len(self.pairs), "own": len(own), "made_up": len(self.pairs) - len(own)}
        kinds = Counter(f"{'own' if pair.own else 'made_up'}_{pair.kind}" for pair in self.pairs)
        return found | dict(sorted(kinds.items())) | {"items_unreadable": len(self.unreadable)}


def build_pairs(
    items: LabelledTexts, readings: Sequence[Sequence[SetReading]], partition: Partition, per_item: int = 1
) -> SetPairs:
    """
    Pairs of the true sets and wrong ones, for the items of one split.

    The model's own wrong sets come first, in this order: a privileged label is missing, a label stands in place of a
    true one, fewest labels in question. Where every well-formed text of the model is the true set, one wrong set is
    made up: a privileged label is left out or, if there is none or nothing would remain, the rarest label is replaced
    by the one it is most confused with.

    Args:
        items, partition:
            The items, and who is privileged of their labels.
        readings (`Sequence[Sequence[SetReading]]`):
            For each item, what the model wrote.
        per_item (`int`, *optional*, defaults to `1`):
            Own wrong sets of an item that are taken at most.

    Raises:
        ValueError: If the numbers of items and readings differ, or no pair can be had.
    """
    if len(readings) != len(items):
        raise ValueError(f"There are {len(items)} items but readings of {len(readings)}.")
    truths = [frozenset(labels) for labels in items.sets()]
    written = [
        list(dict.fromkeys(frozenset(reading.labels) for reading in row if reading.well_formed)) for row in readings
    ]
    confusion: dict[str, Counter[str]] = {label: Counter() for label in partition.names}
    for truth, row in zip(truths, written, strict=True):
        for wrong in row:
            for missing in truth - wrong:
                confusion[missing].update(wrong - truth)
    frequency = items.split.label_counts()

    pairs, unreadable = [], []
    for item, truth, row in zip(items.ids, truths, written, strict=True):
        wrong_sets = sorted((wrong for wrong in row if wrong != truth), key=lambda w: _rank(truth, w, partition))
        if wrong_sets:
            pairs += [SetPair(item, truth, wrong, _kind(truth, wrong), True) for wrong in wrong_sets[:per_item]]
        elif row:
            wrong = _made_up(truth, partition, confusion, frequency)
            pairs.append(SetPair(item, truth, wrong, _kind(truth, wrong), False))
        else:
            unreadable.append(item)
    if not pairs:
        raise ValueError(
            f"The model wrote no well-formed label set for any of {len(items)} items, so there is nothing to pair: "
            "train the reference longer (`sft_epochs`, `sft_learning_rate`), or sample with `constrained_sampling`."
        )
    return SetPairs(tuple(pairs), tuple(unreadable), confusion)


def preference_rows(pairs: SetPairs, items: LabelledTexts, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """
    Rows for [`~fairpo_trl.FairPOTrainer`]: `prompt`, `chosen`, `rejected` and `attribute`, the labels in question.
    Each label is counted in its group, so that a row can carry a privileged and a held one.
    """
    prompts = dict(zip(items.ids, items.prompts, strict=True))
    return [
        {
            "prompt": prompts[pair.item],
            "chosen": vocabulary.write(pair.chosen),
            "rejected": vocabulary.write(pair.rejected),
            "attribute": list(vocabulary.canonical(pair.in_question)),
        }
        for pair in pairs.pairs
    ]


def check_order(
    pairs: SetPairs,
    items: LabelledTexts,
    readings: Sequence[Sequence[SetReading]],
    partition: Partition,
    per_item: int = 1,
) -> dict[str, float]:
    """
    Checks that the order of labels decides nothing: the same pairs come out when the labels are numbered backwards and
    the model's texts are read in another order.

    Returns:
        `dict[str, float]`: what of the texts could still tell the two sides apart: the share of pairs whose chosen set
        comes first in canonical order, and the shares whose chosen set is longer and shorter.

    Raises:
        ValueError: Names the first item whose pair depends on the order, or has two texts of one set.
    """
    same = next((pair for pair in pairs.pairs if pair.chosen == pair.rejected), None)
    if same is not None:
        raise ValueError(f"The pair of item {same.item!r} has the same set on both sides.")
    split = items.split
    backwards = type(split)(split.name, split.label_names[::-1], split.labels[:, ::-1], split.ids, series=split.series)
    turned = build_pairs(
        LabelledTexts(items.texts, backwards),
        [
            [SetReading(r.text, r.labels[::-1], r.unknown, r.repeated, r.malformed, r.cut) for r in row]
            for row in readings
        ],
        Partition.by_name(partition.names[::-1], partition.privileged),
        per_item,
    )
    for one, other in zip(pairs.pairs, turned.pairs, strict=True):
        if one != other:
            raise ValueError(
                f"The pair of item {one.item!r} depends on the order of the labels: its wrong set is "
                f"{sorted(one.rejected)} in one order and {sorted(other.rejected)} in the other."
            )
    place = {label: number for number, label in enumerate(split.label_names)}
    count = len(pairs.pairs)

    def ordered(labels: Set) -> list[int]:
        return sorted(place[label] for label in labels)

    return {
        "chosen_first": sum(ordered(pair.chosen) < ordered(pair.rejected) for pair in pairs.pairs) / count,
        "chosen_longer": sum(len(pair.chosen) > len(pair.rejected) for pair in pairs.pairs) / count,
        "chosen_shorter": sum(len(pair.chosen) < len(pair.rejected) for pair in pairs.pairs) / count,
    }


def _kind(truth: Set, wrong: Set) -> Kind:
    if truth - wrong:
        return "confused" if wrong - truth else "left_out"
    return "added"


def _rank(truth: Set, wrong: Set, partition: Partition) -> tuple[bool, bool, int, list[str]]:
    """Sorts wrong sets, the best to learn from first; by name at last, so that no order of labels decides."""
    missing = truth - wrong
    return (
        not missing & set(partition.privileged),
        _kind(truth, wrong) != "confused",
        len(truth ^ wrong),
        sorted(wrong),
    )


def _made_up(
    truth: Set, partition: Partition, confusion: Mapping[str, Counter[str]], frequency: Mapping[str, int]
) -> Set:
    """A wrong set for an item on which the model makes no mistake."""
    rarest = min(truth, key=lambda label: (label not in partition.privileged, frequency[label], label))
    if rarest in partition.privileged and len(truth) > 1:
        return truth - {rarest}
    absent = [label for label in partition.names if label not in truth]
    if not absent:  # the item has every label: nothing can stand in place of one
        return truth - {rarest}
    in_place = min(absent, key=lambda label: (-confusion[rarest][label], -frequency[label], label))
    return (truth - {rarest}) | {in_place}
