"""Who is privileged: the partition of attribute or label names into roles, and of roles into groups."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from fairpo_trl.core.messages import require_known, shortened
from fairpo_trl.core.options import is_number


Role = Literal["privileged", "non_privileged"]
"""The two roles of the paper: what has to get better, and what must not get worse than the reference."""

Grouping = Literal["role", "attribute"]
"""How roles become groups: one group per role (the paper), or one per name."""


@dataclass(frozen=True)
class Group:
    """
    One group of the minimax: the names whose losses share one weight.

    Attributes:
        name (`str`): The role, or the attribute or label itself.
        role (`Role`): `"privileged"` or `"non_privileged"`.
        members (`tuple[str, ...]`): The names counted in this group.
    """

    name: str
    role: Role
    members: tuple[str, ...]


@dataclass(frozen=True)
class Partition:
    """
    Names (attributes of preference pairs, or labels of a classifier) and which of them are privileged.

    The order of `names` is kept everywhere: it is the column order of membership masks and label matrices.

    Args:
        names (`tuple[str, ...]`):
            Every name, each once.
        privileged (`tuple[str, ...]`):
            The privileged ones, at least one. All other names are non-privileged; there may be none, and then FairPO
            is the privileged loss alone (one group of weight 1).

    Raises:
        ValueError: If a name is empty or occurs twice, no name is privileged, or a privileged name is unknown.

    Example:

    ```python
    >>> partition = Partition.by_name(["concise", "polite", "factual"], privileged=["concise"])
    >>> partition.role_of("polite")
    'non_privileged'
    >>> [group.name for group in partition.groups("role")]
    ['privileged', 'non_privileged']
    ```
    """

    names: tuple[str, ...]
    privileged: tuple[str, ...]

    def __post_init__(self) -> None:
        for value, field in ((self.names, "names"), (self.privileged, "privileged")):
            if isinstance(value, str):
                raise ValueError(f"`{field}` must be a list of names, got the string {value!r}: pass [{value!r}].")
            if not isinstance(value, Iterable):
                raise ValueError(f"`{field}` must be a list of names, got {shortened(value)}.")
        object.__setattr__(self, "names", tuple(self.names))
        wanted = tuple(self.privileged)  # may come in any order
        if any(not isinstance(name, str) or not name.strip() for name in (*self.names, *wanted)):
            wrong = [name for name in (*self.names, *wanted) if not isinstance(name, str) or not name.strip()]
            raise ValueError(f"Names must be non-empty strings, got {shortened(wrong[0])} among them.")
        repeated = sorted({name for name in self.names if self.names.count(name) > 1})
        if repeated:
            raise ValueError(f"Each name may occur once, but these occur more often: {repeated}.")
        require_known("privileged name", wanted, self.names)
        if not wanted:
            raise ValueError(
                "No name is privileged, so there is nothing to improve: choose at least one of "
                f"{list(self.names)} as privileged."
            )
        # One canonical order (that of `names`), so that equal partitions compare equal and states match.
        object.__setattr__(self, "privileged", tuple(name for name in self.names if name in wanted))

    @property
    def non_privileged(self) -> tuple[str, ...]:
        """Every name that is not privileged, in the order of `names`."""
        return tuple(name for name in self.names if name not in self.privileged)

    def role_of(self, name: str) -> Role:
        """The role of one name. Raises `ValueError` with near matches for an unknown one."""
        require_known("name", [name], self.names)
        return "privileged" if name in self.privileged else "non_privileged"

    # ---- ways to choose the privileged names ----

    @classmethod
    def by_name(cls, names: Iterable[str], privileged: Iterable[str]) -> Partition:
        """The partition in which exactly `privileged` (each one of `names`) is privileged."""
        # Any iterables: the class checks them, a text among them too, and makes tuples.
        return cls(cast("tuple[str, ...]", names), cast("tuple[str, ...]", privileged))

    @classmethod
    def by_least_frequent(cls, counts: Mapping[str, int], share: float) -> Partition:
        """
        The rarest `share` of the names becomes privileged (the paper: the 20 % least frequent labels in train).

        Names without a single example are never among them: there would be nothing to make better.

        Args:
            counts (`Mapping[str, int]`):
                Name -> number of training examples.
            share (`float`):
                Share of the names, in (0, 1]; `round(share * len(counts))` names, at least one. Ties go to the name
                that comes first.

        Raises:
            ValueError: If no name has an example.
        """
        rarest = _lowest(counts, 1.0, "counts")
        wanted = len(_lowest(counts, share, "counts"))
        trained = [name for name in rarest if counts[name] > 0]
        if not trained:
            raise ValueError(
                f"`counts` has no name with an example, so none of {len(counts)} can be the least frequent."
            )
        return cls(tuple(counts), tuple(trained[:wanted]))

    @classmethod
    def by_worst_score(cls, scores: Mapping[str, float], share: float) -> Partition:
        """
        The `share` of the names with the lowest reference score (average precision, win rate, ...) is privileged.

        Raises `ValueError` if a score is NaN: a name without a score cannot be ranked.
        """
        return cls(tuple(scores), _lowest(scores, share, "scores"))

    @classmethod
    def at_random(cls, names: Iterable[str], share: float, seed: int) -> Partition:
        """A random `share` of the names is privileged: a control for the other choices, fixed by `seed`."""
        ordered = tuple(names)
        order = torch.randperm(len(ordered), generator=torch.Generator().manual_seed(seed)).tolist()
        return cls(ordered, _lowest({ordered[i]: rank for rank, i in enumerate(order)}, share, "names"))

    # ---- groups ----

    def groups(self, grouping: Grouping = "role") -> tuple[Group, ...]:
        """
        The groups whose losses are weighted against each other, privileged ones first.

        Args:
            grouping (`str`, *optional*, defaults to `"role"`):
                `"role"`: one group per role that has names (the paper). `"attribute"`: one group per name.
        """
        if grouping == "attribute":
            return tuple(Group(name, self.role_of(name), (name,)) for name in (*self.privileged, *self.non_privileged))
        if grouping == "role":
            groups = [Group("privileged", "privileged", self.privileged)]
            if self.non_privileged:
                groups.append(Group("non_privileged", "non_privileged", self.non_privileged))
            return tuple(groups)
        raise ValueError(f"`grouping` must be 'role' or 'attribute', got {grouping!r}.")

    def group_membership(self, grouping: Grouping = "role") -> torch.Tensor:
        """
        Which name belongs to which group.

        Returns:
            `torch.Tensor` of bool, shape `[len(names), K]`: rows in the order of `names`, columns in that of
            `groups(grouping)`. An example with name mask `m` (`[B, len(names)]`, bool) is a member of the groups
            `(m.float() @ membership.float()) > 0`: counted once in each, however many of its names are in it.
        """
        groups = self.groups(grouping)
        return torch.tensor([[name in group.members for group in groups] for name in self.names], dtype=torch.bool)

    def memberships(self, rows: Sequence[Iterable[str]], grouping: Grouping = "role") -> torch.Tensor:
        """Which row (given by its names) is a member of which group: bool `[len(rows), K]`."""
        mask = torch.zeros(len(rows), len(self.names))
        for row, names in enumerate(rows):
            mask[row, [self.names.index(name) for name in names]] = 1
        return (mask @ self.group_membership(grouping).float()) > 0

    # ---- JSON ----

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form: names, and the role of each."""
        return {"names": list(self.names), "roles": {name: self.role_of(name) for name in self.names}}

    def to_json(self) -> str:
        """`to_dict` as a JSON string."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Partition:
        """
        The partition written by `to_dict`.

        Raises:
            ValueError: If `names` or `roles` is missing, a name has no role, or a role is neither of the two.
        """
        if not isinstance(data, Mapping):
            raise ValueError(f"Not a partition: expected what `Partition.to_dict` returns, got {shortened(data)}.")
        missing = [key for key in ("names", "roles") if key not in data]
        if missing:
            raise ValueError(
                f"Not a partition: the JSON lacks {missing}. Expected the form `Partition.to_json` writes."
            )
        names, roles = data["names"], data["roles"]
        if not (isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"`names` of the partition must be a list of strings, got {shortened(names)}.")
        if not isinstance(roles, Mapping):
            raise ValueError(f"`roles` of the partition must map each name to its role, got {shortened(roles)}.")
        if set(names) != set(roles):
            raise ValueError(f"`names` and `roles` of the partition differ in {sorted(set(names) ^ set(roles))}.")
        wrong = {name: role for name, role in roles.items() if role not in ("privileged", "non_privileged")}
        if wrong:
            raise ValueError(f"Roles are 'privileged' or 'non_privileged', got {wrong}.")
        return cls(tuple(names), tuple(name for name in names if roles[name] == "privileged"))

    @classmethod
    def from_json(cls, text: str) -> Partition:
        """The partition written by `to_json`."""
        try:
            data = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"Not a partition, because not JSON: {error}.") from error
        return cls.from_dict(data)


def _lowest(values: Mapping[str, float], share: float, what: str) -> tuple[str, ...]:
    """The `share` of the keys with the lowest values, at least one; ties keep the order of the keys."""
    if not (is_number(share) and 0 < share <= 1):
        raise ValueError(f"`share` must be in (0, 1], got {share!r}.")
    if not values:
        raise ValueError(f"`{what}` is empty: there is no name to choose from.")
    bad = [name for name, value in values.items() if not _is_ordered(value)]
    if bad:
        shown = "NaN" if values[bad[0]] != values[bad[0]] else f"{shortened(values[bad[0]])}, which is no number,"
        raise ValueError(f"`{what}` holds {shown} for {bad}: leave these names out or give them a value.")
    count = max(1, round(share * len(values)))
    return tuple(sorted(values, key=lambda name: values[name])[:count])


def _is_ordered(value: Any) -> bool:
    """Whether a value can be ranked: any real number, of numpy or torch too, but NaN."""
    try:
        return not math.isnan(value)
    except TypeError:
        return False
