"""The promise's statistics: bounds against numbers worked out by hand, the rule against its definition, the power."""

from __future__ import annotations

import doctest
import functools
import math
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from scipy import stats

from fairpo_trl.evaluation import bounds, power, selection
from fairpo_trl.evaluation.bounds import Bound, Resampled, betting_wealth, lower_bounds, resampled_bound
from fairpo_trl.evaluation.power import chance_to_pass, prompts_needed
from fairpo_trl.evaluation.selection import Candidate, Held, assess, decide, select, select_in_order


def uniform(n=200, low=-0.5, high=0.5, seed=0):
    return np.random.default_rng(seed).uniform(low, high, n)


def shifted(mean, n=400, spread=0.2, seed=0):
    """Values with exactly this mean."""
    values = np.random.default_rng(seed).uniform(-spread, spread, n)
    return values - values.mean() + mean


def candidate(name, gain, **means):
    return Candidate(
        name, shifted(gain), {key: Held(shifted(mean, seed=i)) for i, (key, mean) in enumerate(means.items())}
    )


# ---- bounds ----


def test_the_t_bound_is_scipys_once_the_lowest_value_was_added():
    values = uniform(60)
    for level in (0.01, 0.05):
        expected = stats.ttest_1samp(values, 0).confidence_interval(1 - 2 * level).low
        assert lower_bounds(values, level=level, lowest=None) == pytest.approx(expected, abs=1e-12)
        expected = stats.ttest_1samp([*values, -1.0], 0).confidence_interval(1 - 2 * level).low
        assert lower_bounds(values, level=level) == pytest.approx(expected, abs=1e-12)


def test_values_without_any_spread_still_get_a_bound_below_their_mean_where_the_worst_is_known():
    # 30 prompts without a loss do not show that losses are rarer than 5 %: the rule of three says 10 %.
    assert lower_bounds(np.zeros(30)) < -0.05
    assert -0.05 < lower_bounds(np.zeros(200)) < 0
    assert lower_bounds(np.zeros(30), lowest=None) == 0


def test_the_bootstrap_bound_is_near_the_t_bound_of_nearly_normal_values():
    values = uniform(100, seed=3)
    t, bootstrap = lower_bounds(values), lower_bounds(values, "bootstrap")
    spread = np.std([*values, -1.0], ddof=1) / math.sqrt(101)
    assert abs(bootstrap - t) < 0.1 * spread
    assert lower_bounds(values, "bootstrap") == bootstrap


def test_the_bootstrap_resamples_the_same_examples_for_every_column():
    values = uniform(50)
    both = lower_bounds(np.stack([values, values], axis=1), "bootstrap")
    assert both[0] == both[1] == pytest.approx(lower_bounds(values, "bootstrap"), abs=1e-12)


def test_the_wealth_of_bets_is_that_of_a_loop():
    values = uniform(40, 0.0, 1.0, seed=1)
    level, mean, n = 0.05, 0.4, 40
    wealth, most, seen = 1.0, 0.0, []
    sum_of_squares = 0.0
    for x in values:
        variance = (0.25 + sum_of_squares) / (len(seen) + 1)
        bet = min(math.sqrt(2 * math.log(1 / level) / (n * variance)), 0.75 / mean)
        wealth *= 1 + bet * (x - mean)
        most = max(most, wealth)
        seen.append(x)
        sum_of_squares += (x - (0.5 + sum(seen)) / (len(seen) + 1)) ** 2
    assert betting_wealth(values[:, None], mean, level)[0] == pytest.approx(most, rel=1e-12)


def test_the_betting_bound_is_where_the_wealth_reaches_one_over_the_level():
    values = uniform(300, seed=2)
    found = float(lower_bounds(values, "betting"))
    shuffled = ((values + 1) / 2)[np.random.default_rng(0).permutation(300)][:, None]
    assert betting_wealth(shuffled, (found + 1) / 2 - 1e-6, 0.05)[0] >= 20
    assert betting_wealth(shuffled, (found + 1) / 2 + 1e-6, 0.05)[0] < 20
    assert found < lower_bounds(values)  # it holds for every distribution, which costs width


def test_the_empirical_bernstein_bound_is_that_of_a_loop():
    values = uniform(50, seed=1)
    shares = ((values + 1) / 2)[np.random.default_rng(0).permutation(50)]
    level, best, stakes, total, costs, seen, squares = 0.05, 0.0, 0.0, 0.0, 0.0, [], 0.0
    for x in shares:
        mean = (0.5 + sum(seen)) / (len(seen) + 1)
        variance = (0.25 + squares) / (len(seen) + 1)
        stake = min(math.sqrt(2 * math.log(1 / level) / (50 * variance)), 0.5)
        costs += 4 * (x - mean) ** 2 * (-math.log(1 - stake) - stake) / 4
        total += stake * x
        stakes += stake
        best = max(best, (total - math.log(1 / level) - costs) / stakes)
        seen.append(x)
        squares += (x - (0.5 + sum(seen)) / (len(seen) + 1)) ** 2
    assert lower_bounds(values, "bernstein") == pytest.approx(2 * best - 1, abs=1e-12)
    assert lower_bounds(values, "bernstein") < lower_bounds(values, "betting")


@pytest.mark.parametrize("examples", [30, 100])
def test_bets_seldom_win_when_the_mean_is_what_is_bet_against(examples):
    values = (np.random.default_rng(0).random((examples, 20_000)) < 0.7).astype(float)
    won = (betting_wealth(values, 0.7, 0.05) >= 20).mean()
    assert 0 < won <= 0.05


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        ([0.1], {}, "at least two examples"),
        ([], {}, "at least two examples"),
        ([0.1, float("nan")], {}, "example 1 is not finite"),
        ([0.1, 1.5], {}, "example 1 lies outside"),
        (["a", "b"], {}, "must be numbers"),
        ([0.1, 0.2], {"level": 0.5}, "`level`"),
        ([0.1, 0.2], {"bound": "normal"}, "`bound`"),
        ([0.1, 0.2], {"bound": "betting", "lowest": None}, "needs the range"),
        ([0.1, 0.2], {"bound": "bernstein", "highest": None}, "needs the range"),
    ],
)
def test_bad_values_are_named(values, options, words):
    with pytest.raises(ValueError, match=words):
        lower_bounds(values, **options)


@pytest.mark.parametrize("bound", get_args(Bound))
@pytest.mark.parametrize(("kind", "prompts"), [("win rates", 100), ("rare losses", 100), ("rare losses", 220)])
def test_a_violation_passes_at_most_at_the_level(bound, kind, prompts):
    # A plain t bound lets the rare losses pass in 12 % and 7 %. More settings: benchmarks/selection_power.py.
    runs, margin = 4000, 0.05
    rng = np.random.default_rng(5)
    if kind == "win rates":
        steps = np.arange(-8, 9) / 8
        chances = np.exp(-(((steps + margin) / 0.4) ** 2) / 2)
        values = rng.choice(steps, p=chances / chances.sum(), size=(prompts, runs))
        values += -margin - steps @ chances / chances.sum()  # exactly at the margin; clipping at -1 costs nothing
        values = values.clip(-1, 1)
    else:
        values = -(rng.random((prompts, runs)) < margin).astype(float)
    if bound == "betting":
        passed = betting_wealth((values + 1) / 2, (1 - margin) / 2, 0.05) >= 20
    else:
        passed = lower_bounds(values, bound, resamples=500) > -margin
    assert passed.mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


def test_a_percentile_of_resamples_is_that_of_the_bootstrap():
    values = uniform(100, seed=3)
    drawn = np.random.default_rng(1).multinomial(100, np.full(100, 0.01), size=10_000) @ values / 100
    found = resampled_bound([*drawn, math.nan], 100)
    assert found == pytest.approx(float(lower_bounds(values, "bootstrap", lowest=None)), abs=0.003)
    with pytest.raises(ValueError, match="two examples and a resample"):
        resampled_bound([math.nan], 100)


def test_what_is_no_mean_has_a_bootstrap_only_and_the_power_of_its_spread():
    values = uniform(400, seed=3)
    drawn = np.random.default_rng(1).multinomial(400, np.full(400, 1 / 400), size=4000) @ values / 400
    difference = Resampled(float(values.mean()), drawn, 400)
    held = {"AP": Held(difference, margin=0.1, lowest=None)}
    test = assess(Candidate("a", difference, held), bound="bootstrap").held[0]
    assert test.spread == pytest.approx(values.std(), rel=0.05) and test.examples == 400
    assert test.needed == prompts_needed(test.spread, difference=test.mean, margin=0.1, lowest=None)
    worst = np.random.default_rng(1).multinomial(401, np.full(401, 1 / 401), size=4000) @ [*values, -1] / 401
    held = {"AP": Held(Resampled(float(values.mean()), worst, 400), margin=0.1)}
    added = assess(Candidate("a", difference, held), bound="bootstrap").held[0]
    assert added.bound < test.bound and added.spread == pytest.approx(values.std(), rel=0.05)
    with pytest.raises(ValueError, match="no mean over examples: only the bound `bootstrap`"):
        assess(Candidate("a", difference, held))


# ---- the rule ----


def test_the_boldest_that_passes_is_chosen_and_nothing_after_a_failure_is_tested():
    path = [
        candidate("a", 0.1, kind=0.0, clear=0.0),
        candidate("b", 0.2, kind=-0.01, clear=0.02),
        candidate("c", 0.3, kind=-0.2, clear=0.1),
        candidate("d", 0.4, kind=0.1, clear=0.1),
    ]
    found = select(path)
    assert [test.status for test in found.candidates] == ["passed", "passed", "failed", "untested"]
    assert found.chosen == "b"
    stopped, measure = found.stopped_by
    assert (stopped.name, measure.measure) == ("c", "kind")


def test_the_highest_gain_among_those_that_passed_is_chosen_not_the_last():
    assert select([candidate("a", 0.2, kind=0.0), candidate("b", 0.1, kind=0.0)]).chosen == "a"


def test_without_a_gain_the_reference_is_the_answer():
    equal = Candidate("a", np.zeros(400), {"kind": Held(shifted(0.0))})
    assert select([equal, candidate("b", -0.1, kind=0.0)]).chosen is None


def test_every_measure_is_tested_at_the_level_itself_and_every_one_must_pass():
    values = shifted(-0.03)
    alone = assess(Candidate("a", values, {"kind": Held(values)})).held[0]
    twelve = assess(Candidate("a", values, {f"m{i}": Held(values) for i in range(12)})).held
    assert {test.bound for test in twelve} == {alone.bound}
    assert assess(candidate("a", 0.1, kind=0.0, clear=-0.2)).status == "failed"


def test_a_bound_at_minus_the_margin_does_not_pass():
    values = shifted(-0.01)
    bound = float(lower_bounds(values))
    assert not assess(Candidate("a", values, {"kind": Held(values, margin=-bound)})).held[0].passed
    assert assess(Candidate("a", values, {"kind": Held(values, margin=-bound + 1e-9)})).held[0].passed


def test_the_gain_on_the_selection_prompts_is_bounded_for_all_that_might_have_been_chosen():
    path = [candidate(name, 0.1, kind=0.0) for name in "abcd"]
    assert select(path).candidates[0].gain_bound == lower_bounds(path[0].gain, level=0.05 / 4)


def test_a_measure_without_a_range_takes_t_and_refuses_bets():
    heavy = Held(np.random.default_rng(0).normal(0, 3, 300), margin=1.0, lowest=None, highest=None)
    assert assess(Candidate("a", uniform(), {"log-prob": heavy})).held[0].passed
    with pytest.raises(ValueError, match="'log-prob' of 'a': The bound `betting` needs the range"):
        assess(Candidate("a", uniform(), {"log-prob": heavy}), bound="betting")


def test_rare_large_losses_are_marked_as_far_from_normal():
    values = np.zeros(300)
    values[:4] = -1
    test = assess(Candidate("a", uniform(), {"kind": Held(values)})).held[0]
    assert not test.normal
    assert assess(Candidate("a", uniform(), {"kind": Held(uniform())})).held[0].normal


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ([candidate("a", 0.1, kind=0.0), candidate("a", 0.1, kind=0.0)], "same name"),
        ([candidate("a", 0.1, kind=0.0), candidate("b", 0.1, clear=0.0)], "'b' holds other measures"),
        ([Candidate("a", uniform(), {})], "Nothing is held: a promise"),
        ([Candidate("a", uniform(), {"kind": Held(uniform(), margin=0.0)})], "margin must be positive"),
        ([Candidate("a", [0.1, math.inf], {"kind": Held(uniform())})], "The gain of 'a'"),
        ([Candidate("a", uniform(), {"kind": Held([0.0, 2.0])})], "'kind' of 'a': .*outside"),
    ],
)
def test_what_cannot_be_tested_is_named(path, words):
    with pytest.raises(ValueError, match=words):
        select(path)


def test_tests_that_end_at_the_first_failure_decide_the_same():
    path = [candidate("a", 0.1, kind=0.0), candidate("b", 0.2, kind=-0.2), candidate("c", 0.3, kind=0.0)]
    tests = [assess(c, candidates=3) for c in path]
    whole, cut = decide(tests), decide(tests[:2])
    assert whole.chosen == cut.chosen == "a"
    assert whole.candidates[:2] == cut.candidates


def test_a_candidate_is_measured_only_if_all_before_it_passed():
    measured = []

    def measure(name, kind):
        measured.append(name)
        return candidate(name, 0.1, kind=kind)

    path = [functools.partial(measure, name, kind) for name, kind in (("a", 0.0), ("b", -0.2), ("c", 0.0))]
    found = select_in_order(path)
    assert measured == ["a", "b"] and [test.status for test in found.candidates] == ["passed", "failed"]
    every = select_in_order(path, measure_all=True)
    assert [test.status for test in every.candidates] == ["passed", "failed", "untested"]
    assert every.candidates[0] == found.candidates[0]  # the number of candidates is that of the whole path


def test_on_pure_noise_a_gain_is_claimed_at_most_at_the_level():
    # The reference scaled by nothing: six candidates that are draws of it. 4,000 runs: benchmarks/selection_power.py.
    runs, claimed, rng = 300, 0, np.random.default_rng(2)
    for _ in range(runs):
        draws = rng.choice([-0.5, 0.0, 0.5], size=(6, 100))
        path = [Candidate(f"{i}", gain, {"kind": Held(gain, margin=0.9)}) for i, gain in enumerate(draws)]
        found = select(path)
        claimed += found.chosen_test is not None and found.chosen_test.gain_bound > 0
    assert claimed / runs <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


# ---- power ----


def test_the_power_is_that_of_a_simulation():
    rng = np.random.default_rng(0)
    values = rng.choice([-1, -0.5, 0, 0.5, 1], p=[0.05, 0.15, 0.6, 0.15, 0.05], size=(300, 20_000))
    spread = math.sqrt(2 * (0.05 + 0.15 * 0.25))
    passed = (lower_bounds(values) > -0.05).mean()
    assert chance_to_pass(300, spread) == pytest.approx(passed, abs=0.015)


def test_the_number_of_prompts_is_the_smallest_with_the_power():
    needed = prompts_needed(0.4, margin=0.05, power=0.9)
    assert chance_to_pass(needed, 0.4) >= 0.9 > chance_to_pass(needed - 1, 0.4)
    assert prompts_needed(0.4, difference=-0.05) is None
    assert prompts_needed(0.4, difference=-0.0499) is None
    assert prompts_needed(0.0, lowest=None) == 2
    assert prompts_needed(0.4, margin=0.1) < needed


def test_the_number_of_prompts_is_said_of_what_failed():
    test = assess(candidate("a", 0.1, kind=-0.045)).held[0]
    assert not test.passed
    assert test.needed == prompts_needed(test.spread, difference=test.mean)
    assert test.needed_if_equal == prompts_needed(test.spread) < test.needed


# ---- as a library ----


@pytest.mark.parametrize("module", [bounds, power, selection])
def test_the_examples_run(module):
    assert doctest.testmod(module).failed == 0


def test_the_statistics_load_neither_torch_nor_transformers():
    code = "import sys; from fairpo_trl.evaluation import select; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
