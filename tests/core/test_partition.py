"""Partition: who is privileged, and the groups that follow from it."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairpo_trl.core import Group, Partition


NAMES = st.lists(st.text("abcdefgh", min_size=1, max_size=4), min_size=1, max_size=8, unique=True)


def test_roles_follow_the_order_of_names():
    partition = Partition.by_name(["concise", "polite", "factual"], privileged=["factual", "concise"])
    assert partition.privileged == ("concise", "factual")
    assert partition.non_privileged == ("polite",)
    assert [partition.role_of(n) for n in partition.names] == ["privileged", "non_privileged", "privileged"]


def test_order_and_repeats_of_the_privileged_argument_do_not_matter():
    a = Partition.by_name(["x", "y", "z"], ["z", "x", "z"])
    assert a == Partition(("x", "y", "z"), ("x", "z")) and hash(a) == hash(Partition(("x", "y", "z"), ("x", "z")))


def test_least_frequent_share():
    counts = {"cat": 900, "dog": 20, "bear": 20, "car": 500, "boat": 30}
    assert Partition.by_least_frequent(counts, 0.4).privileged == ("dog", "bear")
    assert Partition.by_least_frequent(counts, 0.2).privileged == ("dog",)  # the tie goes to the first
    assert Partition.by_least_frequent(counts, 0.01).privileged == ("dog",)  # at least one
    assert Partition.by_least_frequent(counts, 1.0).non_privileged == ()
    assert Partition.by_least_frequent(counts, 0.4).names == tuple(counts)


def test_paper_shares_of_coco_and_nus_wide():
    # 20 % of 80 labels and of 81 labels are 16 labels each.
    for labels in (80, 81):
        counts = {f"label {i}": 1000 - i for i in range(labels)}
        assert Partition.by_least_frequent(counts, 0.2).privileged == tuple(
            f"label {i}" for i in range(labels - 16, labels)
        )


def test_worst_score():
    assert Partition.by_worst_score({"a": 0.9, "b": -0.1, "c": 0.5}, 0.5).privileged == ("b", "c")
    with pytest.raises(ValueError, match=r"NaN for \['b'\]"):
        Partition.by_worst_score({"a": 0.9, "b": float("nan")}, 0.5)


def test_random_is_fixed_by_its_seed():
    names = [f"n{i}" for i in range(20)]
    assert Partition.at_random(names, 0.25, seed=3) == Partition.at_random(names, 0.25, seed=3)
    assert len(Partition.at_random(names, 0.25, seed=3).privileged) == 5
    drawn = {Partition.at_random(names, 0.25, seed=s).privileged for s in range(8)}
    assert len(drawn) == 8
    state = torch.get_rng_state()
    Partition.at_random(names, 0.25, seed=3)
    assert torch.equal(state, torch.get_rng_state())  # no draw from the global generator


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01])
def test_share_out_of_range(share):
    with pytest.raises(ValueError, match=r"`share` must be in \(0, 1\]"):
        Partition.by_least_frequent({"a": 1}, share)


def test_no_name_to_choose_from():
    with pytest.raises(ValueError, match="`counts` is empty"):
        Partition.by_least_frequent({}, 0.2)


def test_unknown_privileged_name_shows_the_nearest():
    with pytest.raises(
        ValueError,
        match=r"Unknown privileged name: 'concize' \(did you mean 'concise'\?\).*Known: 'concise', 'polite'",
    ):
        Partition.by_name(["concise", "polite"], ["concize"])
    with pytest.raises(ValueError, match=r"'polit' \(did you mean 'polite'\?\)"):
        Partition.by_name(["concise", "polite"], ["concise"]).role_of("polit")


@pytest.mark.parametrize(
    ("names", "privileged", "message"),
    [
        (["a", "b"], [], "No name is privileged"),
        ([], [], "No name is privileged"),
        (["a", "a", "b"], ["b"], r"occur more often: \['a'\]"),
        (["a", " "], ["a"], "non-empty strings"),
        (["a", 3], ["a"], "non-empty strings"),
        ("concise", ["concise"], r"pass \['concise'\]"),
        (["concise"], "concise", r"pass \['concise'\]"),
    ],
)
def test_impossible_partitions(names, privileged, message):
    with pytest.raises(ValueError, match=message):
        Partition(names, privileged)


def test_groups_by_role_and_by_attribute():
    partition = Partition.by_name(["a", "b", "c"], ["b"])
    assert partition.groups("role") == (
        Group("privileged", "privileged", ("b",)),
        Group("non_privileged", "non_privileged", ("a", "c")),
    )
    assert partition.groups("attribute") == (
        Group("b", "privileged", ("b",)),
        Group("a", "non_privileged", ("a",)),
        Group("c", "non_privileged", ("c",)),
    )
    with pytest.raises(ValueError, match="'role' or 'attribute', got 'label'"):
        partition.groups("label")


def test_membership_rows_are_names_and_columns_are_groups():
    partition = Partition.by_name(["a", "b", "c"], ["b"])
    assert partition.group_membership("role").tolist() == [[False, True], [True, False], [False, True]]
    assert partition.group_membership("attribute").int().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 1]]


def test_no_non_privileged_side():
    partition = Partition.by_name(["a", "b"], ["a", "b"])
    assert [g.name for g in partition.groups()] == ["privileged"]
    assert partition.group_membership().shape == (2, 1) and partition.group_membership().all()


@given(NAMES, st.data())
def test_json_round_trip(names, data):
    privileged = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    partition = Partition.by_name(names, privileged)
    assert Partition.from_json(partition.to_json()) == partition
    assert Partition.from_dict(json.loads(json.dumps(partition.to_dict()))) == partition


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"names": ["a"]}, r"lacks \['roles'\]"),
        ({"names": ["a"], "roles": {"b": "privileged"}}, r"differ in \['a', 'b'\]"),
        ({"names": ["a"], "roles": {"a": "protected"}}, "got {'a': 'protected'}"),
    ],
)
def test_bad_json(data, message):
    with pytest.raises(ValueError, match=message):
        Partition.from_dict(data)


@given(NAMES, st.data())
def test_renumbering_the_names_only_permutes_the_rows(names, data):
    privileged = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    order = data.draw(st.permutations(range(len(names))))
    a, b = Partition.by_name(names, privileged), Partition.by_name([names[i] for i in order], privileged)
    assert torch.equal(a.group_membership("role")[list(order)], b.group_membership("role"))
    assert set(a.groups("attribute")) == set(b.groups("attribute"))
    assert set(a.privileged) == set(b.privileged) and set(a.non_privileged) == set(b.non_privileged)


@given(NAMES, st.data())
def test_every_name_is_in_exactly_one_group(names, data):
    partition = Partition.by_name(names, data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True)))
    for grouping in ("role", "attribute"):
        membership = partition.group_membership(grouping)
        assert membership.shape == (len(names), len(partition.groups(grouping)))
        assert (membership.sum(dim=1) == 1).all() and (membership.sum(dim=0) >= 1).all()


@given(
    st.dictionaries(st.text("abcdefgh", min_size=1), st.integers(0, 100), min_size=1, max_size=12), st.floats(0.01, 1)
)
def test_nobody_outside_is_rarer_than_somebody_inside(counts, share):
    seen = [name for name, count in counts.items() if count]
    if not seen:
        return
    partition = Partition.by_least_frequent(counts, share)
    assert len(partition.privileged) == min(len(seen), max(1, round(share * len(counts))))
    outside = [counts[name] for name in partition.non_privileged if counts[name]]  # without an example: never inside
    assert all(counts[name] for name in partition.privileged)
    if outside:
        assert max(counts[name] for name in partition.privileged) <= min(outside)
