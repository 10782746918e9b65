"""What a FairPO training step costs beside a DPOTrainer step: ratios, measured in one run.

    python benchmarks/step_cost.py --rows demo known --json step_cost.json
    python benchmarks/step_cost.py --rows long_prompts long_completions privileged groups --tiny

The rows `demo`, `known` and `idle` take the demo's model (SmolLM2-135M, LoRA on all linear layers) and its pairs, 4
privileged and 4 held a step; `--tiny` takes a small random LLaMA. Each comparison alternates A B B A ... on the same
batches; the ratio is that of the medians of process time (one thread), which other work on the machine hardly
changes, and the quartiles are those of paired ratios. Parts are shares of our step; the floor is 2N FLOPs a token for
each forward and for the gradient of each activation (frozen weights), on tokens that are there once, at the speed of a
matrix product of the model's size in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, DPOTrainer
from trl.trainer import utils as trl_utils

from fairpo_trl.generation import FairPOConfig, FairPOTrainer, log_probs, pair_forward


ROOT = Path(__file__).resolve().parents[1]
DEMO_PAIRS = ROOT / "recipes" / "demo" / "data" / "pairs.jsonl"
# Row: what it is, pairs a step, tokens of prompt and completion (None: the demo's pairs), options of B, options of A.
VOCABULARY = 2048  # of the rows that are not the demo's
ROWS: dict[str, tuple[str, int, tuple[int, int] | None, dict[str, Any], dict[str, Any] | None]] = {
    "demo": ("demo pairs, reference in every step", 8, None, {}, None),
    "known": ("demo pairs, reference known", 8, None, {"precompute_ref_log_probs": True}, None),
    "idle": ("the same, after 20 steps of the demo's setting", 8, None, {"precompute_ref_log_probs": True}, None),
    "long_prompts": ("prompts of 256 tokens, completions of 32", 2, (256, 32), {}, None),
    "long_completions": ("prompts of 32 tokens, completions of 128", 4, (32, 128), {}, None),
    "privileged": (
        "all privileged, plain layout", 4, (32, 32), {"packing": "never", "privileged_attributes": ["a0", "a1"]}, None,
    ),
    "groups": (
        "64 groups against 2", 64, (32, 32),
        {"grouping": "attribute", "privileged_attributes": [f"a{i}" for i in range(32)]}, {"grouping": "attribute"},
    ),
}  # fmt: skip


def demo_folder() -> str:
    """The demo's model."""
    sys.path.insert(0, str(ROOT / "recipes"))
    from demo.smollm2 import demo_model_path

    return demo_model_path()[0]


def load_model(tiny: bool) -> Any:
    """The demo's model, or a random LLaMA whose step takes some tenths of a second."""
    if not tiny:
        return AutoModelForCausalLM.from_pretrained(
            demo_folder(), dtype=torch.float32, use_safetensors=True, trust_remote_code=False
        )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=512, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def load_tokenizer(row: str) -> Any:
    """The demo's tokenizer for its pairs, else one token a word."""
    if ROWS[row][2] is None:
        return AutoTokenizer.from_pretrained(demo_folder(), trust_remote_code=False)
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    raw = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


def pairs_of(row: str, steps: int) -> Dataset:
    """Pairs in the order in which steps take them: privileged and held in turn."""
    _, count, lengths, _, _ = ROWS[row]
    if lengths is None:
        rows = [json.loads(line) for line in DEMO_PAIRS.read_text().splitlines()]
        rows = [r for r in rows if r["split"] == "train"]
        groups = [[r for r in rows if (r["attribute"] == "concise") is first] for first in (True, False)]
        order = torch.randperm(len(groups[1]), generator=torch.Generator().manual_seed(0)).tolist()
        groups[1] = [groups[1][i] for i in order]
        kept = [group[i] for i in range(steps * count // 2) for group in groups]
        return Dataset.from_list([{k: r[k] for k in ("prompt", "chosen", "rejected", "attribute")} for r in kept])
    draw = torch.Generator().manual_seed(0)

    def words(k: int) -> str:
        return " ".join(f"w{i}" for i in torch.randint(2, VOCABULARY, (k,), generator=draw).tolist())

    names = 64 if row == "groups" else 2
    prompt, completion = lengths
    rows = [
        {
            "prompt": words(prompt) + " ",
            "chosen": words(completion),
            "rejected": words(completion),
            "attribute": f"a{i % names}",
        }
        for i in range(steps * count)
    ]
    return Dataset.from_list(rows)


class Stepper:
    """One trainer whose optimizer steps are taken one at a time, through Trainer's own methods."""

    def __init__(self, row: str, ours: bool, options: dict[str, Any], tiny: bool, steps: int, out: str) -> None:
        _, count, lengths, _, _ = ROWS[row]
        model = load_model(tiny)
        dataset = pairs_of(row, min(steps, 30))
        common = {
            "output_dir": out, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "bf16": False,
            "gradient_checkpointing": False, "per_device_train_batch_size": count, "learning_rate": 2e-4,
            "logging_strategy": "no", "use_cpu": not torch.cuda.is_available(), "lr_scheduler_type": "constant",
            "train_sampling_strategy": "sequential", "max_length": 512,
        }  # fmt: skip
        if ours:
            demo = {"privileged_attributes": ["concise"], "privileged_loss": "cpo", "eta_alpha": 0.05}
            ours_options = demo if lengths is None else {"privileged_attributes": ["a0"]}
            options = {"reference_cache_dir": f"{out}/reference", **ours_options, **options}
        else:
            dataset = dataset.remove_columns("attribute")
        config, trainer = (FairPOConfig, FairPOTrainer) if ours else (DPOConfig, DPOTrainer)
        lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
        self.trainer = trainer(
            model=model,
            args=config(**common, **options),
            train_dataset=dataset,
            processing_class=load_tokenizer(row),
            peft_config=lora,
        )
        self.trainer.create_optimizer_and_scheduler(10_000)
        self.model = self.trainer._wrap_model(self.trainer.model)
        self.trainer.current_gradient_accumulation_steps = 1
        self.model.train()
        self.batches = self._forever()

    def _forever(self) -> Iterator[Any]:
        while True:
            yield from self.trainer.get_train_dataloader()

    def step(self) -> tuple[float, float]:
        """Process time and wall time of one optimizer step, in seconds."""
        before, clock = time.process_time(), time.perf_counter()
        batches, items = self.trainer.get_batch_samples(self.batches, 1, self.trainer.args.device)
        self.trainer.training_step(self.model, batches[0], items)
        self.trainer.optimizer.step()
        self.model.zero_grad()
        return time.process_time() - before, time.perf_counter() - clock


def compare(a: Stepper, b: Stepper, rounds: int) -> dict[str, float]:
    """Ratio b / a of the medians of process time, quartiles of the paired ratios, and the medians."""
    a.step()
    b.step()
    times: list[tuple[tuple[float, float], tuple[float, float]]] = []
    for i in range(rounds):
        first, second = (a, b) if i % 2 == 0 else (b, a)  # neither is always first
        x, y = first.step(), second.step()
        times.append((x, y) if i % 2 == 0 else (y, x))
        print(f"  {times[-1][0][0]:.2f} s against {times[-1][1][0]:.2f} s", file=sys.stderr, flush=True)
    ratios = [y[0] / x[0] for x, y in times]
    low, _, high = statistics.quantiles(ratios, n=4)
    medians = [[statistics.median(t[side][kind] for t in times) for kind in (0, 1)] for side in (0, 1)]
    return {
        "ratio": medians[1][0] / medians[0][0], "ratio_q25": low, "ratio_q75": high, "rounds": rounds,
        "wall_ratio": medians[1][1] / medians[0][1], "seconds_a": medians[0][0], "seconds_b": medians[1][0],
    }  # fmt: skip


@contextmanager
def timed(spent: dict[str, float], places: list[tuple[str, Any, str]]) -> Iterator[None]:
    """Adds the process time of calls to `spent`, by name, while it is open."""
    originals = [(owner, name, getattr(owner, name)) for _, owner, name in places]

    def wrap(label: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timing(*args: Any, **kwargs: Any) -> Any:
            before = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[label] += time.process_time() - before

        return timing

    for (label, owner, name), (_, _, call) in zip(places, originals, strict=True):
        setattr(owner, name, wrap(label, call))
    try:
        yield
    finally:
        for owner, name, call in originals:
            setattr(owner, name, call)


def parts_of(stepper: Stepper) -> dict[str, float]:
    """Where the process time of one of our steps goes, in seconds, and what its floor would be."""
    spent: dict[str, float] = defaultdict(float)
    head = trl_utils._ChunkedLogProbFunction
    places = [
        ("reference", stepper.trainer, "compute_ref_log_probs"),
        ("loss", stepper.trainer, "compute_loss"),
        ("policy forward, first pass included", pair_forward, "token_outputs"),
        ("policy forward, first pass included", log_probs, "token_outputs"),
        ("of it the head's forward", head, "forward"),
        ("of it the head's backward", head, "backward"),
    ]
    with timed(spent, places):
        total, _ = stepper.step()
    inside = spent["reference"]  # its forward was counted as a forward too
    forward = spent["policy forward, first pass included"] - inside
    return {
        "step": total, "reference": inside, "policy forward": forward, "backward": total - spent["loss"],
        "head, of these": spent["of it the head's forward"] + spent["of it the head's backward"],
        "ours (losses, weights, metrics, layout)": spent["loss"] - inside - max(forward, 0.0),
    }  # fmt: skip


def floor_of(stepper: Stepper, known: bool) -> float:
    """Seconds of a step without any overhead: see the top."""
    trainer = stepper.trainer
    batch = next(iter(trainer.get_train_dataloader()))
    spans = batch["pair_spans"]
    tokens = sum(chosen + rejected - shared for shared, chosen, _, rejected, _ in spans)
    scored = sum(chosen + rejected for _, _, chosen, _, rejected in spans)
    base = trainer.model.get_base_model()
    head = base.get_output_embeddings().weight.numel()
    blocks = sum(
        p.numel() for n, p in base.named_parameters() if p.dim() == 2 and "embed" not in n and "lora" not in n
    )
    blocks -= head if base.get_output_embeddings().weight is not base.get_input_embeddings().weight else 0
    passes = 2 if known else 3  # forward, gradient of the activations, reference
    flops = 2 * passes * (tokens * blocks + scored * head)
    x, w = torch.randn(tokens, base.config.hidden_size), torch.randn(base.config.hidden_size, 4096)
    _ = x @ w
    before = time.process_time()
    for _ in range(5):
        _ = x @ w
    speed = 5 * 2 * x.numel() * w.size(1) / (time.process_time() - before)
    return flops / speed


def peak_memory(row: str, ours: bool, tiny: bool) -> float:
    """GB that one step adds to the resident memory of a fresh process."""
    command = [sys.executable, __file__, "--memory", row, "ours" if ours else "theirs", *(["--tiny"] if tiny else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="What to measure.")
    parser.add_argument("--rounds", type=int, default=7, help="Steps of each side, alternating.")
    parser.add_argument("--tiny", action="store_true", help="A small random model instead of the demo's.")
    parser.add_argument("--no-memory", action="store_true", help="Leave out the peak memory (a process for each).")
    parser.add_argument("--memory", nargs=2, metavar=("ROW", "SIDE"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="Where to write the numbers.")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def stepper(row: str, ours: bool, out: str) -> Stepper:
        _, _, _, b, a = ROWS[row]
        with_ours = ours or a is not None
        return Stepper(row, with_ours, b if ours else a or {}, arguments.tiny, arguments.rounds + 2, out)

    if arguments.memory:
        row, side = arguments.memory
        with tempfile.TemporaryDirectory() as out:
            one = stepper(row, side == "ours", out)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            one.step()
            print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
        return
    results: dict[str, dict[str, Any]] = {}
    for row in arguments.rows:
        title = ROWS[row][0]
        print(title, file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as out:
            a, b = stepper(row, False, f"{out}/a"), stepper(row, True, f"{out}/b")
            if row == "idle":
                for _ in range(20):
                    b.step()
            results[row] = {"title": title, **compare(a, b, arguments.rounds)}
            results[row]["parts"] = parts_of(b)
            results[row]["floor"] = floor_of(b, bool(ROWS[row][3].get("precompute_ref_log_probs")))
            del a, b
        if not arguments.no_memory:
            results[row]["memory"] = [peak_memory(row, ours, arguments.tiny) for ours in (False, True)]
        print_row(results[row])
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def print_row(result: dict[str, Any]) -> None:
    """One row as a line of a Markdown table, and the parts of the step below it."""
    memory = " / ".join(f"{gb:.2f}" for gb in reversed(result.get("memory", []))) or "-"
    quartiles = f"{result['ratio_q25']:.2f} to {result['ratio_q75']:.2f}"
    print(f"| {result['title']} | {result['ratio']:.2f} ({quartiles}) | {memory} |")
    parts = ", ".join(f"{name} {seconds:.2f}" for name, seconds in result["parts"].items())
    print(f"    seconds: {parts}; floor {result['floor']:.2f}", flush=True)


if __name__ == "__main__":
    main()
