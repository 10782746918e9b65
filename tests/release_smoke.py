"""
What an installed fairpo_trl has to do before it is released: import, speak on the command line, and train both halves.

    python release_smoke.py    # outside a clone, in an environment that holds the built package and what it needs

It uses nothing of the test suite, no network and no GPU; the models are tiny and random.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path


os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

WORDS = "the a one two small big red blue cat dog sea moon tea is was likes sees and or very not good bad".split()
CPU = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}


def command(*words: str) -> str:
    """Runs `fairpo` as a program of its own."""
    program = Path(sys.executable).with_name("fairpo")
    return subprocess.run([str(program), *words], check=True, capture_output=True, text=True).stdout


def train_pairs(folder: Path) -> None:
    """Two steps of FairPOTrainer on a random LLaMA."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from fairpo_trl import FairPOConfig, FairPOTrainer

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<eos>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=1,
    )
    rows = [
        {
            "prompt": f"{WORDS[i]} {WORDS[i + 1]} ",
            "chosen": "a cat",
            "rejected": "the big red dog",
            "attribute": ["concise", "polite"][i % 2],
        }
        for i in range(12)
    ]
    trainer = FairPOTrainer(
        model=LlamaForCausalLM(config),
        args=FairPOConfig(
            output_dir=str(folder / "pairs"), privileged_attributes=["concise"], max_steps=2, bf16=False, **CPU
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model()
    assert (folder / "pairs" / "model.safetensors").is_file()


def train_labels(folder: Path) -> None:
    """One epoch of MultiLabelFairPOTrainer on random features."""
    import numpy as np

    from fairpo_trl import MultiLabelClassifier, MultiLabelFairPOConfig, MultiLabelFairPOTrainer
    from fairpo_trl.classification import MultiLabelClassifierConfig
    from fairpo_trl.classification.data import MultiLabelSplit

    generator = np.random.default_rng(0)
    labels = (generator.random((24, 3)) < 0.5).astype(np.int8)
    names = ("toaster", "dog", "cat")
    split = MultiLabelSplit(
        name="train",
        labels=labels,
        label_names=names,
        ids=tuple(str(i) for i in range(24)),
        features=generator.normal(size=(24, 8)).astype(np.float32),
    )
    model = MultiLabelClassifier(MultiLabelClassifierConfig(label_names=list(names), feature_size=8))
    model.set_feature_statistics(split.features)
    trainer = MultiLabelFairPOTrainer(
        model=model,
        args=MultiLabelFairPOConfig(
            output_dir=str(folder / "labels"), privileged_labels=["toaster"], num_train_epochs=1, **CPU
        ),
        train_dataset=split,
    )
    trainer.train()
    trainer.save_model()
    assert (folder / "labels" / "model.safetensors").is_file()


def main() -> None:
    """Runs all of it in a folder that goes away."""
    import fairpo_trl

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.chdir(folder)
        print(f"fairpo_trl {fairpo_trl.__version__} from {fairpo_trl.__file__}")
        assert "generation" in command("--help")
        table = ["prompt,response,helpful,concise"]
        table += [f"question {i},answer {j},{i % 3 + j},{4 - j}" for i in range(6) for j in range(2)]
        (folder / "ratings.csv").write_text("\n".join(table), encoding="utf-8")
        assert "concise" in command("check", "ratings.csv", "--ratings", "helpful", "concise")
        train_pairs(folder)
        train_labels(folder)
    print("Both halves trained and saved.")


if __name__ == "__main__":
    main()
