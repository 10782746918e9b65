"""What a model writes, and whether it is better: completions, scores against a reference, guards. Knows no trainer."""

from fairpo_trl.evaluation.completions import Completion, sample_completions
from fairpo_trl.evaluation.summary import WinRateRow, WinRateTable, compare_scores
from fairpo_trl.evaluation.text_guards import TextGuards, mean_token_log_prob, text_guards
from fairpo_trl.evaluation.win_rate import Estimate, paired_bootstrap, win_rate


__all__ = [
    "Completion",
    "Estimate",
    "TextGuards",
    "WinRateRow",
    "WinRateTable",
    "compare_scores",
    "mean_token_log_prob",
    "paired_bootstrap",
    "sample_completions",
    "text_guards",
    "win_rate",
]
