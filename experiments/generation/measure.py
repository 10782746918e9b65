"""
The comparison's engine: trains one row, keeps its adapter after given steps, measures what the adapter writes at given
scales, and keeps each point as one JSON file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import yaml
from demo import evaluation
from demo.prompts import load_prompts
from demo.smollm2 import demo_model_path
from generation_fairpo import DEMO_CONFIG
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig

from experiments import points
from fairpo_trl import FairPOConfig
from fairpo_trl.commands.generation import make_parser
from fairpo_trl.evaluation import Completion
from fairpo_trl.generation.run import train

from .variants import CONTROLS, write_pairs


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
        scales (`tuple[float, ...]`): What the adapter of the end is multiplied by when it is measured; the adapters
            of the other stops are measured as they are.
        tuned (`bool`): Whether the row takes FairPO's options from the demo's YAML. The others share model, data,
            beta, learning rate, steps and batches with it, and start from the defaults of FairPO's options: tuning
            the demo leaves their points as they are.
        pairs (`str`, *optional*): A variant of the shipped pairs that it trains on, of `variants.PAIRS`.
        control (`str`, *optional*): A way to get other completions from the reference without training, of
            `variants.CONTROLS`.
        judged_as (`tuple[str, ...]`, *optional*): Attributes that count as privileged in the tables, where they are
            not those that it is trained for.
    """

    main: bool = False
    stops: tuple[int, ...] = ()
    scales: tuple[float, ...] = (1.0,)
    tuned: bool = False
    pairs: str | None = None
    control: str | None = None
    judged_as: tuple[str, ...] | None = None


@dataclass(frozen=True, order=True)
class At:
    """Where on its way a row is measured: after so many steps, with its adapter multiplied by so much."""

    step: int
    scale: float = 1.0


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
        """Everything that training depends on, besides seed and step: at a constant rate not even where it ends."""
        if row.control is not None:
            return {"control": row.control}
        left_out = ("output_dir", "overwrite_output_dir", "seed", "dataset_name")
        kept = {key: value for key, value in self._config(row).items() if key not in left_out}
        settings = {**kept, **row.options, "method": row.method, "data": self.data_hash}
        if row.pairs is not None:
            settings["pairs"] = row.pairs
        if settings["lr_scheduler_type"] == "constant":
            del settings["max_steps"]
        return settings

    def path(self, row: Row, seed: int, at: At) -> Path:
        """File of one point."""
        scale = "" if at.scale == 1 else f"-x{at.scale:g}"
        name = f"{self.split}-{row.name}-seed{seed}-step{at.step}{scale}"
        return self.points.path(name, {**self._settings(row), "samples": self.samples})

    def end(self, row: Row) -> int:
        """Steps of a row."""
        return 0 if row.control is not None else int(row.options.get("max_steps", self.demo["max_steps"]))

    def measured(self, row: Row) -> list[At]:
        """Where a row is measured: at its stops, and at its end with each scale."""
        end = self.end(row)
        return sorted({*(At(step) for step in row.stops), *(At(end, scale) for scale in row.scales)})

    def complete(self, row: Row, seed: int) -> bool:
        """Whether every point of the run is there."""
        return all(self.path(row, seed, at).exists() for at in self.measured(row))

    def read(self, row: Row, seed: int, at: At) -> dict[str, Any] | None:
        """One point, or `None` if it is not there."""
        path = self.path(row, seed, at)
        return self.points.read(path) if path.exists() else None

    def adapter(self, row: Row, seed: int, step: int) -> Path:
        """Folder of what was trained after so many steps; the same for every split and number of samples."""
        return self.points.path(f"adapters/{row.name}-seed{seed}-step{step}", self._settings(row), "")

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
        _, origin = demo_model_path()
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
        model, tokenizer = self.base()
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

    def base(self) -> tuple[Any, Any]:
        """The reference and its tokenizer."""
        path, _ = demo_model_path()
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        return model, AutoTokenizer.from_pretrained(path, trust_remote_code=False)

    def run(self, row: Row, seed: int) -> None:
        """Trains one row with one seed, if that is not done yet, and measures what is missing."""
        missing = [at for at in self.measured(row) if not self.path(row, seed, at).exists()]
        if row.control is not None:
            model, tokenizer = self.base()
            completions = CONTROLS[row.control](model, tokenizer, self.prompts, self.samples)
            writing = evaluation.judge(self.prompts, completions)
            self._keep(row, seed, missing[0], evaluation.guards(model, tokenizer, self.prompts, writing), {}, writing)
            return
        if not all(self.adapter(row, seed, at.step).is_dir() for at in missing):
            self.train(row, seed)
        model, tokenizer = self.base()
        for step, places in groupby(missing, key=lambda at: at.step):
            adapter = self.adapter(row, seed, step)
            adapted: Any = PeftModel.from_pretrained(model, str(adapter))
            training = self.points.read(adapter / "training.json")
            for at in places:
                with nullcontext() if at.scale == 1 else rescale_adapter_scale(adapted, at.scale):
                    writing = evaluation.write(
                        adapted,
                        tokenizer,
                        self.prompts,
                        seed=evaluation.FRESH_SEED,
                        samples=self.samples,
                        desc=row.name,
                    )
                    guards = evaluation.guards(adapted, tokenizer, self.prompts, writing)
                self._keep(row, seed, at, guards, training, writing)
            model = adapted.unload()  # the base as it was

    def _keep(
        self,
        row: Row,
        seed: int,
        at: At,
        guards: dict[str, float],
        training: dict[str, Any],
        writing: evaluation.Writing,
    ) -> None:
        about = {"row": row.name, "seed": seed, "step": at.step, "scale": at.scale, "settings": self._settings(row)}
        self.points.write(self.path(row, seed, at), {**about, **training, "guards": guards, **writing.to_dict()})

    def train(self, row: Row, seed: int) -> None:
        """Trains one row with one seed and keeps its adapters."""
        path, _ = demo_model_path()
        output = self.output_dir(row, seed)
        config = output.with_suffix(".yaml")
        config.parent.mkdir(parents=True, exist_ok=True)
        config.write_text(yaml.safe_dump(self._config(row)), encoding="utf-8")
        overrides = {"output_dir": str(output), "seed": seed, "disable_tqdm": True, **row.options}
        if row.pairs is not None:
            file = self.folder / f"pairs-{row.pairs}-{self.data_hash}.jsonl"
            if not file.exists():
                write_pairs(row.pairs, evaluation.PAIRS_FILE, self.demo["privileged_attributes"], file)
            overrides["dataset_name"] = str(file)
        options = [
            text
            for name, value in overrides.items()
            for text in (f"--{name}", *(map(str, value) if isinstance(value, list) else [_option(value)]))
        ]
        script_args, training_args, model_args = make_parser().parse(
            ["--config", str(config), "--model_name_or_path", str(path), "--method", row.method, *options]
        )
        callback = _KeepAtStops({at.step: self.adapter(row, seed, at.step) for at in self.measured(row)})
        train(script_args, training_args, model_args, callbacks=[callback])


def _option(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict) else str(value)


class _KeepAtStops(TrainerCallback):
    """Keeps the adapter at the stops of a row, with its losses and weights up to there."""

    def __init__(self, folders: dict[int, Path]) -> None:
        self.folders, self.started = folders, time.time()
        self.history: list[dict[str, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        keep = ("weight/", "margin/attribute/", "group_loss/", "inside_hinge/role", "loss")
        entry = {k: v for k, v in (logs or {}).items() if k.startswith(keep)}
        self.history.append({"step": state.global_step, **entry})

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = self.folders.get(state.global_step)
        if folder is None or folder.is_dir():
            return
        draft = folder.with_name(f"{folder.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        kwargs["model"].save_pretrained(draft)
        points.Points.write(
            draft / "training.json", {"training_seconds": time.time() - self.started, "history": self.history}
        )
        draft.rename(folder)  # a folder under its name is whole
