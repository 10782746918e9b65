"""Whatever comes in: partitions and group weights keep their properties, or raise the documented error."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairpo_trl.core import Group, GroupWeights, Partition
from fairpo_trl.core.group_weights import Absent, Balancer, Scaling
from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.core.reduction import group_sums, grouped_objective, losses_of_members


TEXT = st.text(max_size=6)
ODD = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), TEXT, st.lists(TEXT, max_size=3))
JSON = st.recursive(ODD, lambda inner: st.dictionaries(TEXT, inner, max_size=3) | st.lists(inner, max_size=3))
NAMES = st.lists(st.text(min_size=1, max_size=5).filter(str.strip), min_size=1, max_size=6, unique=True)
NUMBER = st.one_of(st.floats(0, 2), st.floats(), st.just(0), ODD)  # mostly sensible, sometimes anything


# ---- who is privileged ----


@given(st.one_of(NAMES, ODD, st.lists(ODD, max_size=4)), st.one_of(ODD, st.lists(ODD, max_size=4)), st.data())
def test_a_partition_divides_its_names_or_is_refused(names: Any, privileged: Any, data: st.DataObject):
    if isinstance(names, list) and names and data.draw(st.booleans()):
        privileged = data.draw(st.lists(st.sampled_from(names), min_size=1))
    try:
        partition = Partition.by_name(names, privileged)
    except ValueError as error:
        assert 0 < len(str(error)) < 2000
        return
    assert partition.names == tuple(names) and set(partition.privileged) == set(privileged)
    assert sorted([*partition.privileged, *partition.non_privileged]) == sorted(partition.names)
    for grouping in ("role", "attribute"):
        groups = partition.groups(grouping)
        assert sorted(name for group in groups for name in group.members) == sorted(partition.names)
        assert all(partition.role_of(name) == group.role for group in groups for name in group.members)
        assert partition.group_membership(grouping).sum(dim=1).eq(1).all()
    assert Partition.from_json(partition.to_json()) == partition


@given(NAMES, st.data())
def test_the_order_of_names_moves_columns_and_nothing_else(names: list[str], data: st.DataObject):
    privileged = data.draw(st.lists(st.sampled_from(names), min_size=1))
    order = data.draw(st.permutations(range(len(names))))
    straight, turned = (Partition.by_name(n, privileged) for n in (names, [names[i] for i in order]))
    assert torch.equal(straight.group_membership("role")[order], turned.group_membership("role"))
    rows = data.draw(st.lists(st.lists(st.sampled_from(names)), max_size=4))
    assert torch.equal(straight.memberships(rows), turned.memberships(rows))
    inside = [[any(name in group.members for name in row) for group in straight.groups()] for row in rows]
    assert straight.memberships(rows).tolist() == inside


@given(
    st.one_of(JSON, NAMES.map(lambda names: {"names": names, "roles": dict.fromkeys(names, "privileged")})), st.data()
)
def test_a_partition_is_read_from_json_or_refused(value: Any, data: st.DataObject):
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        value[data.draw(st.sampled_from(list(value)))] = data.draw(JSON)
    text = json.dumps(value)[: data.draw(st.one_of(st.none(), st.integers(0, 40)))]
    try:
        partition = Partition.from_json(text)
    except ValueError as error:
        assert 0 < len(str(error)) < 2000
        return
    assert partition.to_dict() == {**json.loads(text), "roles": partition.to_dict()["roles"]}


@given(
    st.dictionaries(st.text(min_size=1, max_size=4).filter(str.strip), st.one_of(st.floats(), ODD), max_size=6), NUMBER
)
def test_the_lowest_share_is_the_lowest(scores: dict, share: Any):
    try:
        partition = Partition.by_worst_score(scores, share)
    except ValueError as error:
        assert 0 < len(str(error)) < 2000
        return
    chosen = [scores[name] for name in partition.privileged]
    others = [scores[name] for name in partition.non_privileged]
    assert len(chosen) == max(1, round(share * len(scores))) and (not others or max(chosen) <= min(others))


@given(st.lists(TEXT, min_size=1, max_size=30), st.lists(TEXT, max_size=30))
def test_a_message_about_names_stays_short(unknown: list[str], known: list[str]):
    message = unknown_names_message("name", [*unknown, "x" * 10**5], [*known, "y" * 10**5])
    assert message.startswith("Unknown name: ") and len(message) < 4000


# ---- how they are weighted ----

COUNT = st.integers(0, 50)
LOSS = st.one_of(st.floats(-10, 10), st.floats(-1e100, 1e100))
BAD = st.sampled_from([float("nan"), float("inf"), -float("inf")])


@given(st.data())
def test_group_weights_stay_weights(data: st.DataObject):
    k = data.draw(st.integers(1, 5))
    groups = [
        Group(f"g{i}", data.draw(st.sampled_from(["privileged", "non_privileged"])), (f"g{i}",)) for i in range(k)
    ]
    options: dict[str, Any] = {
        "balancer": data.draw(st.sampled_from(get_args(Balancer))),
        "scaling": data.draw(st.sampled_from(get_args(Scaling))),
        "absent": data.draw(st.sampled_from(get_args(Absent))),
        "eta": data.draw(st.floats(0, 1e3)),
        "floor": data.draw(st.one_of(st.just(0), st.floats(0, 0.99))) / k,
        "decay": data.draw(st.floats(0, 0.999)),
        "prior": data.draw(st.none() | st.fixed_dictionaries({g.name: st.floats(1e-9, 1e9) for g in groups})),
        "constants": {group.name: data.draw(st.floats(1e-6, 1e6)) for group in groups},
        "multiplier_start": data.draw(st.floats(0, 5)),
        "multiplier_max": data.draw(st.floats(5, 1e3)),
    }
    order = data.draw(st.permutations(range(k)))
    try:
        weights = GroupWeights(groups, **options)
    except ValueError:  # a floor without mirror ascent, or a relative loss for multipliers
        assert (options["floor"] and options["balancer"] != "mirror_ascent") or (
            options["balancer"] == "lagrangian" and options["scaling"] == "relative"
        )
        return
    turned = GroupWeights([groups[i] for i in order], **options)
    for _ in range(data.draw(st.integers(1, 6))):
        counts = torch.tensor([data.draw(COUNT) for _ in groups])
        sums = torch.tensor([data.draw(LOSS) for _ in groups], dtype=torch.float64)
        if counts.any() and data.draw(st.integers(0, 4)) == 0:
            before, place = weights.state_dict(), int(counts.nonzero()[0])
            broken = sums.clone()
            broken[place] = data.draw(BAD)
            with pytest.raises(FloatingPointError, match=f"g{place}"):
                weights.update(broken, counts)
            assert weights.state_dict() == before
        weights.update(sums, counts)
        turned.update(sums[order], counts[order])
        alpha = weights.weights
        assert torch.isfinite(alpha).all() and (alpha >= 0).all()
        torch.testing.assert_close(alpha[order], turned.weights, rtol=1e-9, atol=1e-12)
        if options["balancer"] == "lagrangian":
            held = torch.tensor([group.role == "non_privileged" for group in groups])
            assert (alpha[held] <= options["multiplier_max"]).all()
            assert held.all() or alpha[~held].sum().item() == pytest.approx(1)
        else:
            assert alpha.sum().item() == pytest.approx(1, abs=1e-12)
            assert (alpha >= options["floor"] * (1 - 1e-12)).all()
        if options["balancer"] == "fixed":
            assert weights.as_dict() == GroupWeights(groups, **options).as_dict()
    again = GroupWeights(groups, **options)
    again.load_state_dict(json.loads(json.dumps(weights.state_dict())))
    assert again.state_dict() == weights.state_dict() and torch.equal(again.weights, weights.weights)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "balancer": st.sampled_from([*get_args(Balancer), "mirror"]) | ODD,
            "scaling": st.sampled_from(get_args(Scaling)) | ODD,
            "absent": st.sampled_from(get_args(Absent)) | ODD,
            "eta": NUMBER,
            "floor": NUMBER,
            "decay": NUMBER,
            "delta": NUMBER,
            "clamp": NUMBER,
            "prior": st.dictionaries(st.sampled_from(["a", "b", "c"]), NUMBER) | ODD,
            "constants": st.dictionaries(st.sampled_from(["a", "b", "c"]), NUMBER) | ODD,
            "multiplier_start": NUMBER,
            "multiplier_max": NUMBER,
        },
    )
)
def test_options_of_the_weights_are_taken_or_refused(options: dict):
    groups = Partition.by_name(["a", "b"], ["a"]).groups("attribute")
    try:
        weights = GroupWeights(groups, **options)
    except ValueError as error:
        assert 0 < len(str(error)) < 2000
        return
    weights.update(torch.tensor([0.5, 0.25]), torch.tensor([1, 1]))
    assert torch.isfinite(weights.weights).all() and (weights.weights >= 0).all()


@given(st.integers(1, 6), st.integers(1, 4), st.randoms(use_true_random=False), st.data())
def test_the_objective_is_the_same_for_every_order_and_split(b: int, k: int, random: Any, data: st.DataObject):
    number = st.floats(-1e6, 1e6)
    losses = torch.tensor([[data.draw(number) for _ in range(k)] for _ in range(b)], dtype=torch.float64)
    members = torch.tensor([[data.draw(st.booleans()) for _ in range(k)] for _ in range(b)])
    losses[~members] = data.draw(st.sampled_from([0.0, float("nan"), float("inf")]))  # what is no member never counts
    weights = torch.tensor([data.draw(st.floats(0, 1)) for _ in range(k)], dtype=torch.float64)
    counts = members.sum(dim=0)
    losses = losses_of_members(losses, members)
    whole = grouped_objective(losses, weights, counts)
    means = torch.where(counts > 0, group_sums(losses) / counts.clamp(min=1), 0.0)
    torch.testing.assert_close(whole, (weights * means).sum(), rtol=1e-9, atol=1e-6)
    order = random.sample(range(b), b)
    cut = data.draw(st.integers(0, b))
    parts = [grouped_objective(losses[rows], weights, counts) for rows in (order[:cut], order[cut:])]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-9, atol=1e-6)
