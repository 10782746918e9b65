"""Whatever a file or table holds: rows that training accepts, or one of the documented errors."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import make_rows
from datasets import Dataset
from helpers_trees import coco_content, edit_coco, write_coco, write_image
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_converters import JSON, changed, places

from fairpo_trl.classification.data.coco import load_coco_2014
from fairpo_trl.classification.data.images import resolve_inside
from fairpo_trl.classification.data.label_cells import matrix_of_columns, matrix_of_names, names_of_cells
from fairpo_trl.classification.data.tables import load_features, load_table
from fairpo_trl.generation.data_check import check_overlap, prepare_rows
from fairpo_trl.preferences import load_preferences, split_by_prompt
from fairpo_trl.preferences.ratings import pairs_from_ratings
from fairpo_trl.preferences.rules import completion_text, find_problems, one_format, prompt_key


CHAT = [
    {
        "prompt": [{"role": "user", "content": f"question {i}"}],
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
        "attribute": ["kind", "brief"][i % 2 :],
    }
    for i in range(3)
]


def mutated(data: st.DataObject, rows: list[Any], most: int = 3) -> list[Any]:
    """Rows of which up to `most` places hold something else."""
    for _ in range(data.draw(st.integers(0, most))):
        index = data.draw(st.integers(0, len(rows) - 1))
        rows[index] = changed(rows[index], data.draw(st.sampled_from(places(rows[index]))), data.draw(JSON))
    return rows


def assert_documented(error: BaseException) -> None:
    assert isinstance(error, ValueError | OSError) and 0 < len(str(error)) < 3000


# ---- preference pairs ----


@given(st.sampled_from([make_rows(3), CHAT]), st.data())
def test_pairs_without_a_problem_can_be_trained_on(rows: list, data: st.DataObject):
    rows = [row for row in mutated(data, copy.deepcopy(rows)) if isinstance(row, dict)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    problems, counts = find_problems(rows, columns, "train", "attribute")
    bad = {index for problem in problems for index in problem.rows}
    assert all(0 < len(problem.message) < 3000 for problem in problems)
    if any(not problem.rows for problem in problems):
        return
    assert bad <= set(range(len(rows))) and sum(counts.values()) >= len(rows) - len(bad)
    for row in (row for index, row in enumerate(rows) if index not in bad):
        assert one_format(row, [name for name in ("prompt", "chosen", "rejected") if name in columns])
        texts = [completion_text(row[name]) for name in ("chosen", "rejected")]
        assert all(text.strip() for text in texts) and texts[0] != texts[1]
        for messages in (row[name] for name in ("chosen", "rejected") if isinstance(row[name], list)):
            assert all(isinstance(message["role"], str) for message in messages)
        names = row["attribute"] if isinstance(row["attribute"], (list, tuple)) else [row["attribute"]]
        assert names and all(counts[name] > 0 for name in names)


@given(st.sampled_from([make_rows(3), CHAT]), st.integers(0, 400), st.data())
def test_a_file_of_pairs_is_read_or_refused(tmp_path_factory: Any, rows: list, cut: int, data: st.DataObject):
    text = "\n".join(json.dumps(row) for row in mutated(data, copy.deepcopy(rows)))
    content = bytearray(text.encode())
    if data.draw(st.booleans()):
        content[cut : cut + data.draw(st.integers(0, 9))] = data.draw(st.binary(max_size=4))
    path = (
        tmp_path_factory.mktemp("pairs")
        / f"pairs{data.draw(st.sampled_from(['.jsonl', '.json', '.csv', '.parquet']))}"
    )
    path.write_bytes(bytes(content))
    try:
        splits = load_preferences(path, console=Console(file=io.StringIO()))
    except Exception as error:
        assert_documented(error)
        return
    for split, pairs in splits.items():
        assert sum(prepare_rows(pairs, split, "attribute")[1].values()) >= len(pairs) > 0
        assert {"prompt", "chosen", "rejected", "attribute"} <= set(pairs.column_names)


CELL = st.one_of(st.integers(-3, 3), st.floats(), st.none(), st.booleans(), st.text("12x", max_size=2))


@given(
    st.lists(st.tuples(st.sampled_from(["p", "q", " "]), st.text("xyz ", max_size=2), CELL, CELL), max_size=8),
    st.one_of(st.floats(), st.integers(0, 2)),
    st.one_of(st.none(), st.integers(-1, 3)),
)
def test_ratings_give_ordered_pairs_or_say_why_not(table: list, margin: Any, limit: int | None):
    frame = pd.DataFrame(table, columns=["prompt", "response", "kind", "brief"], dtype=object)
    try:
        converted = pairs_from_ratings(frame, ["kind", "brief"], min_margin=margin, max_pairs_per_prompt=limit)
    except ValueError as error:
        assert_documented(error)
        return
    rating = {(row.prompt, row.response, name): row[name] for _, row in frame.iterrows() for name in ("kind", "brief")}
    for pair in converted.rows:
        better, worse = (rating[pair["prompt"], pair[side], pair["attribute"]] for side in ("chosen", "rejected"))
        assert better > worse and better - worse >= margin - 1e-9
    per_prompt = pd.DataFrame(converted.rows).groupby(["prompt", "attribute"]).size()
    assert limit is None or per_prompt.max() <= limit


@given(st.lists(st.text("aAb \n", min_size=1, max_size=3), min_size=1, max_size=8), st.floats())
def test_no_prompt_is_on_both_sides(prompts: list[str], share: float):
    rows = Dataset.from_list([{"prompt": prompt, "number": i} for i, prompt in enumerate(prompts)])
    try:
        first, second = split_by_prompt(rows, share)
    except ValueError as error:
        assert_documented(error)
        return
    keys = [{prompt_key(prompt) for prompt in part["prompt"]} for part in (first, second)]
    assert all(keys) and not keys[0] & keys[1]
    assert sorted([*first["number"], *second["number"]]) == list(range(len(prompts)))
    check_overlap(first, {"test": second})
    with pytest.raises(ValueError, match="the again data have a prompt of the training data"):
        check_overlap(first, {"again": first})


# ---- images and labels ----


@pytest.fixture(scope="module")
def coco_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("coco"), {9: ["dog"], 25: ["cat", "dog"]}, {42: ["dog"]})


@given(st.data())
def test_annotations_are_read_or_refused(coco_tree: Path, data: st.DataObject):
    content = coco_content("train", {9: ["dog"], 25: ["cat", "dog"]})
    part = data.draw(st.sampled_from(["images", "annotations", "categories"]))
    content[part] = data.draw(JSON) if data.draw(st.integers(0, 9)) == 0 else mutated(data, content[part])
    edit_coco(coco_tree, "train", content)
    try:
        splits = load_coco_2014(coco_tree, missing_images="skip", keep_unlabeled=data.draw(st.booleans()))
    except Exception as error:
        assert_documented(error)
        return
    for split in splits.values():
        assert split.labels.shape == (len(split), 80) and set(np.unique(split.labels)) <= {0, 1}
        folder = coco_tree.resolve()
        assert all(Path(image).resolve().is_relative_to(folder) for image in split.images)


@given(st.text("./\\:~ab\0", max_size=12))
def test_no_name_leads_out_of_its_folder(tmp_path_factory: Any, name: str):
    root = tmp_path_factory.getbasetemp().resolve() / "data"
    try:
        path = resolve_inside(root, name)
    except ValueError as error:
        assert_documented(error)
        return
    assert path.resolve().is_relative_to(root) and str(path).startswith(str(root))


VALUE = st.one_of(st.text(' ab1,;|"[]\n', max_size=6), JSON)


@given(st.lists(VALUE, min_size=1, max_size=5), st.none() | st.lists(st.text("ab", max_size=1), max_size=3), st.data())
def test_cells_become_a_matrix_or_are_named(cells: list, names: list | None, data: st.DataObject):
    separator = data.draw(st.sampled_from([None, "", "|", ",", ";"]))
    for read in (
        lambda: matrix_of_names(names_of_cells(cells, separator, "t.csv", "labels"), names, "t.csv", "labels"),
        lambda: matrix_of_columns(
            {"a": cells, "b": cells[::-1]},
            data.draw(st.none() | st.just("?")),
            "t.csv",
            data.draw(st.none() | st.sampled_from(["", "?", "-1"])),
        ),
    ):
        try:
            found, labels = read()
        except ValueError as error:
            assert_documented(error)
        else:
            assert labels.shape == (len(cells), len(found)) and set(np.unique(labels)) <= {-1, 0, 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("a.png", "b.png"):
        write_image(folder / name)
    return folder


ROW = st.fixed_dictionaries(
    {"path": st.sampled_from(["a.png", "b.png", "c.png", "../a.png"]) | JSON, "labels": st.just(["cat"]) | VALUE},
    optional={
        "id": st.text("ab", max_size=2) | JSON,
        "split": st.sampled_from(["train", "test"]) | JSON,
        "series": JSON,
    },
)


@given(st.lists(ROW, max_size=3), st.sampled_from([".jsonl", ".csv"]), st.booleans(), st.data())
def test_a_table_is_read_or_refused(pictures: Path, rows: list, suffix: str, skip: bool, data: st.DataObject):
    if suffix == ".jsonl":
        text = "\n".join(json.dumps(row, ensure_ascii=data.draw(st.booleans())) for row in rows)
    else:
        buffer = io.StringIO()
        columns = list(dict.fromkeys(name for row in rows for name in row)) or ["path"]
        writer = csv.DictWriter(buffer, columns)
        writer.writeheader()
        writer.writerows(
            {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()} for row in rows
        )
        text = buffer.getvalue()
    content = bytearray(text.encode("utf-8", errors="surrogatepass"))
    if content and data.draw(st.integers(0, 3)) == 0:
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (pictures / f"labels{suffix}").write_bytes(bytes(content))
    try:
        splits = load_table(pictures / f"labels{suffix}", missing_images="skip" if skip else "raise")
    except Exception as error:
        assert_documented(error)
        return
    ids = [name for split in splits.values() for name in split.ids]
    assert len(set(ids)) == len(ids) <= len(rows)
    assert all(Path(image).is_file() for split in splits.values() for image in split.images)


@given(st.binary(max_size=200), st.booleans(), st.data())
def test_features_are_read_or_refused(tmp_path_factory: Any, junk: bytes, real: bool, data: st.DataObject):
    folder = tmp_path_factory.mktemp("features")
    content = bytearray(junk)
    if real:
        buffer = io.BytesIO()
        kind = data.draw(st.sampled_from([np.float16, np.float32, np.float64, np.int8]))
        shape = data.draw(st.sampled_from([(2, 3), (2,), (3, 2), (2, 0)]))
        np.save(buffer, np.full(shape, data.draw(st.sampled_from([0, 1, math.nan])) if kind != np.int8 else 1, kind))
        content = bytearray(buffer.getvalue())
        if data.draw(st.booleans()):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (folder / data.draw(st.sampled_from(["features.npy", "features.safetensors"]))).write_bytes(bytes(content))
    (folder / "labels.csv").write_text("id,cat\nx,1\ny,0\n")
    try:
        splits = load_features(folder, label_columns="all")
    except Exception as error:
        assert_documented(error)
        return
    assert splits["train"].features.shape[0] == 2 and np.isfinite(splits["train"].features).all()
