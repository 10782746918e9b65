"""The comparison's engine: trains one row, measures it after given steps, and keeps each point as one JSON file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from demo import evaluation
from demo.prompts import load_prompts
from demo.smollm2 import demo_model_path
from generation_fairpo import DEMO_CONFIG
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig

from experiments import points
from fairpo_trl import FairPOConfig
from fairpo_trl.commands.generation import make_parser
from fairpo_trl.evaluation import Completion
from fairpo_trl.generation.run import train


SHARED = {"privileged_attributes", "non_privileged_attributes", "attribute_column", "balanced_sampling"}
"""Options of FairPO that say what is trained on, and so are the same for every row."""

FAIRPO_OPTIONS = {option.name for option in dataclasses.fields(FairPOConfig)} - SHARED
FAIRPO_OPTIONS -= {option.name for option in dataclasses.fields(DPOConfig)}
"""Losses and balancing: a row that is not `tuned` has the defaults of these, whatever the demo's YAML says."""


@dataclass(frozen=True)
class Row(points.Row):
    """
    One method of the comparison, and when it is measured.

    Attributes:
        main (`bool`): Whether the row has three seeds.
        stops (`tuple[int, ...]`): Steps after which it is measured besides the end.
        tuned (`bool`): Whether the row takes FairPO's options from the demo's YAML. The others share model, data,
            beta, learning rate, steps and batches with it, and start from the defaults of FairPO's options: tuning
            the demo leaves their points as they are.
    """

    main: bool = False
    stops: tuple[int, ...] = ()
    tuned: bool = False


class Measurer:
    """
    Runs and measures rows of the comparison.

    Args:
        folder (`Path`): Where the points are kept.
        split (`str`): Split of the prompts and pairs that are measured on.
        samples (`int`): Completions per prompt.
    """

    def __init__(self, folder: Path, split: str, samples: int) -> None:
        self.folder, self.split, self.samples = folder, split, samples
        self.points = points.Points(folder)
        self.prompts = [row["prompt"] for row in load_prompts() if row["split"] == split]
        self.demo: dict[str, Any] = yaml.safe_load(DEMO_CONFIG.read_text(encoding="utf-8"))
        self.demo["dataset_name"] = str(evaluation.PAIRS_FILE)  # from wherever this is called
        self.data_hash = hashlib.sha256(evaluation.PAIRS_FILE.read_bytes()).hexdigest()[:12]

    # ---- files ----

    def _config(self, row: Row) -> dict[str, Any]:
        """What the row takes from the demo's YAML."""
        return {key: value for key, value in self.demo.items() if row.tuned or key not in FAIRPO_OPTIONS}

    def _settings(self, row: Row) -> dict[str, Any]:
        """Everything a point depends on, besides seed and step."""
        left_out = ("output_dir", "overwrite_output_dir", "seed", "dataset_name")
        kept = {key: value for key, value in self._config(row).items() if key not in left_out}
        return {**kept, **row.options, "method": row.method, "data": self.data_hash, "samples": self.samples}

    def path(self, row: Row, seed: int, step: int) -> Path:
        """File of one point."""
        return self.points.path(f"{self.split}-{row.name}-seed{seed}-step{step}", self._settings(row))

    def stops(self, row: Row) -> list[int]:
        """Steps after which a row is measured: its own, and the end."""
        return sorted({*row.stops, int(row.options.get("max_steps", self.demo["max_steps"]))})

    def complete(self, row: Row, seed: int) -> bool:
        """Whether every point of the run is there."""
        return all(self.path(row, seed, step).exists() for step in self.stops(row))

    def read(self, row: Row, seed: int, step: int) -> dict[str, Any] | None:
        """One point, or `None` if it is not there."""
        path = self.path(row, seed, step)
        return self.points.read(path) if path.exists() else None

    def output_dir(self, row: Row, seed: int) -> Path:
        """Where a run trains."""
        return self.folder / "runs" / f"{row.name}-seed{seed}"

    def _reference_path(self, seed: int) -> Path:
        return self.folder / f"{self.split}-reference-{len(self.prompts)}x{self.samples}-draws{seed}.json"

    # ---- work ----

    def write_references(self) -> None:
        """
        Samples the reference's two sets of completions once.

        Raises:
            ValueError: If the folder holds points of another model, other prompts or other pairs.
        """
        path, origin = demo_model_path()
        prompts = hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest()[:12]
        inputs = {"model": origin, f"{self.split} prompts": prompts, "pairs": self.data_hash}
        kept = self.folder / "inputs.json"
        known = self.points.read(kept) if kept.exists() else {}
        other = {name: (known[name], value) for name, value in inputs.items() if known.get(name, value) != value}
        if other:
            raise ValueError(
                f"The folder {self.folder.name!r} holds points of other inputs, (there, now): {other}. Choose another "
                "`--output_dir`."
            )
        self.points.write(kept, known | inputs)
        seeds = [s for s in (evaluation.REFERENCE_SEED, evaluation.FRESH_SEED) if not self._reference_path(s).exists()]
        if not seeds:
            return
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        for seed in seeds:
            writing = evaluation.write(
                model, tokenizer, self.prompts, seed=seed, samples=self.samples, desc=f"Reference, draws {seed}"
            )
            self.points.write(self._reference_path(seed), writing.to_dict())

    def reference(self, seed: int) -> evaluation.Writing:
        """The reference's completions with their scores."""
        return self.judged(self.points.read(self._reference_path(seed)))

    def judged(self, point: dict[str, Any]) -> evaluation.Writing:
        """The completions of a file, scored again (scores are never trusted to a file)."""
        completions = [
            [Completion(text, tuple(ids), ended) for text, ids, ended in row] for row in point["completions"]
        ]
        return evaluation.judge(self.prompts, completions)

    def run(self, row: Row, seed: int) -> None:
        """Trains one row with one seed and measures it at its stops."""
        path, _ = demo_model_path()
        output = self.output_dir(row, seed)
        config = output.with_suffix(".yaml")
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(self._config(row)), encoding="utf-8")
        overrides = {"output_dir": str(output), "seed": seed, "disable_tqdm": True, **row.options}
        options = [
            text
            for name, value in overrides.items()
            for text in (f"--{name}", *(value if isinstance(value, list) else [_option(value)]))
        ]
        script_args, training_args, model_args = make_parser().parse(
            ["--config", str(config), "--model_name_or_path", str(path), "--method", row.method, *options]
        )
        callback = _MeasureAtStops(self, row, seed)
        callback.started = time.time()
        train(script_args, training_args, model_args, callbacks=[callback])


def _option(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


class _MeasureAtStops(TrainerCallback):
    """Measures the model at the stops of its row; training goes on unchanged, since sampling has its own draws."""

    def __init__(self, measurer: Measurer, row: Row, seed: int) -> None:
        self.measurer, self.row, self.seed, self.started, self.measuring = measurer, row, seed, 0.0, 0.0
        self.history: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        keep = ("weight/", "margin/attribute/", "group_loss/", "inside_hinge/role", "loss")
        entry = {k: v for k, v in (logs or {}).items() if k.startswith(keep)}
        self.history.append({"step": state.global_step, **entry})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        measurer, row = self.measurer, self.row
        if state.global_step not in measurer.stops(row) or measurer.path(row, self.seed, state.global_step).exists():
            return
        begun = time.time()
        model, tokenizer = kwargs["model"], kwargs["processing_class"]
        writing = evaluation.write(
            model, tokenizer, measurer.prompts, seed=evaluation.FRESH_SEED, samples=measurer.samples, desc=row.name
        )
        point = {
            "row": row.name,
            "seed": self.seed,
            "step": state.global_step,
            "settings": measurer._settings(row),
            "training_seconds": begun - self.started - self.measuring,
            "guards": evaluation.guards(model, tokenizer, measurer.prompts, writing),
            "history": self.history,
            **writing.to_dict(),
        }
        self.measuring += time.time() - begun
        measurer.points.write(measurer.path(row, self.seed, state.global_step), point)
