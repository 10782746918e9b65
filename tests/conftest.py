"""Shared fixtures: a tiny random LLaMA (for speed; nothing is learned from it) and small preference data."""

from __future__ import annotations

import functools
import gc
import os


os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import accelerate.utils.imports
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


# Examples of a fuzzed property: few in the suite, many with `pytest --hypothesis-profile=many tests/*/test_fuzz_*.py`.
settings.register_profile("suite", max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("many", settings.get_profile("suite"), max_examples=2000)
settings.load_profile("suite")

# Asked several times in every forward pass, and each time read from disk; no package comes or goes during the tests.
accelerate.utils.imports._is_package_available = functools.cache(accelerate.utils.imports._is_package_available)

WORDS = (
    "the a one two small big red blue cat dog sea moon tea is was likes sees and or very not good bad warm cold "
    "short long word answer question tell me about why because people run sleep eat"
).split()
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|> {{ message['content'] }} <eos>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|> {% endif %}"
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # two spinning threads per test process are slower than one


@pytest.fixture(scope="module", autouse=True)
def _imports_are_no_garbage() -> None:
    """Every training run begins with a collection of garbage, which would look at all that is imported: most of it."""
    gc.collect()
    gc.freeze()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer over `WORDS` with a chat template."""
    special = ["<pad>", "<eos>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>"]
    vocabulary = {word: i for i, word in enumerate([*special, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_model(seed: int = 0, dtype: torch.dtype = torch.float64, layers: int = 2) -> LlamaForCausalLM:
    """A random LLaMA of a few thousand parameters, float64 so that splits of a batch can be compared to 1e-6."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=0,
        eos_token_id=1,
    )
    return LlamaForCausalLM(config).to(dtype)


def make_rows(n: int, attributes: tuple[str, ...] = ("concise", "polite", "factual"), seed: int = 0) -> list[dict]:
    """`n` random plain-text pairs; attributes in turn."""
    generator = torch.Generator().manual_seed(seed)

    def words(low: int, high: int) -> str:
        count = int(torch.randint(low, high, (1,), generator=generator))
        return " ".join(WORDS[i] for i in torch.randint(len(WORDS), (count,), generator=generator).tolist())

    return [
        {
            "prompt": words(3, 7) + " ",
            "chosen": words(2, 5),
            "rejected": words(5, 9),
            "attribute": attributes[i % len(attributes)],
        }
        for i in range(n)
    ]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture
def pairs() -> Dataset:
    return Dataset.from_list(make_rows(24))


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model and its tokenizer on disk, float32."""
    path = tmp_path_factory.mktemp("tiny") / "tiny-random-llama"
    make_model(dtype=torch.float32).save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return str(path)
