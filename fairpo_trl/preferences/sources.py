"""The published data sets: where they are, under which licence, and what converts them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fairpo_trl.preferences.converters import (
    finegrained_rlhf,
    global_opinions,
    helpsteer,
    hh_rlhf,
    multipref,
    safe_rlhf,
    tmu_gfm,
    truthfulqa,
    ultrafeedback,
)
from fairpo_trl.preferences.rows import Converted


@dataclass(frozen=True)
class Source:
    """
    A published data set.

    Attributes:
        title (`str`): Its name in print.
        licence (`str`): Its licence.
        convert (`Callable[..., Converted]`): Published rows -> canonical rows.
        columns (`tuple[str, ...]`): Columns by which its schema is recognised.
        hub_id (`str`, *optional*): Where it is on the Hub; `None` if it is not there.
        config (`str`, *optional*): Configuration on the Hub.
        subsets (`tuple[str, ...]`): Folders that are loaded one by one and name the attribute.
        also (`tuple[str, ...]`): Columns of a second form in which it is published.
    """

    title: str
    licence: str
    convert: Callable[..., Converted]
    columns: tuple[str, ...]
    hub_id: str | None = None
    config: str | None = None
    subsets: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    def fits(self, columns: Collection[str]) -> bool:
        """Whether rows with these columns are of the published schema."""
        return set(self.columns) <= set(columns) or bool(self.also and set(self.also) <= set(columns))


SOURCES = {
    "ultrafeedback": Source(
        "UltraFeedback", "MIT", ultrafeedback.convert, ("instruction", "completions"), hub_id="openbmb/UltraFeedback"
    ),
    "helpsteer2": Source(
        "HelpSteer2",
        "CC-BY-4.0",
        helpsteer.convert_helpsteer2,
        ("prompt", "response", *helpsteer.ATTRIBUTES),
        hub_id="nvidia/HelpSteer2",
    ),
    "helpsteer3": Source(
        "HelpSteer3",
        "CC-BY-4.0",
        helpsteer.convert_helpsteer3,
        ("context", "response1", "response2", "overall_preference"),
        hub_id="nvidia/HelpSteer3",
        config="preference",
    ),
    "safe_rlhf": Source(
        "PKU-SafeRLHF",
        "CC-BY-NC-4.0",
        safe_rlhf.convert,
        ("response_0", "response_1", "better_response_id", "safer_response_id"),
        hub_id="PKU-Alignment/PKU-SafeRLHF",
        config="default",
    ),
    "hh_rlhf": Source(
        "hh-rlhf", "MIT", hh_rlhf.convert, ("chosen", "rejected"), hub_id="Anthropic/hh-rlhf", subsets=hh_rlhf.SUBSETS
    ),
    "multipref": Source(
        "MultiPref",
        "ODC-By",
        multipref.convert,
        ("comparison_id", "completion_a", "completion_b", "normal_worker_annotations", "expert_worker_annotations"),
        hub_id="allenai/multipref",
        config="default",
    ),
    "global_opinions": Source(
        "GlobalOpinions",
        "CC-BY-NC-SA-4.0",
        global_opinions.convert,
        ("question", "selections", "options"),
        hub_id="Anthropic/llm_global_opinions",
    ),
    "finegrained_rlhf": Source(
        "FineGrainedRLHF",
        "Apache-2.0",
        finegrained_rlhf.convert,
        ("question", "prediction 1", "feedback", "preference"),
    ),
    "truthfulqa": Source(
        "TruthfulQA judgements",
        "Apache-2.0",
        truthfulqa.convert,
        ("prompt", "response", *truthfulqa.ATTRIBUTES),
        also=("prompt", "completion"),
    ),
    "tmu_gfm": Source(
        "TMU-GFM-Dataset",
        "none stated",
        tmu_gfm.convert,
        ("source", "output", "ave_g", "ave_f", "ave_m"),
        also=("prompt", "response", *tmu_gfm.ATTRIBUTES),
    ),
}
"""The published data sets, by the name that `load_preferences` and `--dataset` know."""
