"""What data and models can do to whoever loads them: nothing runs, no file outside is read, nothing is sent."""

from __future__ import annotations

import ast
import inspect
import os
import re
import socket
import struct
import tomllib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import timm
import torch
from helpers_classification import multilabel, rows
from helpers_trainer import data, fairpo
from helpers_trees import write_image, write_nus_wide
from timm.models import save_for_hf

from fairpo_trl.classification.data.images import UnreadableImageError, open_image
from fairpo_trl.classification.data.nus_wide import load_nus_wide
from fairpo_trl.classification.data.tables import load_table
from fairpo_trl.classification.features.backbones import load_backbone


ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(
    path for folder in ("fairpo_trl", "recipes", "experiments", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)

UNSAFE_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {
    "eval",
    "exec",
    "compile",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.load_all",
    "yaml.full_load",
    "yaml.unsafe_load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "jinja2.Template",
}
SAFE_ONLY_WITH = {  # call -> keyword and the one value it must have
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
    "np.save": ("allow_pickle", False),
}
ONLY_VALUE = {"trust_remote_code": False, "allow_pickle": False, "weights_only": True, "shell": False}
# Classes that load what others saved and can run its code; PEFT's and our own have no such option.
LOADERS = re.compile(r"(?!Peft|MultiLabel)[A-Z]\w*\.from_pretrained")
WEIGHTS = re.compile(r"(?:AutoModel\w*|AutoPeft\w*|\w+ForCausalLM)\.from_pretrained")


def unsafe(source: str) -> Iterator[str]:
    """Every place of a source that could run what a file holds."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"line {node.lineno}: imports {n}" for n in names if n.partition(".")[0] in UNSAFE_MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        values = {word.arg: word.value for word in node.keywords if word.arg}
        if name in UNSAFE_CALLS:
            yield f"line {node.lineno}: calls {name}"
        if name in SAFE_ONLY_WITH and SAFE_ONLY_WITH[name][0] not in values:
            yield f"line {node.lineno}: {name} without {SAFE_ONLY_WITH[name][0]}"
        if WEIGHTS.fullmatch(name) and "gguf_file" not in values:  # GGUF holds numbers and names
            values.setdefault("use_safetensors", ast.Constant(None))
        if LOADERS.fullmatch(name) and "trust_remote_code" not in values:
            yield f"line {node.lineno}: {name} without trust_remote_code=False"
        for keyword, wanted in {**ONLY_VALUE, "use_safetensors": True}.items():
            if keyword in values and ast.unparse(values[keyword]) != repr(wanted):
                yield f"line {node.lineno}: {name} with {keyword}={ast.unparse(values[keyword])}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_can_run_what_a_file_holds(path: Path) -> None:
    assert not list(unsafe(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=choice)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "subprocess.run(text, shell=True)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=args.trust)",
        "AutoModelForCausalLM.from_pretrained(name, trust_remote_code=False)",
        "AutoModelForCausalLM.from_pretrained(name, use_safetensors=True)",
        "AutoTokenizer.from_pretrained(name)",
        "Dinov2Model.from_pretrained(name, use_safetensors=True)",
        "AutoProcessor.from_pretrained(name, trust_remote_code=None)",
    ],
)
def test_the_search_finds(source: str) -> None:
    assert len(list(unsafe(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(p, weights_only=True)",
        "model.eval()",
        "yaml.safe_load(t)",
        "PeftModel.from_pretrained(m, n)",
    ],
)
def test_the_search_leaves_alone(source: str) -> None:
    assert not list(unsafe(source))


def test_libraries_without_the_option_cannot_run_code_either() -> None:
    """`datasets` and `timm` have no `trust_remote_code` to be set: should they get one, it has to be said here too."""
    for loader in (datasets.load_dataset, timm.create_model):
        assert "trust_remote_code" not in inspect.signature(loader).parameters


class MakesAFolder:
    """Makes a folder as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_pickle_among_the_weights_of_a_timm_folder_is_never_run(tmp_path: Path) -> None:
    save_for_hf(timm.create_model("test_vit", pretrained=False), tmp_path, safe_serialization=True)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"cls_token": MakesAFolder(tmp_path / "was run")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(Exception, match="weights_only"):
        load_backbone(f"timm:local-dir:{tmp_path}")
    assert not (tmp_path / "was run").exists()


# ---- file names in data ----


def test_a_table_of_paths_cannot_follow_a_link_out_of_its_folder(tmp_path: Path) -> None:
    secret = write_image(tmp_path / "secret.png")
    (tmp_path / "data" / "inside").mkdir(parents=True)
    (tmp_path / "data" / "labels.csv").write_text("path,labels\ninside/a.png,cat\n")
    (tmp_path / "data" / "inside" / "a.png").symlink_to(secret)
    with pytest.raises(ValueError, match=r"column 'path': The path 'inside/a.png' leads out of the data folder"):
        load_table(tmp_path / "data" / "labels.csv")
    (tmp_path / "data" / "inside" / "a.png").unlink()
    (tmp_path / "data" / "inside").rmdir()
    (tmp_path / "data" / "inside").symlink_to(tmp_path)  # a folder that is a link
    (tmp_path / "a.png").write_bytes(secret.read_bytes())
    with pytest.raises(ValueError, match="leads out of the data folder"):
        load_table(tmp_path / "data" / "labels.csv")


@pytest.mark.parametrize("path", ["/etc/hostname", "../secret.png", "secret.png"])
def test_the_path_beside_embedded_bytes_is_never_opened(path: str, tmp_path: Path) -> None:
    write_image(tmp_path / "secret.png")
    folder = tmp_path / "data"
    folder.mkdir()
    write_image(folder / "secret.png")
    cells = pa.array([{"bytes": None, "path": path}], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    pq.write_table(pa.table({"image": cells, "labels": [["cat"]]}), folder / "labels.parquet")
    with pytest.raises(ValueError, match="row 1, column 'image' holds no bytes"):
        load_table(folder / "labels.parquet")


def test_a_list_of_nus_wide_cannot_follow_a_link_out_of_its_folder(tmp_path: Path) -> None:
    root = write_nus_wide(tmp_path / "nus", {"actor\\0001_1.jpg": []}, {"actor\\0002_1.jpg": []})
    image = root / "Flickr" / "actor" / "0001_1.jpg"
    image.rename(tmp_path / "secret.jpg")
    image.symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(ValueError, match="'actor/0001_1.jpg' leads out of the data folder"):
        load_nus_wide(root)


def test_a_file_of_bytes_that_claims_gigapixels_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    with pytest.raises(UnreadableImageError, match=r"bomb.png: too large"):
        open_image(path)


# ---- what leaves the machine ----


def test_training_of_both_halves_opens_no_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> NoReturn:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    trainer = fairpo(tmp_path / "pairs", data(8), max_steps=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "pairs"))
    labels = multilabel(tmp_path / "labels", rows(8), max_steps=1)
    labels.train()
    labels.save_model(str(tmp_path / "labels"))
    assert trainer.state.global_step == labels.state.global_step == 1


def test_telemetry_is_off_in_tests_and_in_what_make_runs() -> None:
    assert huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    for name in ("TEST_ENV", "RUN_ENV"):
        (definition,) = [line for line in lines if line.startswith(f"{name} :=")]
        assert "HF_HUB_DISABLE_TELEMETRY=1" in definition
    runs = [
        line
        for line in lines
        if re.search(r"\$\(BIN\)/python.*(?:recipes/|experiments|script|tests/|-m pytest)", line)
    ]
    assert runs and all("$(TEST_ENV)" in line or "$(RUN_ENV)" in line for line in runs), runs


# ---- what it stands on ----


def test_every_dependency_and_its_bound_is_explained() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8").replace("`", "")
    names = [re.split(r"[<>=;\[ ]", entry)[0] for entry in project["dependencies"]]
    assert len(names) > 15
    assert not [name for name in names if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text)]
    (trl,) = [entry for entry in project["dependencies"] if entry.startswith("trl")]
    assert "<" in trl and trl.removeprefix("trl") in text


def test_no_dependency_of_the_library_is_unbounded_below() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [entry for group in project["optional-dependencies"].values() for entry in group]
    assert not [entry for entry in (*project["dependencies"], *extras) if not re.search(r">=|^fairpo_trl\[", entry)]


def test_no_token_of_the_hub_is_in_the_repository() -> None:
    """What `make secrets` does not know: tokens of the Hub are `hf_` and 34 letters."""
    texts = [p for p in ROOT.rglob("*") if p.suffix in (".py", ".md", ".yaml", ".yml", ".toml", ".json", ".jsonl")]
    texts = [path for path in texts if not {".venv", ".git"} & set(path.relative_to(ROOT).parts)]
    assert len(texts) > 300
    token = re.compile(r"\bhf_[A-Za-z]{34}\b")
    assert token.search("hf_" + "aB" * 17)
    assert [str(path) for path in texts if token.search(path.read_text(encoding="utf-8", errors="ignore"))] == []
