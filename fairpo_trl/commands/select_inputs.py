"""What `fairpo select` works on: its options, the path of candidates, prompts that decide and others that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from fairpo_trl.commands.evaluate_inputs import EvaluateArguments, candidate_names, find_source
from fairpo_trl.core.options import check_choices, check_number, option
from fairpo_trl.evaluation.bounds import FINITE, Bound
from fairpo_trl.evaluation.completions import Prompt
from fairpo_trl.evaluation.judges import parse_entries
from fairpo_trl.evaluation.models import ModelSource
from fairpo_trl.evaluation.paths import Source, Step, listed_path, scaled_path
from fairpo_trl.evaluation.selection import SCALES, check_scales
from fairpo_trl.tables import number_of
from fairpo_trl.training.checkpoints import is_marked, list_checkpoints, require_complete


LEAST_PROMPTS = 20
"""Fewer selection prompts decide nothing at any margin that anybody wants."""


@dataclass
class SelectArguments(EvaluateArguments):
    """Which path of models is tested, with which margins, at which level."""

    path: str = option(
        "scales",
        "Candidates, from the safest: `scales` of one adapter (or of one full model between `reference` "
        "and itself), the `checkpoints` in a run's folder, or the `models` that are named, in their order.",
        choices=["scales", "checkpoints", "models"],
    )
    scales: list[float] | None = option(
        None,
        f"Scales of `path scales`, rising; 1 is the model as it is. Default: {' '.join(f'{s:g}' for s in SCALES)}.",
    )
    margin: float = option(0.05, "How far the win rate of a held attribute may fall; 0.05 is 5 points.")
    margins: list[str] | None = option(None, "Other margins for some attributes, as polite=0.1.")
    held_texts: str | None = option(
        None,
        "A file of documents whose log-probability per token is held too, against forgetting: JSON lines "
        "with `text`, or plain text with an empty line between two documents.",
    )
    held_texts_margin: float = option(0.02, "How far it may fall, in nats per token; 0.02 is 2 %% of perplexity.")
    held_pairs: bool = option(False, "Hold the DPO loss of the test pairs of every held attribute too, at beta 0.1.")
    held_pairs_margin: float = option(0.02, "How far such a loss may rise, in nats.")
    held_tasks: list[str] | None = option(
        None,
        "Tasks of EleutherAI's lm-eval (`fairpo_trl[lm-eval]`) that are held too, as TASK or TASK=METRIC, "
        "such as hellaswag=acc_norm.",
    )
    held_tasks_path: str | None = option(None, "A folder with task files of your own.")
    held_tasks_margin: float = option(0.02, "How far the mean of a task may fall; 0.02 is two points of accuracy.")
    level: float = option(0.05, "Largest chance that a model is handed over which breaks a margin.")
    bound: str = option(
        "t",
        "Kind of the confidence bounds: `t`, `bootstrap`, or `betting` and `bernstein`, which hold at any "
        "number of prompts and need more of them.",
        choices=list(get_args(Bound)),
    )
    max_prompts: int = option(500, "Distinct prompts that decide, at most, at random.")
    test_prompts: int = option(
        200,
        "Distinct prompts set aside: they decide nothing, and say what the chosen model does. At most "
        "half of all there are, and none where fewer than 20 would be left to decide; 0 for none.",
    )
    samples_per_prompt: int = option(2, "Completions of each prompt and model.")
    measure_all: bool = option(
        False, "Let candidates after the first failure write too, for the picture; they stay untested."
    )
    output_dir: str = option("fairpo-selection", "Results. The same command goes on in it where it stopped.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choices(self)
        if not 0 < self.level < 0.5:
            raise ValueError(f"`level` must be between 0 and 0.5, got {self.level}.")
        if not 0 < self.margin < 1:
            raise ValueError(f"`margin` must be between 0 and 1, got {self.margin}: it is a difference of win rates.")
        for name in ("held_texts", "held_pairs", "held_tasks"):
            check_number(f"{name}_margin", getattr(self, f"{name}_margin"), positive=True)
            if name != "held_tasks" and getattr(self, name) and self.bound in FINITE:
                raise ValueError(
                    f"`{name}` cannot be held with `bound {self.bound}`, which needs values of a known range: choose "
                    "`t`."
                )
        if self.held_tasks_path and not self.held_tasks:
            raise ValueError("`held_tasks_path` has no effect without `held_tasks`: name the tasks.")
        check_number("test_prompts", self.test_prompts, whole=True)
        if self.scales is not None:
            check_scales(self.scales)
        if self.scales is not None and self.path != "scales":
            raise ValueError(f"`scales` has no effect with `path {self.path}`: leave one of them out.")


def parse_margins(args: SelectArguments, held: Sequence[str]) -> dict[str, float]:
    """The margin of every held attribute; see [`~fairpo_trl.evaluation.judges.parse_entries`]."""

    def read(text: str) -> float | None:
        margin = number_of(text)
        return margin if margin is not None and 0 < margin < 1 else None

    form = "ATTRIBUTE=NUMBER with a number between 0 and 1"
    found = parse_entries("margins", form, args.margins or (), "held attribute", held, read)
    return {name: found.get(name, args.margin) for name in held}


def find_candidates(args: SelectArguments) -> dict[str, Source]:
    """
    The models that the path is made of: one, the checkpoints of a run, or several.

    Raises:
        FileNotFoundError: If one is not there.
        ValueError: If the number of models does not fit the path, or a checkpoint is damaged.
    """
    models = args.models or []
    if args.path == "models":
        return {name: find_source(args, model) for name, model in candidate_names(args).items()}
    if len(models) != 1:
        raise ValueError(
            f"`path {args.path}` takes one model, got {len(models)}: several in their order are `--path models`."
        )
    if args.path == "scales":
        return {"": find_source(args, models[0])}
    checkpoints = list_checkpoints(Path(models[0]).expanduser())
    if not checkpoints:
        raise ValueError(f"`path checkpoints`: the folder {models[0]!r} holds no checkpoint-* folders.")
    for folder in checkpoints:
        if is_marked(folder):  # one of ours: what was cut while it was written is no candidate
            require_complete(folder)
    return {folder.name: find_source(args, str(folder)) for folder in checkpoints}


def make_path(args: SelectArguments, sources: Mapping[str, Source], reference: Source) -> list[Step]:
    """
    The candidates in their order.

    Raises:
        ValueError: If the scales do not rise, or the adapter has none.
    """
    if args.path != "scales":
        return listed_path(sources)
    (trained,) = sources.values()
    if not isinstance(trained, ModelSource) or not isinstance(reference, ModelSource):
        raise ValueError(
            "`path scales` scales weights, which must be here: give models that write elsewhere as `models`."
        )
    return scaled_path(trained, reference, args.scales or SCALES, Path(args.output_dir) / "candidates")


def divide_prompts(args: SelectArguments, prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Prompt]]:
    """
    Prompts that decide, and others that do not.

    Raises:
        ValueError: If too few are left to decide.
    """
    order = np.random.default_rng(args.seed).permutation(len(prompts)).tolist()
    aside = min(args.test_prompts, len(prompts) // 2)
    if len(prompts) - aside < LEAST_PROMPTS:
        aside = 0
    deciding = sorted(order[aside : aside + args.max_prompts])
    if len(prompts) < LEAST_PROMPTS:
        raise ValueError(
            f"The split {args.dataset_test_split!r} has {len(prompts)} distinct prompts: nothing can be shown with "
            f"fewer than {LEAST_PROMPTS}, and little with fewer than some hundreds. Add prompts: with `--test_share "
            f"0.5`, in training as here, {2 * LEAST_PROMPTS} in all are the least. Another share here than in "
            "training would test on prompts that were trained on."
        )
    if len(deciding) < LEAST_PROMPTS:
        raise ValueError(
            f"`max_prompts` must be at least {LEAST_PROMPTS}, got {args.max_prompts}: nothing can be shown with fewer."
        )
    return [prompts[i] for i in deciding], [prompts[i] for i in sorted(order[:aside])]
