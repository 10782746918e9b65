"""A FairPO step beside a DPOTrainer step on one GPU.

    python benchmarks/gpu_step.py --json gpu_step.json

Random weights in the shape of Qwen2.5-0.5B and -1.5B, bf16, full fine-tuning, 8 pairs a step with prompts of 512 and
completions of 256 tokens (give or take a quarter), with and without gradient checkpointing. For each: seconds of a
step (median), the ratio to DPOTrainer, peak memory, and how far the log-probabilities of the first batch are from
DPOTrainer's; before that, in float32, how far those of the packed layout are from those of the plain one.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
from trl import DPOConfig, DPOTrainer

from fairpo_trl.generation import FairPOConfig, FairPOTrainer


SHAPES = {
    "tiny": {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4},
    "0.5b": {"hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14},
    "1.5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12},
}
WARM_UP = 6  # steps: kernels are compiled, memory is reserved
VOCABULARY, PAIRS, PROMPT, COMPLETION = 151_936, 8, 512, 256
SIDES = {
    "DPOTrainer, sdpa": (False, "sdpa", {}),
    "FairPO, plain layout, sdpa": (True, "sdpa", {"packing": "never"}),
    "FairPO, packed, no search for idle pairs, sdpa": (
        True,
        "sdpa",
        {"packing": "always", "skip_idle_pairs": False},
    ),
    "FairPO, packed, sdpa": (True, "sdpa", {"packing": "always"}),
    "FairPO, packed, flex_attention": (True, "flex_attention", {"packing": "always"}),
}


def tokenizer() -> Any:
    """One token a word."""
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, 4096)}}
    raw = Tokenizer(models.WordLevel(words, unk_token="<eos>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<eos>")


def pairs(steps: int) -> Dataset:
    """Random words, half of the pairs privileged; lengths vary by a quarter, as padding does."""
    draw = torch.Generator().manual_seed(0)

    def words(k: int) -> str:
        length = int(k * (0.75 + 0.5 * torch.rand((), generator=draw)))
        return " ".join(f"w{i}" for i in torch.randint(2, 4096, (length,), generator=draw).tolist())

    return Dataset.from_list(
        [
            {
                "prompt": words(PROMPT) + " ",
                "chosen": words(COMPLETION),
                "rejected": words(COMPLETION),
                "attribute": "ab"[i % 2],
            }
            for i in range(steps * PAIRS)
        ]
    )


def trainer_of(shape: str, side: str, checkpointing: bool, steps: int, out: str, half: bool = True) -> Any:
    """A trainer whose steps can be taken one at a time."""
    dtype = torch.bfloat16 if half else torch.float32
    ours, attention, options = SIDES[side]
    torch.manual_seed(0)
    config = Qwen2Config(
        **SHAPES[shape], num_key_value_heads=2, vocab_size=VOCABULARY, tie_word_embeddings=True, pad_token_id=0,
        eos_token_id=1, attn_implementation=attention,
    )  # fmt: skip
    dataset = pairs(steps)
    common = {
        "output_dir": out, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "bf16": half,
        "gradient_checkpointing": checkpointing, "per_device_train_batch_size": PAIRS, "max_length": None,
        "logging_strategy": "no", "train_sampling_strategy": "sequential", "learning_rate": 1e-6,
    }  # fmt: skip
    if ours:
        arguments: Any = FairPOConfig(**common, privileged_attributes=["a"], **options)
    else:
        dataset, arguments = dataset.remove_columns("attribute"), DPOConfig(**common)
    with torch.device("cuda"):  # drawn there in seconds
        model = Qwen2ForCausalLM(config).to(dtype)
        reference = Qwen2ForCausalLM(config).to(dtype)
    reference.load_state_dict(model.state_dict())
    trainer = (FairPOTrainer if ours else DPOTrainer)(
        model=model, ref_model=reference, args=arguments, train_dataset=dataset, processing_class=tokenizer()
    )
    trainer.create_optimizer_and_scheduler(10_000)
    trainer.wrapped = trainer._wrap_model(trainer.model)
    trainer.current_gradient_accumulation_steps = 1
    if checkpointing:  # as `train` does
        trainer.model.activation_checkpointing_enable(
            activation_checkpointing_kwargs=trainer.args.activation_checkpointing_kwargs
        )
    trainer.wrapped.train()
    trainer.loader = iter(trainer.get_train_dataloader())
    return trainer


def step(trainer: Any) -> float:
    """Seconds of one optimizer step."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    batches, items = trainer.get_batch_samples(trainer.loader, 1, trainer.args.device)
    trainer.training_step(trainer.wrapped, batches[0], items)
    trainer.optimizer.step()
    trainer.wrapped.zero_grad()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def difference_in_float32(shape: str) -> dict[str, float]:
    """The largest difference of a sequence's log-probability between the plain and the packed layout, in nats."""
    first, found = None, {}
    for side in list(SIDES)[1:]:
        if not SIDES[side][2].get("skip_idle_pairs", True):
            continue
        with tempfile.TemporaryDirectory() as out:
            trainer = trainer_of(shape, side, False, 1, out, half=False)
            batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
            values = torch.stack(trainer.compute_ref_log_probs(trainer.ref_model, batch)).double().cpu()
        trainer = None
        forget()
        first = values if first is None else first
        found[side] = float((values - first).abs().max())
    return found


def forget() -> None:
    """A trainer holds itself by its callbacks, and what was compiled for one model is in the way of the next."""
    gc.collect()
    torch._dynamo.reset()
    torch.cuda.empty_cache()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=["0.5b", "1.5b"])
    parser.add_argument("--steps", type=int, default=11, help="Timed steps of each side.")
    parser.add_argument("--json", type=Path, help="Where to write the numbers.")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("there is no GPU")
    results: dict[str, Any] = {"card": torch.cuda.get_device_name()}
    results["torch"] = torch.__version__
    print(results["card"], results["torch"])
    results["float32"] = difference_in_float32(arguments.models[0])
    print("float32, largest difference of a sequence to the plain layout in nats:", results["float32"], flush=True)
    for shape in arguments.models:
        for checkpointing in (False, True):
            base, first = None, None
            for side in SIDES:
                name = f"{shape}, {side}{', gradient checkpointing' if checkpointing else ''}"
                with tempfile.TemporaryDirectory() as out:
                    try:
                        trainer = trainer_of(shape, side, checkpointing, arguments.steps + WARM_UP + 1, out)
                        batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
                        values = torch.stack(trainer.compute_ref_log_probs(trainer.ref_model, batch)).float().cpu()
                        for _ in range(WARM_UP):
                            step(trainer)
                        torch.cuda.reset_peak_memory_stats()
                        times = [step(trainer) for _ in range(arguments.steps)]
                        low, seconds, high = statistics.quantiles(times, n=4)
                        idle = getattr(trainer, "_idle", None)
                        active, held = idle.state_dict() if idle is not None else (0.0, 0.0)
                        memory = torch.cuda.max_memory_allocated() / 2**30
                    except torch.OutOfMemoryError:
                        print(f"{name}: out of memory")
                        continue
                    finally:
                        trainer = None
                        forget()
                base, first = base or seconds, values if first is None else first
                far = float((values - first).abs().max())
                results[name] = {
                    "seconds": seconds, "q25": low, "q75": high, "ratio": seconds / base, "memory_gb": memory,
                    "difference": far, "active_share_of_held": active / held if held else None,
                }  # fmt: skip
                print(
                    f"{name}: {seconds:.3f} s ({low:.3f} to {high:.3f}), ratio {seconds / base:.2f}, {memory:.1f} GB, "
                    f"{far:.2g} nats a sequence, {active / max(held, 1e-9):.0%} of the held pairs active",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
