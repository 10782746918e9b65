"""
An off-policy set of two attributes in conflict: TruthfulQA's answers, judged truthful and informative by people.

    python -m experiments.generation.truthfulqa --data JUDGEMENTS.jsonl --answers TruthfulQA.csv --search
    python -m experiments.generation.truthfulqa --data JUDGEMENTS.jsonl --answers TruthfulQA.csv

`--data` are the published judgements (the two fine-tuning files as one, or `prompt`, `response`, `truthful` and
`informative`),
`--answers` the published questions with their best, correct and incorrect answers. Questions are divided into train,
validation and test. Each attribute is privileged in turn, and measured by how the model ranks held-out pairs; MC1 and
MC2, the published multiple-choice measures, come from the log-probabilities of the published answers. The search
tries every setting on validation, and keeps its choice in `choice.json`; the comparison takes it from there. With
`--texts` every model also writes fresh answers to the test questions, for classifiers to judge. Every point is one
JSON file, and what is there is not computed again.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from demo.smollm2 import demo_model_path
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from experiments import points
from fairpo_trl import FairPOConfig, FairPOTrainer
from fairpo_trl.generation.methods import apply_method
from fairpo_trl.hashing import sha256_of_json
from fairpo_trl.preferences.converters import truthfulqa
from fairpo_trl.preferences.read import read_splits
from fairpo_trl.preferences.rules import prompt_key

from .answers import Question, answer_log_probs
from .truthfulqa_texts import write_answers


ATTRIBUTES = truthfulqa.ATTRIBUTES
WORDS = 16
"""Longer answers are left out of the pairs, about a quarter of them: a CPU is slow."""
TRAIN_PAIRS = 120
"""Of each attribute; every run draws from these."""
VALIDATION, TEST = 40, 80
"""Questions."""
TEXTS = "texts"
"""Measured on the test questions by fresh answers."""
PAIRS = 2
"""Held-out pairs per question and attribute at most."""
STEPS = (6, 12)
LEARNING_RATES = (2e-4, 1e-3)
ALLOWED_FALL = 0.02
"""Of the held attribute's rank accuracy, on validation: see [`choose`]."""
SHARED: dict[str, Any] = {
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": not torch.cuda.is_available(),
    "bf16": False,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "logging_steps": 1,
    "lr_scheduler_type": "constant",
    "per_device_train_batch_size": 8,
    "balanced_sampling": "role",
    "precompute_ref_log_probs": True,
    "epsilon": 0.05,
    "beta": 0.1,
}


@dataclass(frozen=True)
class Row(points.Row):
    """One method; `consistent` trains on pairs whose winner is not worse in the other attribute."""

    consistent: bool = False


ONE_ROLE = {"per_device_train_batch_size": 4}
"""Half the pairs of a step are privileged: as many of those as the methods on all pairs see."""
ROWS = [
    Row("fairpo_dpo", "FairPO-DPO", "fairpo", {"privileged_loss": "dpo"}),
    Row("fairpo_cpo", "FairPO-CPO", "fairpo", {"privileged_loss": "cpo"}),
    Row("dpo_all", "DPO on all pairs", "dpo"),
    Row("dpo_privileged_only", "DPO on privileged pairs", "dpo_privileged_only", ONE_ROLE),
    Row("sft_on_chosen", "SFT on chosen (privileged)", "sft_on_chosen", ONE_ROLE),
    Row("dpo_consistent", "DPO on consistent privileged pairs", "dpo_privileged_only", ONE_ROLE, consistent=True),
]


@dataclass(frozen=True)
class Setting:
    """What the search chooses for a row: learning rate and optimizer steps."""

    learning_rate: float
    steps: int


# ---- data ----


def as_text(question: str) -> str:
    """A question as the published evaluation writes it."""
    return f"Q: {question}\nA:"


def pairs_of(rows: Sequence[Mapping[str, Any]], pairing: str) -> list[dict[str, Any]]:
    """Pairs of both attributes from short answers, as plain text in the published form of question and answer."""
    texts = [
        {
            "prompt": as_text(row["prompt"][-1]["content"]),
            **{side: f" {row[side][-1]['content']}" for side in ("chosen", "rejected")},
            "attribute": row["attribute"],
        }
        for row in truthfulqa.convert(rows, max_pairs=None, pairing=pairing).rows  # type: ignore[arg-type]
    ]
    short = [row for row in texts if max(len(row[side].split()) for side in ("chosen", "rejected")) <= WORDS]
    kept, count = [], Counter[tuple[str, str]]()
    for place in np.random.default_rng(0).permutation(len(short)):  # a few of each question, in random order
        key = (short[place]["prompt"], short[place]["attribute"])
        count[key] += 1
        if count[key] <= PAIRS:
            kept.append(short[place])
    return kept


def split_of_questions(pairs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Question -> train, validation or test."""
    keys = sorted({prompt_key(pair["prompt"]) for pair in pairs})
    order = [keys[i] for i in np.random.default_rng(1).permutation(len(keys))]
    names = ["test"] * TEST + ["validation"] * VALIDATION
    return {key: names[i] if i < len(names) else "train" for i, key in enumerate(order)}


def read_answers(path: Path) -> dict[str, tuple[str, list[str], list[str]]]:
    """Question -> best, correct and incorrect answers of the published table, each closed by a full stop."""
    found = {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line in csv.DictReader(file):
            best, correct, incorrect = (
                [
                    text if text.endswith(".") else f"{text}."
                    for part in line[name].split(";")
                    if (text := part.strip())
                ]
                for name in ("Best Answer", "Correct Answers", "Incorrect Answers")
            )
            found[prompt_key(line["Question"])] = (best[0], correct, incorrect)
    return found


# ---- runs ----


class Study:
    """
    The runs of the study, kept in one folder.

    Args:
        folder (`Path`): Where points are kept.
        data, answers (`Path`): The two published files.
        model (`str`, *optional*): A folder of a model; by default the demo's.
    """

    def __init__(self, folder: Path, data: Path, answers: Path, model: str | None = None) -> None:
        self.folder, self.points = folder, points.Points(folder)
        self.model = demo_model_path()[0] if model is None else model
        self.judged = list(read_splits(data)["train"])
        pairs = {consistent: pairs_of(self.judged, way) for consistent, way in ((False, "each"), (True, "consistent"))}
        self.split = split = split_of_questions(pairs[False])

        def part(name: str, consistent: bool = False) -> list[dict[str, Any]]:
            return [pair for pair in pairs[consistent] if split.get(prompt_key(pair["prompt"])) == name]

        def first(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [pair for name in ATTRIBUTES for pair in [p for p in found if p["attribute"] == name][:TRAIN_PAIRS]]

        self.train = {consistent: first(part("train", consistent)) for consistent in (False, True)}
        self.held_out = {name: part(name) for name in ("validation", "test")}
        self.answers = read_answers(answers)
        self.key = sha256_of_json([self.train[False], self.train[True], self.held_out, sorted(self.answers.items())])
        self.questions = {name: self._questions(name) for name in self.held_out}

    def _questions(self, split: str) -> list[str]:
        """Questions of a split with pairs and published answers, in order."""
        asked = dict.fromkeys(pair["prompt"] for pair in self.held_out[split])
        return [prompt for prompt in asked if prompt_key(prompt[3:-3]) in self.answers]

    def path(self, row: Row | None, privileged: str, setting: Setting | None, seed: int, split: str) -> Path:
        """File of one point; `None` is the reference. DPO on all pairs knows no roles: one file serves both."""
        if row is None or setting is None:
            return self.points.path(f"{split}-reference", [self.key, self.model])
        roles = "" if row.method == "dpo" else f"{privileged}-"
        settings = [self.key, self.model, SHARED, row.method, row.options, row.consistent, setting.learning_rate]
        return self.points.path(f"{split}-{row.name}-{roles}{setting.steps}steps-seed{seed}", settings)

    def run(self, row: Row, privileged: str, rate: float, stops: Sequence[int], seed: int, split: str) -> None:
        """Trains a row and measures it after some steps, unless every point is there."""
        wanted = {s: self.path(row, privileged, Setting(rate, s), seed, split) for s in stops}
        wanted = {steps: path for steps, path in wanted.items() if not path.exists()}
        if not wanted:
            return
        scratch = self.folder / "runs"
        args = FairPOConfig(
            output_dir=str(scratch), seed=seed, learning_rate=rate, max_steps=max(wanted),
            privileged_attributes=[privileged], reference_cache_dir=str(self.folder / "reference-log-probs"),
            **{**SHARED, **row.options},
        )  # fmt: skip
        pairs, _ = apply_method(row.method, args, Dataset.from_list(self.train[row.consistent]))  # type: ignore[arg-type]
        model = AutoModelForCausalLM.from_pretrained(
            self.model, dtype="float32", use_safetensors=True, trust_remote_code=False
        )
        callback = _MeasureAtStops(self, split, wanted, {"row": row.name, "privileged": privileged, "seed": seed})
        trainer = FairPOTrainer(
            model=model, args=args, train_dataset=pairs,
            processing_class=AutoTokenizer.from_pretrained(self.model, trust_remote_code=False),
            peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, task_type="CAUSAL_LM"),
            callbacks=[callback],
        )  # fmt: skip
        reference = self.path(None, "", None, 0, split)
        if not reference.exists():
            with trainer.model.disable_adapter():
                self.points.write(reference, self.measure(trainer.model, trainer.processing_class, split))
        trainer.train()

    def measure(self, model: Any, tokenizer: Any, split: str) -> dict[str, Any]:
        """
        Log-probabilities of the held-out pairs by question; of test questions MC1 and MC2 too, which choose nothing.
        For the split [`TEXTS`] fresh answers instead.
        """
        if split == TEXTS:
            return {"texts": write_answers(model, tokenizer, self.questions["test"])}

        def ids(text: str, end: bool = False) -> list[int]:
            return tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id] * end

        asked, layout = self.questions[split], []
        for prompt in asked:
            pairs = [pair for pair in self.held_out[split] if pair["prompt"] == prompt]
            texts = list(dict.fromkeys(text for pair in pairs for text in (pair["chosen"], pair["rejected"])))
            best, correct, incorrect = self.answers[prompt_key(prompt[3:-3])]
            published = [best, *correct, *incorrect] if split == "test" else []
            answers = [ids(text, end=True) for text in texts] + [ids(f" {text}") for text in published]
            layout.append((pairs, texts, len(correct), Question(ids(prompt), answers)))
        found = answer_log_probs(model, [question for *_, question in layout])
        ranked: dict[str, list[list[list[float]]]] = {name: [] for name in ATTRIBUTES}
        choice = []
        for (pairs, texts, correct, _), values in zip(layout, found, strict=True):
            of = dict(zip(texts, values[: len(texts)].tolist(), strict=True))
            for name in ATTRIBUTES:
                own = [pair for pair in pairs if pair["attribute"] == name]
                ranked[name].append([[of[pair["chosen"]], of[pair["rejected"]]] for pair in own])
            if split == "test":
                choice.append(multiple_choice(values[len(texts) :], correct))
        return {"pairs": ranked, "mc": choice}


def multiple_choice(values: np.ndarray, correct: int) -> list[float]:
    """MC1 and MC2 of a question, from log-probabilities of its best, then its correct, then its incorrect answers."""
    true, false = values[1 : 1 + correct], values[1 + correct :]
    shares = np.exp(np.concatenate([true, false]) - max(true.max(), false.max()))
    return [float(values[0] > false.max()), float(shares[:correct].sum() / shares.sum())]


class _MeasureAtStops(TrainerCallback):
    def __init__(self, study: Study, split: str, wanted: Mapping[int, Path], facts: dict[str, Any]) -> None:
        self.study, self.split, self.wanted, self.facts = study, split, wanted, facts
        self.history: list[dict[str, float]] = []
        self.started = time.process_time()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        keep = ("weight/", "margin/attribute/", "chosen_change/attribute/", "inside_hinge/role")
        self.history.append(
            {"step": state.global_step} | {k: v for k, v in (logs or {}).items() if k.startswith(keep)}
        )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.wanted:
            found = self.study.measure(kwargs["model"], kwargs["processing_class"], self.split)
            facts = {**self.facts, "steps": state.global_step, "learning_rate": args.learning_rate}
            point = {**facts, "cpu_seconds": time.process_time() - self.started, "history": self.history, **found}
            self.study.points.write(self.wanted[state.global_step], point)


# ---- choice ----


def per_question(point: Mapping[str, Any], name: str) -> np.ndarray:
    """Share of a question's pairs of an attribute that a model ranks right, `[questions]`; NaN without any."""
    shares = [np.mean([a > b for a, b in pairs]) if pairs else np.nan for pairs in point["pairs"][name]]
    return np.array(shares, dtype=np.float64)


def choose(gains: Mapping[Setting, tuple[float, float]]) -> Setting:
    """
    The setting with the largest privileged gain among those whose held attribute falls by at most [`ALLOWED_FALL`]; if
    none does, the one whose held attribute falls least.
    """
    kept = {setting: gain for setting, (gain, held) in gains.items() if held >= -ALLOWED_FALL}
    return max(kept, key=kept.__getitem__) if kept else max(gains, key=lambda setting: gains[setting][1])


def search(study: Study, directions: Sequence[str]) -> None:
    """Tries every setting of every row with seed 0 on validation, and writes `choice.json`."""
    choice: dict[str, Any] = {}
    for privileged in directions:
        held = next(name for name in ATTRIBUTES if name != privileged)
        choice[privileged] = {}
        for row in ROWS:
            gains = {}
            for rate in LEARNING_RATES:
                study.run(row, privileged, rate, STEPS, 0, "validation")
            before = study.points.read(study.path(None, "", None, 0, "validation"))
            for setting in settings():
                after = study.points.read(study.path(row, privileged, setting, 0, "validation"))
                change = [np.nanmean(per_question(after, n) - per_question(before, n)) for n in (privileged, held)]
                gains[setting] = (float(change[0]), float(change[1]))
            chosen = choose(gains)
            tried = [{**vars(setting), "privileged": gain[0], "held": gain[1]} for setting, gain in gains.items()]
            choice[privileged][row.name] = {**vars(chosen), "tried": tried}
            print(f"{privileged}, {row.label}: {chosen}", flush=True)
    study.points.write(study.folder / "choice.json", choice)


def settings() -> Iterator[Setting]:
    """Every setting that is tried."""
    return (Setting(rate, steps) for rate in LEARNING_RATES for steps in STEPS)


def main() -> None:
    """Searches, or runs what is missing of the comparison and writes its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the judgements")
    parser.add_argument("--answers", type=Path, required=True, help="the questions with their answers (CSV)")
    parser.add_argument("--output_dir", type=Path, default=Path("fairpo-truthfulqa"))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--privileged", nargs="*", choices=ATTRIBUTES, default=list(ATTRIBUTES))
    parser.add_argument("--search", action="store_true", help="tune on validation, and write choice.json")
    parser.add_argument("--texts", action="store_true", help="have fresh answers written and judged too")
    parser.add_argument("--tables_only", action="store_true", help="train nothing")
    args = parser.parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    study = Study(args.output_dir, args.data, args.answers)
    if args.search:
        search(study, args.privileged)
        return

    from .truthfulqa_tables import write_tables

    choice = json.loads((args.output_dir / "choice.json").read_text(encoding="utf-8"))
    for seed in args.seeds if not args.tables_only else ():
        for privileged in args.privileged:
            for row in ROWS:
                chosen = choice[privileged][row.name]
                for split in ("test", TEXTS) if args.texts else ("test",):
                    study.run(row, privileged, chosen["learning_rate"], [chosen["steps"]], seed, split)
                print(f"seed {seed}, {privileged} privileged: {row.label}", flush=True)
    write_tables(study, choice, args.privileged, args.seeds)


if __name__ == "__main__":
    main()
