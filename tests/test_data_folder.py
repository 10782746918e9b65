"""A local data folder that somebody else made reads nothing outside itself and calls nobody."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from fairpo_trl.classification.data.load import ClassificationArguments, load_splits
from fairpo_trl.data_folder import check_data_folder
from fairpo_trl.generation.data import load_pairs
from fairpo_trl.preferences.read import read_splits


ROW = {"prompt": "ok", "chosen": "c", "rejected": "r", "attribute": "x"}
SECRET = {**ROW, "prompt": "SECRET"}


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An address of a file, and the requests that came."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(SECRET).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/data.jsonl", asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret.jsonl").write_text(json.dumps(SECRET))
    made = tmp_path / "data"
    made.mkdir()
    (made / "a.jsonl").write_text(json.dumps(ROW))
    return made


def card(folder: Path, data_files: Any, name: str = "README.md") -> None:
    configs = json.dumps({"configs": [{"config_name": "default", "data_files": data_files}]})
    (folder / name).write_text(f"---\n{configs}\n---\n# Data\n" if name.endswith(".md") else configs)


@pytest.mark.parametrize("name", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("shape", [str, lambda f: [f], lambda f: [{"split": "train", "path": ["a.jsonl", f]}]])
@pytest.mark.parametrize("kind", ["absolute", "up", "inner up", "windows", "url", "chained", "file", "home"])
def test_a_card_cannot_name_what_is_not_in_the_folder(
    folder: Path, server: tuple[str, list[str]], kind: str, shape: Any, name: str
) -> None:
    address, asked = server
    named = {
        "absolute": str(folder.parent / "secret.jsonl"),
        "up": "../secret.jsonl",
        "inner up": "a/../../secret.jsonl",
        "windows": "..\\secret.jsonl",
        "url": address,
        "chained": f"zip://x::{address}",
        "file": f"file:{folder.parent}/secret.jsonl",
        "home": "~/secret.jsonl",
    }[kind]
    card(folder, shape(named), name)
    with pytest.raises(ValueError, match=r"which is not in this folder: put the file there"):
        read_splits(folder)
    with pytest.raises(ValueError, match=r"which is not in this folder: put the file there"):
        load_pairs(str(folder), streaming=True)
    assert not asked


def test_links_and_states_cannot_either(folder: Path) -> None:
    (folder / "b.jsonl").symlink_to(folder.parent / "secret.jsonl")
    with pytest.raises(ValueError, match=r"b.jsonl is a link out of the data folder"):
        read_splits(folder)
    (folder / "b.jsonl").unlink()
    (folder / "deep").mkdir()
    (folder / "deep" / "up").symlink_to(folder.parent)
    with pytest.raises(ValueError, match=r"up is a link out of the data folder"):
        read_splits(folder)


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_saved_data_set_cannot_either(tmp_path: Path, dictionary: bool) -> None:
    rows = Dataset.from_list([ROW])
    rows.save_to_disk(tmp_path / "other")
    saved = tmp_path / "saved"
    (DatasetDict({"train": rows}) if dictionary else rows).save_to_disk(saved)
    assert read_splits(saved)["train"][0] == ROW
    state = saved / "train" / "state.json" if dictionary else saved / "state.json"
    facts = json.loads(state.read_text())
    depth = "../.." if dictionary else ".."
    facts["_data_files"] = [{"filename": f"{depth}/other/data-00000-of-00001.arrow"}]
    state.write_text(json.dumps(facts))
    arguments = ClassificationArguments(dataset="datasets", dataset_name=str(saved))
    for load in (lambda: read_splits(saved), lambda: load_splits(arguments)):
        with pytest.raises(ValueError, match="which is not in this folder"):
            load()
    if dictionary:
        state.write_text(json.dumps({**facts, "_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
        (saved / "dataset_dict.json").write_text(json.dumps({"splits": ["../other"]}))
        with pytest.raises(ValueError, match="which is not in this folder"):
            read_splits(saved)


def test_a_card_that_names_its_own_files_is_read(folder: Path) -> None:
    card(folder, [{"split": "train", "path": "a.*"}])
    assert read_splits(folder)["train"][0]["prompt"] == "ok"
    (folder / "README.md").write_text("# No metadata, and a rule\n---\nhttp://example.org\n---\n")
    assert read_splits(folder)["train"][0]["prompt"] == "ok"
    snapshot = folder.parent / "datasets--some--data" / "snapshots" / "0a"
    snapshot.mkdir(parents=True)
    blob = snapshot.parents[1] / "blobs"
    blob.mkdir()
    (blob / "1").write_text(json.dumps(ROW))
    (snapshot / "a.jsonl").symlink_to(blob / "1")
    check_data_folder(snapshot)
