"""What a model writes, and whether it is better: completions, judges, win rates, a tested promise. No trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fairpo_trl.lazy import lazily


if TYPE_CHECKING:
    from fairpo_trl.evaluation.comparison import Comparison, compare_by_pairs, compare_by_scores, score_writings
    from fairpo_trl.evaluation.completions import Completion, sample_completions
    from fairpo_trl.evaluation.guards import TextGuards, mean_token_log_prob, text_guards
    from fairpo_trl.evaluation.judges import JudgeSpec, PairJudge, ScoreJudge, Verdicts, assign_judges, parse_judge
    from fairpo_trl.evaluation.length_control import length_controlled_win_rate
    from fairpo_trl.evaluation.selection import Candidate, Held, Selection, select
    from fairpo_trl.evaluation.win_rates import (
        Estimate,
        WinRateRow,
        WinRateTable,
        compare_scores,
        compare_win_values,
        paired_bootstrap,
        win_rate,
    )

__all__ = [
    "Candidate",
    "Comparison",
    "Completion",
    "Estimate",
    "Held",
    "JudgeSpec",
    "PairJudge",
    "ScoreJudge",
    "Selection",
    "TextGuards",
    "Verdicts",
    "WinRateRow",
    "WinRateTable",
    "assign_judges",
    "compare_by_pairs",
    "compare_by_scores",
    "compare_scores",
    "compare_win_values",
    "length_controlled_win_rate",
    "mean_token_log_prob",
    "paired_bootstrap",
    "parse_judge",
    "sample_completions",
    "score_writings",
    "select",
    "text_guards",
    "win_rate",
]

# Loaded on first use: the statistics (`selection`) need numpy and scipy only, and torch alone takes seconds.
__getattr__ = lazily(
    __name__,
    {
        "comparison": "Comparison compare_by_pairs compare_by_scores score_writings",
        "completions": "Completion sample_completions",
        "guards": "TextGuards mean_token_log_prob text_guards",
        "judges": "JudgeSpec PairJudge ScoreJudge Verdicts assign_judges parse_judge",
        "length_control": "length_controlled_win_rate",
        "selection": "Candidate Held Selection select",
        "win_rates": "Estimate WinRateRow WinRateTable compare_scores compare_win_values paired_bootstrap win_rate",
    },
)
