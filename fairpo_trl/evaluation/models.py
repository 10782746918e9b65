"""Models by folder or Hub id: full models and adapters, of which several may share one loaded base."""

import difflib
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError
from peft import PeftConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from fairpo_trl.evaluation.completions import Model
from fairpo_trl.files import looks_like_path
from fairpo_trl.hashing import sha256, sha256_of_file, sha256_of_json
from fairpo_trl.loading import check_model_folder, explained


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
_READ = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "chat_templates/*.jinja")
_NOT_READ = ("trainer_state.json", "fairpo_*.json", "results.json", "all_results.json", "*_results.json")


@dataclass(frozen=True)
class ModelSource:
    """
    A model that can be loaded.

    Attributes:
        name: As the user named it.
        folder: Its folder, in the Hub cache for a Hub id.
        base: Folder of the base if it is an adapter, else `None`.
        tokenizer: Folder of its tokenizer.
    """

    name: str
    folder: Path
    base: Path | None
    tokenizer: Path

    @property
    def weights(self) -> Path:
        """Folder of the full model, its own or that of the base."""
        return self.base or self.folder

    def fingerprint(self) -> str:
        """A hash of everything that what it writes depends on."""
        parts = [fingerprint(folder) for folder in (self.folder, self.weights, self.tokenizer)]
        return sha256(part.encode() for part in parts)


def find_model(name: str, *, base_model: str | None = None, tokenizer: str | None = None) -> ModelSource:
    """
    Find a model and what it needs, without loading it; a Hub id is downloaded.

    Args:
        name (`str`):
            Folder or Hub id of a full model or an adapter.
        base_model (`str`, *optional*):
            Base of an adapter, instead of the one that its configuration names.
        tokenizer (`str`, *optional*):
            Folder or Hub id of its tokenizer, instead of its own or the base's.

    Raises:
        FileNotFoundError: If there is no such folder or Hub id, or the base is not there.
        ValueError: If the folder holds no model in safetensors, or an adapter of a kind that is not supported.
    """
    folder = find_folder(name, "model")
    base = None
    if (folder / "adapter_config.json").is_file():
        _require_safetensors(folder, name, "adapter_model*.safetensors")
        with explained(name, "adapter"):
            config = PeftConfig.from_pretrained(str(folder))
        if config.is_prompt_learning:
            raise ValueError(
                f"{name!r} is an adapter of kind {config.peft_type.value}, which adds tokens to the input: that is "
                "not supported. Evaluate an adapter that changes weights, such as LoRA."
            )
        base_name = base_model or config.base_model_name_or_path
        if not base_name:
            raise ValueError(f"The adapter {name!r} names no base model: pass `base_model`.")
        try:
            base = find_folder(base_name, "base model")
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"The adapter {name!r} needs its base: {error} Name it with `base_model`."
            ) from error
    full = base or folder
    if not (full / "config.json").is_file():
        checkpoints = sorted(path.name for path in full.glob("checkpoint-*"))
        hint = f" Name one of its checkpoints, as {full / checkpoints[-1]}." if checkpoints else ""
        raise ValueError(
            f"{str(base_name) if base else name!r} holds neither config.json nor adapter_config.json: it is no saved "
            f"model.{hint}"
        )
    _require_safetensors(full, str(full) if base else name, "*.safetensors")
    for part in dict.fromkeys((folder, full)):
        check_model_folder(part)
    if tokenizer is not None:
        return ModelSource(name, folder, base, find_folder(tokenizer, "tokenizer"))
    own = any((folder / file).is_file() for file in _TOKENIZER_FILES)
    return ModelSource(name, folder, base, folder if own else full)


def find_folder(name: str, what: str) -> Path:
    """
    The folder of a model: itself, or where a Hub id was downloaded to.

    Raises:
        FileNotFoundError: If there is neither; names near folders.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    near = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(path.name, near, n=1)
    hint = f" Did you mean {str(path.parent / close[0])!r}?" if close else ""
    if looks_like_path(name):
        raise FileNotFoundError(f"There is no folder {name!r} with the {what}.{hint}")
    try:
        return Path(snapshot_download(name, allow_patterns=list(_READ)))
    except (OSError, ValueError, HTTPError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise FileNotFoundError(
            f"The {what} {name!r} is no folder here, and not to be had from the Hub ({reason.rstrip('.')}).{hint}"
        ) from error


def fingerprint(folder: Path) -> str:
    """A hash of a saved model: the content of every file that is read, weights, tokenizer and templates among them."""
    names = {path for pattern in _READ for path in folder.glob(pattern)}
    names -= {path for pattern in _NOT_READ for path in folder.glob(pattern)}
    return sha256_of_json({path.relative_to(folder).as_posix(): _content_hash(path) for path in names})


def _content_hash(path: Path) -> str:
    """Hash of a file, read once by this process as long as nobody writes it: adapters share their base."""
    stat = path.stat()
    return _hash_as_of(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@functools.lru_cache(maxsize=1024)
def _hash_as_of(path: Path, size: int, time: int, inode: int) -> str:
    return sha256_of_file(path)


class LoadedModels:
    """
    Opens models one after the other; the last base stays loaded, for the next adapter on it.

    `dtype` is `auto` for the precision of the files, or `float32`, `bfloat16`, `float16`.
    """

    def __init__(self, dtype: str = "auto") -> None:
        self.dtype = dtype
        self._folder: Path | None = None
        self._model: Any = None

    @contextmanager
    def open(self, source: ModelSource) -> Iterator[Model]:
        """The model, on the GPU if there is one; an adapter is taken off again afterwards."""
        base = self._load(source.weights)
        if source.base is None:
            yield base
            return
        with explained(source.name, "adapter"):
            model = PeftModel.from_pretrained(base, str(source.folder))
        try:
            yield model.eval()
        finally:
            self._model = model.unload()  # the base without the adapter's layers
            if hasattr(self._model, "peft_config"):  # PEFT leaves it, and warns of it at the next adapter
                del self._model.peft_config

    def close(self) -> None:
        """Forgets the base."""
        self._folder, self._model = None, None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _load(self, folder: Path) -> Any:
        if self._folder != folder:
            self.close()
            model = load_causal(folder, self.dtype)
            self._model, self._folder = model.to("cuda" if torch.cuda.is_available() else "cpu").eval(), folder
        return self._model


def load_causal(folder: Path, dtype: str = "auto", what: str = "model") -> Any:
    """A full language model of a folder, on the CPU; errors call it `what`."""
    with explained(folder, what):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, trust_remote_code=False)


def load_tokenizer(source: ModelSource) -> PreTrainedTokenizerBase:
    """The tokenizer of a model."""
    with explained(source.tokenizer, "tokenizer"):
        return AutoTokenizer.from_pretrained(source.tokenizer, trust_remote_code=False)


def _require_safetensors(folder: Path, name: str, pattern: str) -> None:
    if not any(folder.glob(pattern)):
        pickled = any(folder.glob("*.bin"))
        why = (
            "only pickled weights (.bin), which can run code: save it again as safetensors"
            if pickled
            else f"no weights ({pattern}): save the model again, or name another folder"
        )
        raise ValueError(f"{name!r} holds {why}.")
