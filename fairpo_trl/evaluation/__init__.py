"""What a model writes, and whether it is better: completions, judges, win rates, guards. Knows no trainer."""

from fairpo_trl.evaluation.comparison import Comparison, compare_by_pairs, compare_by_scores, score_writings
from fairpo_trl.evaluation.completions import Completion, sample_completions
from fairpo_trl.evaluation.judges import JudgeSpec, PairJudge, ScoreJudge, Verdicts, assign_judges, parse_judge
from fairpo_trl.evaluation.length_control import length_controlled_win_rate
from fairpo_trl.evaluation.summary import WinRateRow, WinRateTable, compare_scores, compare_win_values
from fairpo_trl.evaluation.text_guards import TextGuards, mean_token_log_prob, text_guards
from fairpo_trl.evaluation.win_rate import Estimate, paired_bootstrap, win_rate


__all__ = [
    "Comparison",
    "Completion",
    "Estimate",
    "JudgeSpec",
    "PairJudge",
    "ScoreJudge",
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
    "text_guards",
    "win_rate",
]
