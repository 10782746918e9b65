"""What FairPO adds to a training step: ratios of step times, measured in one run.

    python benchmarks/step_cost.py --json step_cost.json                              # small random LLaMA, CPU
    python benchmarks/step_cost.py --model HuggingFaceTB/SmolLM2-135M-Instruct

README line: "A FairPO step costs what a DPO step costs, with 2 groups or 64 (measured: benchmarks/step_cost.py)."

Each comparison alternates A B A B ... on the same batches after a warm-up and reports the median of paired ratios, so
that a machine that slows down slows both. One step is forward (policy and reference), backward and optimizer step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer

from fairpo_trl.generation import FairPOConfig, FairPOTrainer


VOCABULARY = 2048


def model_and_tokenizer(name: str | None) -> tuple[Any, Any]:
    """The named model, or a random LLaMA whose step takes some tenths of a second on a CPU."""
    if name:
        model = AutoModelForCausalLM.from_pretrained(
            name, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
        return model, AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    torch.manual_seed(0)
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    raw = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config), tokenizer


def pairs(n: int, attributes: int) -> Dataset:
    """`n` pairs of random words, attributes in turn."""
    generator = torch.Generator().manual_seed(0)

    def words(k: int) -> str:
        return " ".join(f"w{i}" for i in torch.randint(2, VOCABULARY, (k,), generator=generator).tolist())

    rows = [
        {"prompt": words(32) + " ", "chosen": words(32), "rejected": words(32), "attribute": f"a{i % attributes}"}
        for i in range(n)
    ]
    return Dataset.from_list(rows)


class Stepper:
    """One trainer whose optimizer steps can be taken one at a time, through Trainer's own methods."""

    def __init__(
        self, kind: str, name: str | None, attributes: int, out: str, batch: int, options: dict[str, Any]
    ) -> None:
        model, tokenizer = model_and_tokenizer(name)
        reference, _ = model_and_tokenizer(name)
        common = {
            "output_dir": out, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "bf16": False,
            "gradient_checkpointing": False, "per_device_train_batch_size": batch, "learning_rate": 1e-6,
            "logging_strategy": "no", "optim": "sgd",
        }  # fmt: skip
        dataset = pairs(max(64, 4 * batch), attributes)
        config, trainer = (DPOConfig, DPOTrainer) if kind == "dpo" else (FairPOConfig, FairPOTrainer)
        if kind == "dpo":
            dataset = dataset.remove_columns("attribute")
        self.trainer = trainer(
            model=model,
            ref_model=reference,
            args=config(**common, **options),
            train_dataset=dataset,
            processing_class=tokenizer,
        )
        self.trainer.create_optimizer_and_scheduler(10_000)
        self.model = self.trainer._wrap_model(self.trainer.model)
        self.trainer.current_gradient_accumulation_steps = 1
        self.model.train()
        self.batches = self._forever()

    def _forever(self) -> Any:
        while True:
            yield from self.trainer.get_train_dataloader()

    def step(self) -> float:
        """Seconds of one optimizer step."""
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter()
        batches, items = self.trainer.get_batch_samples(self.batches, 1, self.trainer.args.device)
        self.trainer.training_step(self.model, batches[0], items)
        self.trainer.optimizer.step()
        self.model.zero_grad()
        if cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


def compare(a: Stepper, b: Stepper, steps: int, warm_up: int) -> dict[str, float]:
    """Median of the paired ratios b / a over interleaved steps, their quartiles, and the median times."""
    for _ in range(warm_up):
        a.step()
        b.step()
    times = []
    for i in range(steps):
        first, second = (a, b) if i % 2 == 0 else (b, a)  # neither is always first
        x, y = first.step(), second.step()
        times.append((x, y) if i % 2 == 0 else (y, x))
    ratios = [y / x for x, y in times]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {
        "ratio": statistics.median(ratios), "ratio_q25": low, "ratio_q75": high, "pairs_of_steps": steps,
        "seconds_a": statistics.median(x for x, _ in times), "seconds_b": statistics.median(y for _, y in times),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="Model to measure with; a small random LLaMA by default.")
    parser.add_argument("--steps", type=int, default=15, help="Pairs of timed steps (at least 9).")
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8, help="Pairs in a step.")
    parser.add_argument("--json", type=Path, help="Where to write the numbers.")
    arguments = parser.parse_args()
    if arguments.steps < 9:
        parser.error("--steps must be at least 9")

    everything = {"privileged_attributes": ["a0"], "eta_alpha": 0.0}
    two = {"privileged_attributes": ["a0"], "grouping": "attribute"}
    many = {"privileged_attributes": [f"a{i}" for i in range(32)], "grouping": "attribute"}
    comparisons = {
        "FairPO, everything privileged / DPOTrainer": (("dpo", 1, {}), ("fairpo", 1, everything)),
        "FairPO, 64 attribute groups / 2": (("fairpo", 2, two), ("fairpo", 64, many)),
    }
    results = {}
    with tempfile.TemporaryDirectory() as out:
        for title, sides in comparisons.items():
            a, b = (Stepper(kind, arguments.model, n, out, arguments.batch, options) for kind, n, options in sides)
            results[title] = compare(a, b, arguments.steps, arguments.warm_up)

    table = Table(title=f"Step cost, {arguments.model or 'random LLaMA'}, {arguments.batch} pairs a step")
    for column in ("comparison", "ratio (median)", "quartiles", "s / step A", "s / step B"):
        table.add_column(column, justify="left" if column == "comparison" else "right")
    for title, r in results.items():
        quartiles = f"{r['ratio_q25']:.3f} to {r['ratio_q75']:.3f}"
        table.add_row(title, f"{r['ratio']:.3f}", quartiles, f"{r['seconds_a']:.3f}", f"{r['seconds_b']:.3f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
