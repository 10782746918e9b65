"""Intervals of win rates hold what they promise: simulated evaluations with a known truth, fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import WORDS, make_model, make_tokenizer
from numpy.typing import NDArray

from fairpo_trl.evaluation import compare_scores, paired_bootstrap, sample_completions, win_rate
from fairpo_trl.evaluation.length_control import length_controlled_win_rate


PROMPTS, DATA_SETS = 200, 4000
RESAMPLES = 300  # the ends of an interval are then a little noisy, which costs about 0.3 % of coverage


def win_values(rng: np.random.Generator, truth: float) -> NDArray[np.float64]:
    """`[data sets, prompts]` means of two outcomes that share their prompt; a fifth of the outcomes are ties.

    A prompt's chance to win is `truth` plus or minus 0.1, so the mean outcome is (4/5) chance + (1/5) (1/2).
    """
    chance = truth + rng.choice([-0.1, 0.1], size=(DATA_SETS, PROMPTS, 1))
    won = rng.uniform(size=(DATA_SETS, PROMPTS, 2)) < chance
    tied = rng.uniform(size=won.shape) < 0.2
    return np.where(tied, 0.5, won).mean(axis=2)


@pytest.mark.parametrize("chance", [0.5, 0.85])
def test_the_interval_of_a_win_rate_covers_it_95_times_in_100(chance: float) -> None:
    truth, covered = 0.8 * chance + 0.1, 0
    for i, values in enumerate(win_values(np.random.default_rng(1), chance)):
        estimate = paired_bootstrap(values, n=RESAMPLES, seed=i)
        covered += estimate.low <= truth <= estimate.high
    assert 0.93 <= covered / DATA_SETS <= 0.97


def test_the_interval_of_a_difference_covers_it_95_times_in_100() -> None:
    """Trained less reference against itself: a prompt is easy or hard (by 0.2) for both; the gain is 0.1."""
    rng = np.random.default_rng(2)
    chance = 0.6 + rng.choice([-0.2, 0.2], size=(DATA_SETS, PROMPTS, 1))
    control = (rng.uniform(size=(DATA_SETS, PROMPTS, 2)) < chance).mean(axis=2)
    trained = (rng.uniform(size=(DATA_SETS, PROMPTS, 2)) < chance + 0.1).mean(axis=2)
    covered = 0
    for i, (values, baseline) in enumerate(zip(trained, control, strict=True)):
        estimate = paired_bootstrap(values, baseline, n=RESAMPLES, seed=i)
        covered += estimate.low <= 0.1 <= estimate.high
    assert 0.93 <= covered / DATA_SETS <= 0.97


def test_a_model_against_itself_is_significant_no_more_often_than_one_time_in_twenty() -> None:
    """Scores of one model from three seeds, 2,000 evaluations of 60 prompts with 2 samples.

    At the nominal 5 % the share of intervals beside 0 has the standard deviation sqrt(.05 * .95 / 2000) = .5 %; a
    percentile interval of 60 prompts and 300 resamples is a little narrow (about 1 % more). 5 + 1 + 3 * .5 = 7.5 %
    bounds it.
    """
    rng = np.random.default_rng(3)
    difficulty = rng.normal(size=(2000, 60, 1))
    first, again, other = difficulty + rng.normal(size=(3, 2000, 60, 2))
    beside_half = beside_zero = 0
    for i in range(2000):
        values, control = win_rate(other[i], first[i]), win_rate(again[i], first[i])
        estimate = paired_bootstrap(control, n=RESAMPLES, seed=i)
        beside_half += not estimate.low <= 0.5 <= estimate.high
        estimate = paired_bootstrap(values, control, n=RESAMPLES, seed=i)
        beside_zero += not estimate.low <= 0 <= estimate.high
    assert beside_half / 2000 <= 0.075 and beside_zero / 2000 <= 0.075


def test_a_language_model_against_itself_with_other_draws_is_as_good_as_itself() -> None:
    """A real model, 15 times three seeds, two attributes of its texts.

    Of 30 intervals of each kind 1.5 miss at the nominal rate, with the standard deviation 1.2; more than 5 would be
    three standard deviations above it.
    """
    model, tokenizer = make_model(dtype=torch.float32), make_tokenizer()
    prompts = [f"{WORDS[i % len(WORDS)]} {WORDS[(7 * i + 3) % len(WORDS)]}" for i in range(60)]
    attributes = {"short": lambda text: -len(text.split()), "warm": lambda text: text.count("a")}
    missed_half = missed_zero = 0
    for seed in range(0, 45, 3):
        texts = [
            sample_completions(model, tokenizer, prompts, max_new_tokens=12, seed=seed + i, progress=False)
            for i in range(3)
        ]
        for measure in attributes.values():
            reference, again, other = ([[measure(c.text) for c in row] for row in rows] for rows in texts)
            row = compare_scores("x", "privileged", "judge", trained=other, reference=reference, reference_again=again)
            missed_half += not row.trained.low <= 0.5 <= row.trained.high
            missed_zero += not row.difference.low <= 0 <= row.difference.high
        # The very same texts are not a little better or worse: the difference is 0 exactly.
        assert paired_bootstrap(win_rate(again, reference), win_rate(again, reference)).high == 0
    assert missed_half <= 5 and missed_zero <= 5


def test_the_interval_at_equal_length_covers_the_truth() -> None:
    """200 data sets: the covered share has the standard deviation sqrt(.05 * .95 / 200) = 1.5 %; three are 4.6 %."""
    rng = np.random.default_rng(4)
    covered = 0
    for i in range(200):
        differences = 0.5 + rng.normal(size=PROMPTS)
        odds = np.log(0.6 / 0.4) + 0.8 * differences
        outcomes = (rng.uniform(size=PROMPTS) < 1 / (1 + np.exp(-odds))).astype(float)
        estimate = length_controlled_win_rate(outcomes, differences, n=150, seed=i)
        covered += estimate.low <= 0.6 <= estimate.high
    assert 0.904 <= covered / 200 <= 0.996
