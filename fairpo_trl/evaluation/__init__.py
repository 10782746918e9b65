"""What a model writes, and whether it is better: completions, judges, win rates, a tested promise. No trainer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from fairpo_trl.evaluation.comparison import Comparison, compare_by_pairs, compare_by_scores, score_writings
    from fairpo_trl.evaluation.completions import Completion, sample_completions
    from fairpo_trl.evaluation.guards import TextGuards, mean_token_log_prob, text_guards
    from fairpo_trl.evaluation.judges import JudgeSpec, PairJudge, ScoreJudge, Verdicts, assign_judges, parse_judge
    from fairpo_trl.evaluation.length_control import length_controlled_win_rate
    from fairpo_trl.evaluation.selection import Candidate, Held, Selection, select
    from fairpo_trl.evaluation.summary import WinRateRow, WinRateTable, compare_scores, compare_win_values
    from fairpo_trl.evaluation.win_rates import Estimate, paired_bootstrap, win_rate

# Loaded on first use: the statistics (`selection`) need numpy and scipy only, and torch alone takes seconds.
_MODULE_OF = {
    "Candidate": "fairpo_trl.evaluation.selection",
    "Comparison": "fairpo_trl.evaluation.comparison",
    "Completion": "fairpo_trl.evaluation.completions",
    "Estimate": "fairpo_trl.evaluation.win_rates",
    "Held": "fairpo_trl.evaluation.selection",
    "JudgeSpec": "fairpo_trl.evaluation.judges",
    "PairJudge": "fairpo_trl.evaluation.judges",
    "ScoreJudge": "fairpo_trl.evaluation.judges",
    "Selection": "fairpo_trl.evaluation.selection",
    "TextGuards": "fairpo_trl.evaluation.guards",
    "Verdicts": "fairpo_trl.evaluation.judges",
    "WinRateRow": "fairpo_trl.evaluation.summary",
    "WinRateTable": "fairpo_trl.evaluation.summary",
    "assign_judges": "fairpo_trl.evaluation.judges",
    "compare_by_pairs": "fairpo_trl.evaluation.comparison",
    "compare_by_scores": "fairpo_trl.evaluation.comparison",
    "compare_scores": "fairpo_trl.evaluation.summary",
    "compare_win_values": "fairpo_trl.evaluation.summary",
    "length_controlled_win_rate": "fairpo_trl.evaluation.length_control",
    "mean_token_log_prob": "fairpo_trl.evaluation.guards",
    "paired_bootstrap": "fairpo_trl.evaluation.win_rates",
    "parse_judge": "fairpo_trl.evaluation.judges",
    "sample_completions": "fairpo_trl.evaluation.completions",
    "score_writings": "fairpo_trl.evaluation.comparison",
    "select": "fairpo_trl.evaluation.selection",
    "text_guards": "fairpo_trl.evaluation.guards",
    "win_rate": "fairpo_trl.evaluation.win_rates",
}

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


def __getattr__(name: str) -> Any:
    if name in _MODULE_OF:
        return getattr(importlib.import_module(_MODULE_OF[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
