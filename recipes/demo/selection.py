"""The demo's verdict: the boldest scale of its adapter whose held attributes are shown not to be worse."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from fairpo_trl import FairPOTrainer, Partition
from fairpo_trl.commands.select import hand_over
from fairpo_trl.core.messages import unknown_names_message
from fairpo_trl.evaluation import Completion
from fairpo_trl.evaluation.models import LoadedModels, find_model, load_tokenizer
from fairpo_trl.evaluation.paths import Source, scaled_path
from fairpo_trl.evaluation.run import JudgedAttribute, run_selection
from fairpo_trl.evaluation.selection import check_scales
from fairpo_trl.evaluation.statement import statement
from fairpo_trl.evaluation.writing import Sampling, write_completions
from fairpo_trl.reporting.selection_results import SelectionResults

from . import evaluation, scorers
from .prompts import load_prompts


MAX_NEW_TOKENS, BATCH = 48, 128
"""As the pairs were sampled."""

CONFIG = Path(__file__).with_name("test.yaml")
FOLDER = "selection"
"""Folder of the test in that of the run."""


@dataclass
class DemoTest:
    """How the demo is tested; the numbers come from the table "How many prompts" in docs/promise.md."""

    select_prompts: int = field(default=120, metadata={"help": "Test prompts that decide. 0: no test."})
    report_prompts: int = field(
        default=100, metadata={"help": "Other test prompts, which the report is about; at most those that are left."}
    )
    select_samples: int = field(default=2, metadata={"help": "Completions of each prompt and model."})
    scales: list[float] = field(
        default_factory=lambda: [0.5, 1.0], metadata={"help": "Scales of the adapter that are tested, rising."}
    )
    margin: float = field(
        default=0.15, metadata={"help": "How far the win rate of a held attribute may fall, under either judge."}
    )
    level: float = field(default=0.05, metadata={"help": "Largest chance that what passes breaks a margin."})

    def __post_init__(self) -> None:
        check_scales(self.scales)
        if self.report_prompts < 20:
            raise ValueError(f"`report_prompts` must be at least 20, got {self.report_prompts}: fewer show nothing.")
        if not 0 < self.margin < 1 or not 0 < self.level < 0.5 or self.select_samples < 1 or self.select_prompts < 0:
            raise ValueError(
                "`margin` must be between 0 and 1, `level` between 0 and 0.5, `select_samples` at least 1 and "
                f"`select_prompts` at least 0, got {self.margin}, {self.level}, {self.select_samples} and "
                f"{self.select_prompts}."
            )


@dataclass(frozen=True)
class Written:
    """
    Completions on prompts that decide nothing, `[prompts][samples]` each; `trained` wrote with its adapter at `scale`.
    """

    prompts: list[Any]
    reference: list[list[Completion]]
    again: list[list[Completion]]
    trained: list[list[Completion]]
    scale: float = 1.0


def test_options() -> list[str]:
    """The options of `test.yaml` as arguments of a command line, on which later ones win."""
    options = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    values = ((f"--{name}", value if isinstance(value, list) else [value]) for name, value in options.items())
    return [str(text) for name, value in values for text in (name, *value)]


class ScorerJudge:
    """A scorer of the demo as a judge of the package."""

    def __init__(self, attribute: str, judge: str) -> None:
        known = evaluation.JUDGES[judge]
        if attribute not in known:
            raise ValueError(unknown_names_message("attribute", [attribute], list(known)))
        self.description = f"{judge.replace('_', ' ')} of {attribute}"
        self._score = known[attribute]

    def score(self, prompts: Sequence[Any], completions: Sequence[str]) -> NDArray[np.float64]:
        """`[completions]`, higher is more."""
        asked = [scorers.user_text(list(prompt)) for prompt in prompts]
        return np.asarray(self._score(asked, list(completions)), dtype=np.float64)


def divide(count: int, others: int) -> tuple[list[Any], list[Any]]:
    """Test prompts that decide, and others: by a hash of their names, so that neither is a choice."""
    rows = [row for row in load_prompts() if row["split"] == "test"]
    order = sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).hexdigest())
    return [row["prompt"] for row in order[:count]], [row["prompt"] for row in order[count : count + others]]


def select_demo(
    trainer: FairPOTrainer, model_path: str, privileged: Sequence[str], options: DemoTest, origin: str
) -> tuple[SelectionResults, Written]:
    """
    Tests scales of the adapter that was saved, by the code of `fairpo select`.

    Args:
        trainer (`FairPOTrainer`):
            After training and saving.
        model_path (`str`):
            Where the model is that it was trained from.
        privileged (`Sequence[str]`):
            Attributes that should have got better.
        options (`DemoTest`):
            How it is tested.
        origin (`str`):
            Where the model came from.

    Returns:
        `SelectionResults`, and for the report what the reference and what is handed over wrote on the prompts that
        decided nothing; the adapter as it is where nothing is handed over.
    """
    started, seed, run = time.time(), trainer.args.seed, Path(trainer.args.output_dir)
    output, models = run / FOLDER, LoadedModels()
    trained, reference = find_model(str(run), base_model=model_path), find_model(model_path)
    steps = scaled_path(trained, reference, options.scales, output / "candidates")
    deciding, aside = divide(options.select_prompts, options.report_prompts)
    partition = Partition.by_name(list(scorers.SCORERS), privileged)
    judged = [
        JudgedAttribute(
            name, f"{name}, {judge.replace('_', ' ')}", ScorerJudge(name, judge), name in privileged, options.margin
        )
        for name in (*partition.privileged, *partition.non_privileged)
        for judge in evaluation.JUDGES
    ]
    sampling = Sampling(options.select_samples, MAX_NEW_TOKENS)

    def completions(source: Source, label: str, prompts: Sequence[Any], seed: int) -> list[list[Completion]]:
        return write_completions(
            output / "completions",
            label,
            source.fingerprint(),
            lambda: models.open(source),
            load_tokenizer(source),
            prompts,
            sampling,
            seed=seed,
            batch_size=BATCH,
            desc=f"{label} writes",
        )

    def write(source: Source, label: str, prompts: Sequence[Any], seed: int) -> list[list[str]]:
        return [[completion.text for completion in row] for row in completions(source, label, prompts, seed)]

    outcome = run_selection(steps, reference, write, judged, deciding, aside, level=options.level, seed=seed)
    # As `run_selection` asks for them: what it wrote is read, only what it did not need is written now.
    first, second = -2 * seed - 2, -2 * seed - 1
    shown = next((step for step in steps if step.name == outcome.selection.chosen), None)
    written = Written(
        aside,
        completions(reference, "reference", aside, first),
        completions(reference, "reference", aside, second),
        completions(*((shown.make(), shown.label) if shown else (trained, "trained")), aside, second),
        shown.scale if shown and shown.scale is not None else 1.0,
    )
    models.close()
    name = origin.split(" from ")[0].rpartition("/")[2]  # a title has no room for how the weights came
    results = SelectionResults(
        model=f"{name}, {', '.join(privileged)} privileged",
        reference=name,
        data=f"{len(deciding)} test prompts of the demo",
        selection=outcome.selection,
        statement=statement(outcome.selection, outcome.test),
        scales={step.name: step.scale for step in steps},
        test=outcome.test,
        privileged=[item.measure for item in judged if item.privileged],
        lost_texts=outcome.lost_texts,
        judges={item.measure: item.judge.description for item in judged},
        settings={"prompts": len(deciding), "test_prompts": len(aside), "samples_per_prompt": options.select_samples}
        | {"weights": origin},
        seconds=time.time() - started,
    )
    hand_over(results, steps, output)
    return results, written
