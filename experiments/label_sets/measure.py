"""The engine of the comparison: reference and pairs of a seed once, then each method from them; one file a point."""

from __future__ import annotations

import copy
import gc
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from demo.smollm2 import demo_model_path
from label_sets.arguments import LabelSetArguments, make_parser
from label_sets.report import Written
from numpy.typing import NDArray
from trl import get_peft_config

from experiments import points
from fairpo_trl.label_sets.decoding import write_sets
from fairpo_trl.label_sets.items import load_items
from fairpo_trl.label_sets.pairs import build_pairs, check_order, preference_rows
from fairpo_trl.label_sets.reader import SetReading, count_problems
from fairpo_trl.label_sets.training import (
    SFTOptions,
    load_writer,
    rarest,
    train_on_pairs,
    train_on_sets,
    train_reference_on_sets,
)

from .classifier import classifier_sets


OF_THE_REFERENCE = (
    "use_peft lora_r lora_alpha lora_dropout lora_target_modules dtype sft_epochs sft_learning_rate sft_batch_size "
    "max_length max_set_tokens"
).split()
OF_THE_PAIRS = "samples_per_item sampling_temperature pairs_per_item privileged_share constrained_sampling".split()


@dataclass(frozen=True)
class Row(points.Row):
    """
    One method; besides those of the recipe there are `reference`, `sft` and `classifier`.

    Attributes:
        factor (`int`): How often SFT sees the items of privileged labels.
        constrained (`bool`): Whether decoding held to the form is measured too.
    """

    factor: int = 1
    constrained: bool = False


REFERENCE = Row("sft", "SFT (reference)", "reference", constrained=True)


class SetComparison:
    """
    Runs and keeps the points of a comparison.

    Args:
        folder (`Path`): Where the points are kept.
        config (`Path`): A YAML file of the recipe.
        data (`str` or `Path`): The items.
        model (`str`, *optional*): Instead of the demo's model.
    """

    def __init__(self, folder: Path, config: Path, data: str | Path, model: str | None = None) -> None:
        self.folder, self.config_file, self.points = folder, config, points.Points(folder)
        self.config: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))
        self.model, self.origin = (model, model) if model else demo_model_path()
        self.parts, self.vocabulary = load_items(data)
        self.arguments = self._arguments(0, {})
        self.partition = rarest(self.parts["train"], self.arguments[0].privileged_share)

    # ---- files ----

    def _depends(self, *settings: Any, data: Sequence[str] = ("train", "test")) -> list[Any]:
        return [[self.parts[name].content_hash() for name in data], *settings]

    def _of(self, names: Sequence[str]) -> dict[str, Any]:
        """The values in effect, also where the YAML file leaves the default."""
        return {name: next(getattr(part, name) for part in self.arguments if hasattr(part, name)) for name in names}

    def _reference_key(self) -> str:
        return points.key_of(self._depends(self.origin, self._of(OF_THE_REFERENCE), data=["train"]))

    def reference_path(self, seed: int) -> Path:
        """Folder of the reference."""
        return self.folder / "runs" / f"reference-seed{seed}-{self._reference_key()}"

    def pairs_path(self, seed: int) -> Path:
        """File of the pairs and of what was counted while they were built."""
        depends = self._depends(self._reference_key(), self._of(OF_THE_PAIRS), data=["train"])
        return self.points.path(f"pairs-seed{seed}", depends)

    def path(self, row: Row, seed: int) -> Path:
        """File of one point: its name holds a hash of everything it depends on."""
        if row.method == "classifier":
            depends = self._depends(row.name, list(self.partition.privileged))
        elif row.method == "reference":
            depends = self._depends(self._reference_key(), row.constrained)
        else:
            options = {**self.config, **row.options}
            kept = {k: v for k, v in options.items() if k not in ("output_dir", "seed", "constrained_decoding")}
            depends = self._depends(self._reference_key(), kept, [row.name, row.factor, row.constrained])
        return self.points.path(f"{row.name}-seed{seed}", depends)

    def complete(self, row: Row, seed: int) -> bool:
        """Whether the point is there."""
        return self.path(row, seed).exists()

    def prepared(self, seed: int) -> bool:
        """Whether the reference's point and the pairs are there."""
        return self.complete(REFERENCE, seed) and self.pairs_path(seed).exists()

    def read(self, row: Row, seed: int) -> dict[str, Any]:
        """One point."""
        return self.points.read(self.path(row, seed))

    def pairs(self, seed: int) -> dict[str, Any]:
        """`rows` and `counts` of the pairs."""
        return self.points.read(self.pairs_path(seed))

    # ---- work ----

    def _arguments(self, seed: int, options: dict[str, Any]) -> tuple[LabelSetArguments, Any, Any]:
        given = [
            text
            for name, value in {"seed": seed, "disable_tqdm": True, **options}.items()
            for text in (f"--{name}", str(value))
        ]
        output = ["--output_dir", str(self.folder / "runs" / "scratch")]
        parsed = make_parser("make compare-labels").parse(["--config", str(self.config_file), *output, *given])
        parsed[1].model_init_kwargs = {"dtype": parsed[2].dtype}
        return parsed

    def prepare(self, seed: int) -> None:
        """The reference of a seed, what it writes on the test items, and the pairs of its mistakes."""
        script_args, args, model_args = self._arguments(seed, {})
        reference, train = self.reference_path(seed), self.parts["train"]
        reference.parent.mkdir(parents=True, exist_ok=True)
        facts: dict[str, Any] = {}
        if not (reference / "config.json").exists():
            options = SFTOptions(script_args.sft_learning_rate, script_args.sft_epochs, script_args.sft_batch_size)
            with _timed(facts, "sft"):
                train_reference_on_sets(
                    self.model, train, self.vocabulary, args, options, reference, get_peft_config(model_args)
                )
        if self.prepared(seed):
            return
        writer, tokenizer = load_writer(reference, args)
        if not self.pairs_path(seed).exists():
            with _timed(facts, "sampling"):
                self._make_pairs(seed, writer, tokenizer, script_args)
        if not self.complete(REFERENCE, seed):
            self._measure(REFERENCE, seed, writer, tokenizer, script_args, facts)

    def _make_pairs(self, seed: int, writer: Any, tokenizer: Any, script_args: LabelSetArguments) -> None:
        train = self.parts["train"]
        drawn = write_sets(
            writer,
            tokenizer,
            train.prompts,
            self.vocabulary,
            samples=script_args.samples_per_item,
            temperature=script_args.sampling_temperature,
            constrained=script_args.constrained_sampling,
            max_new_tokens=script_args.max_set_tokens,
            seed=seed,
            progress=False,
        )
        pairs = build_pairs(train, drawn, self.partition, script_args.pairs_per_item)
        order = check_order(pairs, train, drawn, self.partition, script_args.pairs_per_item)
        read = {f"drawn_{k}": v for k, v in count_problems([r for row in drawn for r in row]).items()}
        rows = preference_rows(pairs, train, self.vocabulary)
        about = {f"about_{name}": sum(name in row["attribute"] for row in rows) for name in self.partition.names}
        self.points.write(
            self.pairs_path(seed), {"counts": {**pairs.counts(), **order, **read, **about}, "rows": rows}
        )

    def run(self, row: Row, seed: int) -> None:
        """Trains one method from the reference of its seed, or that reference, and keeps what it writes."""
        if row == REFERENCE:
            self.prepare(seed)
            return
        if row.method == "classifier":
            with _timed(facts := {}, "training"):
                found = classifier_sets(self.parts["train"], self.parts["test"], self.partition, seed)
            for name, sets in found.items():
                chosen = [[self.vocabulary.labels[i] for i in np.flatnonzero(line)] for line in sets]
                point = {"row": name, "seed": seed, "sets": chosen, "facts": facts}
                self.points.write(self.path(Row(name, "", "classifier"), seed), point)
            return
        script_args, args, model_args = self._arguments(seed, row.options)
        reference, peft, facts = self.reference_path(seed), get_peft_config(model_args), {}
        scratch = self.folder / "runs" / f"{row.name}-seed{seed}"
        args.output_dir = str(scratch)
        with _timed(facts, "training"):
            if row.method == "sft":  # as many steps as the methods, at their learning rate
                options = SFTOptions(args.learning_rate, 1, script_args.sft_batch_size, args.max_steps)
                trainer: Any = train_on_sets(
                    str(reference),
                    self.parts["train"],
                    self.vocabulary,
                    args,
                    options,
                    scratch,
                    peft_config=peft,
                    oversampled=self.partition.privileged,
                    factor=row.factor,
                )
            else:
                rows = self.pairs(seed)["rows"]
                trainer = train_on_pairs(reference, rows, self.partition, copy.copy(args), row.method, peft)  # type: ignore[arg-type]
        keep = ("weight/", "loss", "group_loss/", "inside_hinge/role", "accuracy/role", "margin/role")
        facts["history"] = [
            {"step": entry["step"], **{k: v for k, v in entry.items() if k.startswith(keep)}}
            for entry in trainer.state.log_history
            if "loss" in entry
        ]
        self._measure(row, seed, trainer.model, trainer.processing_class, script_args, facts)
        shutil.rmtree(scratch, ignore_errors=True)

    def _measure(
        self, row: Row, seed: int, model: Any, tokenizer: Any, script_args: LabelSetArguments, facts: dict[str, Any]
    ) -> None:
        point: dict[str, Any] = {"row": row.name, "seed": seed}
        for name, constrained in (("texts", False), ("constrained", True)):
            if constrained and not row.constrained:
                continue
            with _timed(facts, f"writing_{name}"):
                readings = write_sets(
                    model,
                    tokenizer,
                    self.parts["test"].prompts,
                    self.vocabulary,
                    max_new_tokens=script_args.max_set_tokens,
                    constrained=constrained,
                    progress=False,
                )
            point[name] = [[row[0].text, not row[0].cut] for row in readings]
        self.points.write(self.path(row, seed), {**point, "facts": facts})
        gc.collect()

    # ---- what was written ----

    def written(self, row: Row, seeds: Sequence[int], which: str = "texts") -> Written:
        """What a row wrote with some seeds, read again from its files."""
        points = [self.read(row, seed) for seed in seeds]
        suffix = ", constrained" if which == "constrained" else ""
        base = None if row == REFERENCE and not suffix else REFERENCE.label
        if row.method == "classifier":
            return Written(row.label, np.stack([self._matrix(point["sets"]) for point in points]), {}, base)
        read = [[self.vocabulary.read(text, ended) for text, ended in point[which]] for point in points]
        sets = np.stack([self.vocabulary.matrix(readings) for readings in read])
        return Written(row.label + suffix, sets, count_problems([r for part in read for r in part]), base)

    def _matrix(self, sets: Sequence[Sequence[str]]) -> NDArray[np.bool_]:
        return self.vocabulary.matrix([SetReading("", tuple(labels)) for labels in sets])


@contextmanager
def _timed(facts: dict[str, Any], name: str) -> Iterator[None]:
    """Wall-clock and processor seconds of a part of the work; on a busy machine they differ much."""
    wall, processor = time.time(), time.process_time()
    yield
    facts[f"{name}_seconds"] = time.time() - wall
    facts[f"{name}_cpu_seconds"] = time.process_time() - processor
