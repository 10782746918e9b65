"""What is in preference data: counts, conflicts, length bias, repeats, leaks, cuts, and what training would refuse."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import fmean
from typing import Any

import numpy as np
from datasets import Dataset

from fairpo_trl.core.messages import require_known
from fairpo_trl.preferences.overlap import Overlap, find_overlap, find_overlaps
from fairpo_trl.preferences.own import repeated_pairs
from fairpo_trl.preferences.read import Rows, columns_of
from fairpo_trl.preferences.rules import (
    TRAINED_ON,
    Problem,
    attribute_names,
    completion_text,
    explicit_pair,
    find_problems,
    prompt_key,
)
from fairpo_trl.preferences.tokens import ModelLimits, TokenLengths, token_lengths


@dataclass(frozen=True)
class AttributeReport:
    """
    One attribute.

    Attributes:
        name (`str`): The attribute.
        role (`str`, *optional*): `"privileged"`, `"non_privileged"`, or `None` if no roles were given.
        pairs (`dict[str, int]`): Split -> pairs.
        prompts (`int`): Different prompts.
        chosen_longer (`float`): Share of pairs whose chosen response has more characters; equal lengths count half.
        chosen_length (`float`): Mean characters of chosen responses.
        rejected_length (`float`): Mean characters of rejected responses.
        reversed_prompts (`int`): Prompts on which the attribute prefers x to y in one pair and y to x in another.
    """

    name: str
    role: str | None
    pairs: dict[str, int]
    prompts: int
    chosen_longer: float
    chosen_length: float
    rejected_length: float
    reversed_prompts: int


@dataclass(frozen=True)
class Conflict:
    """
    Two attributes that judge the same prompts.

    Attributes:
        first (`str`), second (`str`): The attributes.
        shared (`int`): Prompts that have pairs of both.
        comparable (`int`): Those of them on which both rank the same two responses.
        disagree (`int`): Those of them on which they rank two responses the other way round, directly or through a
            response in between (x over y and y over z is x over z).
        exact_reverses (`int`): Those on which the very pair of one attribute is there for the other, reversed.
    """

    first: str
    second: str
    shared: int
    comparable: int
    disagree: int
    exact_reverses: int

    @property
    def share(self) -> float:
        """Share of the comparable prompts on which the two disagree; NaN without any: nothing can be said then."""
        return self.disagree / self.comparable if self.comparable else float("nan")


@dataclass(frozen=True)
class PreferenceReport:
    """
    What `check_preferences` found.

    Attributes:
        splits (`dict[str, int]`): Split -> rows.
        attributes (`tuple[AttributeReport, ...]`): In the order in which they occur.
        roles (`dict[str, int]`): Role -> pairs; empty if no roles were given.
        conflicts (`tuple[Conflict, ...]`): Every two attributes with a common prompt.
        duplicates (`dict[str, tuple[int, ...]]`): Split -> rows that repeat an earlier row of it.
        overlaps (`tuple[Overlap, ...]`): Splits with common prompts.
        lengths (`TokenLengths`, *optional*): Lengths in tokens, with a tokenizer.
        refused (`tuple[Problem, ...]`): What the trainer would refuse, with the rows.
        tokens_checked (`bool`): Whether a tokenizer was there: without one the rules for tokens were not looked at.
    """

    splits: dict[str, int]
    attributes: tuple[AttributeReport, ...]
    roles: dict[str, int]
    conflicts: tuple[Conflict, ...]
    duplicates: dict[str, tuple[int, ...]]
    overlaps: tuple[Overlap, ...]
    lengths: TokenLengths | None
    refused: tuple[Problem, ...]
    tokens_checked: bool = False

    def _repr_html_(self) -> str:
        from fairpo_trl.preferences.show import check_html

        return check_html(self)

    def conflict_matrix(self) -> np.ndarray:
        """
        Share of the prompts, of those on which two attributes rank the same responses, on which they disagree.

        Returns:
            `np.ndarray`: `[attributes, attributes]`, symmetric, in the order of `attributes`; NaN where two attributes
            have no such prompt, and on the diagonal.
        """
        position = {entry.name: index for index, entry in enumerate(self.attributes)}
        matrix = np.full((len(position), len(position)), np.nan)
        for conflict in self.conflicts:
            i, j = position[conflict.first], position[conflict.second]
            matrix[i, j] = matrix[j, i] = conflict.share
        return matrix

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        data = asdict(self)
        for entry, conflict in zip(data["conflicts"], self.conflicts, strict=True):
            entry["share"] = conflict.share if conflict.comparable else None
        return data


def check_preferences(
    data: Mapping[str, Rows] | Rows,
    *,
    attribute_column: str = "attribute",
    privileged: Sequence[str] | None = None,
    tokenizer: Any = None,
    max_length: int | None = None,
    truncation_mode: str = "keep_start",
    limits: ModelLimits | None = None,
    train_split: str = "train",
    evaluation_splits: Sequence[str] | None = None,
    allow_prompt_overlap: bool = False,
) -> PreferenceReport:
    """
    Looks at preference data without a model.

    Args:
        data (`Mapping[str, Rows]` or `Rows`):
            Split -> pairs (a `DatasetDict`, for example), or the pairs of one split: `prompt`, `chosen`, `rejected`
            and the attribute column, plain or conversational.
        attribute_column (`str`, *optional*, defaults to `"attribute"`):
            Names the attribute of a pair, or lists several.
        privileged (`Sequence[str]`, *optional*):
            The privileged attributes; all others are held.
        tokenizer (`PreTrainedTokenizerBase`, *optional*):
            Measures lengths in tokens as the trainer would.
        max_length (`int`, *optional*):
            The trainer's `max_length`: what would be cut. Needs the tokenizer.
        truncation_mode (`str`, *optional*, defaults to `"keep_start"`):
            The trainer's: which end `max_length` keeps.
        limits ([`~fairpo_trl.preferences.tokens.ModelLimits`], *optional*):
            Tokens and positions of the model. Needs the tokenizer.
        train_split (`str`, *optional*, defaults to `"train"`):
            The split that is trained on.
        evaluation_splits (`Sequence[str]`, *optional*):
            The splits that are evaluated on, whose prompts must not be in the training data; `None`: all others.
        allow_prompt_overlap (`bool`, *optional*, defaults to `False`):
            The trainer's: whether they may.

    Returns:
        `PreferenceReport`: what was found. Rows that the trainer would refuse count in `refused` and in nothing else.

    Raises:
        ValueError: If there is no split, `max_length` comes without a tokenizer, or a privileged attribute is unknown.
    """
    splits: Mapping[str, Rows] = data if isinstance(data, Mapping) else {"train": data}
    if not splits:
        raise ValueError("There is no split to check.")
    if max_length is not None and (tokenizer is None or max_length < 1):
        raise ValueError(f"`max_length` needs a tokenizer and must be 1 or more, got {max_length}.")
    if isinstance(privileged, str):
        raise ValueError(f"`privileged` must be a list of names, got the string {privileged!r}.")

    refused: list[Problem] = []
    usable: dict[str, list[tuple[int, Mapping[str, Any]]]] = {}
    for split, rows in splits.items():
        found, usable[split] = _look(rows, split, attribute_column)
        refused += found
    prompts: dict[str, dict[int, Any]] = {split: {} for split in usable}
    pairs: list[_Pair] = []
    for split, part in usable.items():
        for index, row in part:
            prompt, chosen, rejected = explicit_pair(row)
            prompts[split][index] = prompt
            texts = prompt_key(prompt), completion_text(chosen), completion_text(rejected)
            pairs += [_Pair(split, *texts, name) for name in dict.fromkeys(attribute_names(row[attribute_column]))]
    names = list(dict.fromkeys(pair.attribute for pair in pairs))
    require_known("privileged attribute", privileged or (), names)
    lengths = None
    if tokenizer is not None:
        lengths, on_tokens = token_lengths(usable, attribute_column, tokenizer, max_length, truncation_mode, limits)
        refused += on_tokens
    if not allow_prompt_overlap:
        evaluated = (
            [split for split in prompts if split != train_split] if evaluation_splits is None else evaluation_splits
        )
        leaks = (find_overlap(prompts.get(train_split, {}), prompts.get(split, {}), split) for split in evaluated)
        refused += [leak for leak in leaks if leak is not None]
    role_of = {name: "privileged" if name in privileged else "non_privileged" for name in names} if privileged else {}
    judged: _Judgements = defaultdict(lambda: defaultdict(set))
    for pair in pairs:
        judged[pair.prompt][pair.attribute].add((pair.chosen, pair.rejected))
    # A pair of several attributes counts once in each role.
    roles = Counter(
        role
        for part in usable.values()
        for _, row in part
        for role in {role_of[name] for name in attribute_names(row[attribute_column]) if role_of}
    )
    return PreferenceReport(
        splits={split: len(rows) for split, rows in splits.items()},
        attributes=_attributes(pairs, names, role_of, judged),
        roles=dict(roles),
        conflicts=_conflicts(names, judged),
        duplicates={
            split: tuple(part[place][0] for place in repeats)
            for split, part in usable.items()
            if (repeats := repeated_pairs([row for _, row in part], attribute_column))
        },
        overlaps=find_overlaps(prompts),
        lengths=lengths,
        refused=tuple(refused),
        tokens_checked=tokenizer is not None,
    )


@dataclass(frozen=True)
class _Pair:
    """A usable pair of one attribute, as text; prompts as they are told apart."""

    split: str
    prompt: str
    chosen: str
    rejected: str
    attribute: str


_Judgements = dict[str, dict[str, set[tuple[str, str]]]]
"""Prompt -> attribute -> (chosen, rejected)."""


def _look(rows: Rows, split: str, column: str) -> tuple[list[Problem], list[tuple[int, Mapping[str, Any]]]]:
    """What is wrong with a split, and its usable rows with their numbers."""
    columns = columns_of(rows)
    needed = [name for name in (column, *TRAINED_ON) if name in columns]
    narrow = rows.select_columns(needed) if isinstance(rows, Dataset) else rows
    listed = [{name: row.get(name) for name in columns if name in needed} for row in narrow]
    problems, _ = find_problems(listed, columns, split, column)
    if any(not problem.rows for problem in problems):  # the whole split
        return problems, []
    bad = {index for problem in problems for index in problem.rows}
    return problems, [(index, row) for index, row in enumerate(listed) if index not in bad]


def _attributes(
    pairs: Sequence[_Pair], names: Sequence[str], role_of: Mapping[str, str], judged: _Judgements
) -> tuple[AttributeReport, ...]:
    pairs_of: dict[str, list[_Pair]] = {name: [] for name in names}
    for pair in pairs:
        pairs_of[pair.attribute].append(pair)
    turned: Counter[str] = Counter()
    for by_name in judged.values():
        for name, own_pairs in by_name.items():
            turned[name] += any((worse, better) in own_pairs for better, worse in own_pairs)
    entries = []
    for name, own in pairs_of.items():
        sizes = [(len(pair.chosen), len(pair.rejected)) for pair in own]
        entries.append(
            AttributeReport(
                name=name,
                role=role_of.get(name),
                pairs=dict(Counter(pair.split for pair in own)),
                prompts=len({pair.prompt for pair in own}),
                chosen_longer=fmean((chosen > rejected) + (chosen == rejected) / 2 for chosen, rejected in sizes),
                chosen_length=fmean(chosen for chosen, _ in sizes),
                rejected_length=fmean(rejected for _, rejected in sizes),
                reversed_prompts=turned[name],
            )
        )
    return tuple(entries)


def _conflicts(names: Sequence[str], judged: _Judgements) -> tuple[Conflict, ...]:
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    order = {name: index for index, name in enumerate(names)}
    for by_name in judged.values():
        if len(by_name) < 2:
            continue
        ranked = {name: _through(pairs) for name, pairs in by_name.items()}
        for a, b in combinations(sorted(by_name, key=order.__getitem__), 2):
            tally = counts[a, b]
            reverses = {(worse, better) for better, worse in ranked[a]}
            tally["shared"] += 1
            tally["disagree"] += not reverses.isdisjoint(ranked[b])
            tally["comparable"] += not (reverses | ranked[a]).isdisjoint(ranked[b])
            tally["reverse"] += any((worse, better) in by_name[b] for better, worse in by_name[a])
    return tuple(
        Conflict(a, b, tally["shared"], tally["comparable"], tally["disagree"], tally["reverse"])
        for (a, b), tally in sorted(counts.items(), key=lambda item: [order[name] for name in item[0]])
    )


def _through(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The pairs, and those that follow from them: x over y and y over z is x over z."""
    if len(pairs) < 2:
        return pairs
    worse_than: dict[str, list[str]] = defaultdict(list)
    for better, worse in pairs:
        worse_than[better].append(worse)
    followed = set()
    for start in list(worse_than):
        reached: set[str] = set()
        waiting = list(worse_than[start])
        while waiting:
            response = waiting.pop()
            if response not in reached:
                reached.add(response)
                waiting += worse_than.get(response, [])
        followed |= {(start, response) for response in reached - {start}}
    return followed
