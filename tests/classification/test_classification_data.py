"""Splits of multi-label data, images as RGB, and tables of one's own."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageFeature
from helpers_trees import write_image
from PIL import Image
from rich.console import Console

from fairpo_trl.classification.data.hf_datasets import from_dataset
from fairpo_trl.classification.data.images import UnreadableImageError, find_images, open_image, resolve_inside
from fairpo_trl.classification.data.split import MultiLabelSplit, check_splits, print_data_summary
from fairpo_trl.classification.data.tables import load_features, load_table
from fairpo_trl.classification.data.yeast import load_yeast


NAMES = ("cat", "dog", "sea")


def make_split(labels: Any = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, -1)), **changes: Any) -> MultiLabelSplit:
    labels = np.array(labels)
    values = {"name": "train", "label_names": NAMES, "labels": labels, "ids": [f"{i}.jpg" for i in range(len(labels))]}
    return MultiLabelSplit(**{**values, **changes})


def encoded(color: str = "red", format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3), color).save(buffer, format)
    return buffer.getvalue()


def rows_of(split: MultiLabelSplit) -> dict[str, list[int]]:
    return dict(zip(split.ids, split.labels.tolist(), strict=True))


# ---- one split ----


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.zeros((4, 2))}, r"3 label names, so `labels` must have shape \[N, 3\], got \[4, 2\]"),
        ({"labels": np.array([[0, 1, 0], [0, 0, 2]]), "ids": ["a", "b"]}, r"row 1, label 'sea' holds 2;"),
        ({"labels": np.array([[0, 0.5, 0]]), "ids": ["a"]}, r"row 0, label 'dog' holds 0\.5"),
        ({"labels": np.zeros((0, 3)), "ids": []}, r"train split has no example left"),
        ({"ids": ["a", "b", "c", "b"]}, r"id 'b' occurs twice, in rows 1 and 3"),
        ({"ids": ["a", "b", " ", "d"]}, r"id in row 2 must be a non-empty string, got ' '"),
        ({"ids": ["a", "b"]}, r"4 rows of labels but 2 `ids`"),
        ({"label_names": ("cat", "dog", "cat")}, r"label name 'cat' occurs twice, in columns 0 and 2"),
        ({"label_names": ("cat", "", "sea")}, r"label name in column 1 must be a non-empty string"),
        ({"label_names": "cat"}, r"must be a list of names, got the string 'cat'"),
        ({"series": ("a", "a", "b", None)}, r"series in row 3 must be a non-empty string, got None"),
        ({"images": [b"x"]}, r"4 rows of labels but 1 `images`"),
        ({"features": np.zeros((3, 5), dtype=np.float32)}, r"features must be \[4, D\], got \[3, 5\]"),
        ({"features": np.zeros((4, 5))}, r"float16 or float32, got float64"),
    ],
)
def test_what_does_not_fit_is_named_with_its_place(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_split(**changes)


def test_a_feature_that_is_not_finite_is_named_with_row_and_column() -> None:
    features = np.zeros((9000, 3), dtype=np.float16)
    features[8999, 1] = np.nan
    labels = np.ones((9000, 3))
    with pytest.raises(ValueError, match=r"feature nan in row 8999, column 1"):
        make_split(labels, features=features)


def test_a_selection_keeps_rows_together_in_the_order_asked_for() -> None:
    split = make_split(
        images=[encoded("red"), encoded("green"), encoded("blue"), encoded("white")],
        features=np.arange(8, dtype=np.float32).reshape(4, 2),
        series=("a", "a", "b", "c"),
    )
    part = split.select([3, 0])
    assert part.ids == ("3.jpg", "0.jpg") and part.series == ("c", "a")
    assert part.labels.tolist() == [[1, 1, -1], [1, 0, 0]] and part.features.tolist() == [[6, 7], [0, 1]]
    assert list(part.images) == [encoded("white"), encoded("red")]
    again = part.select([1])
    assert list(again.images) == [encoded("red")] and again.ids == ("0.jpg",)
    assert pickle.loads(pickle.dumps(again)).images[0] == encoded("red")  # as worker processes do
    mask = split.select(np.array([False, True, False, True]), name="test")
    assert mask.name == "test" and mask.ids == ("1.jpg", "3.jpg")


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([4], r"rows 0 to 3, not \[4\]"),
        ([-1], r"rows 0 to 3, not \[-1\]"),
        ([1, 1], r"id '1.jpg' occurs twice"),
        ([], r"no example left"),
        ([True, False], r"one entry for each of 4 rows"),
        ([0.5], r"list of row numbers"),
    ],
)
def test_a_wrong_selection_is_refused(indices: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_split().select(indices)


def test_neighbouring_rows_of_a_memory_map_stay_on_disk(tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.ones((4, 2), dtype=np.float32))
    split = make_split(features=np.load(tmp_path / "f.npy", mmap_mode="r"))
    assert isinstance(split.select([1, 2]).features, np.memmap)


def test_counts_are_of_positives_alone() -> None:
    assert make_split().label_counts() == {"cat": 2, "dog": 2, "sea": 1}


def test_the_hash_sees_ids_names_and_labels_and_nothing_else() -> None:
    split = make_split()
    same = make_split(name="test", notes={"dropped": 3}).with_features(np.ones((4, 2), dtype=np.float32))
    assert split.content_hash() == same.content_hash() and len(split.content_hash()) == 64
    others = [
        make_split(label_names=("cat", "sea", "dog")),
        make_split(ids=["0.jpg", "1.jpg", "2.jpg", "4.jpg"]),
        make_split(((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0))),
        split.select([1, 0, 2, 3]),
    ]
    assert len({split.content_hash(), *(other.content_hash() for other in others)}) == 5


# ---- validation ----


def big_split(seed: int = 0, series: bool = True) -> MultiLabelSplit:
    generator = np.random.default_rng(seed)
    labels = (generator.random((400, 6)) < [0.5, 0.3, 0.1, 0.02, 0.01, 0.005]).astype(int)
    labels[:, 5] = 0
    labels[17, 5] = 1  # a label with one positive
    return MultiLabelSplit(
        "train",
        tuple("abcdef"),
        labels,
        tuple(f"{i:03d}" for i in range(400)),
        series=tuple(f"s{i}" for i in generator.integers(0, 120, 400)) if series else None,
    )


@pytest.mark.parametrize("seed", range(5))
def test_validation_never_cuts_a_series_or_takes_the_last_positive(seed: int) -> None:
    split = big_split(seed)
    train, validation = split.carve_validation(0.2, seed)
    assert sorted(train.ids + validation.ids) == list(split.ids)
    assert not set(train.series) & set(validation.series)
    assert 70 <= len(validation) <= 80
    before, after = split.label_counts(), train.label_counts()
    assert all(after[name] > 0 for name in before if before[name])
    assert (train.name, validation.name) == ("train", "validation")
    assert "f" in str(validation.notes["labels without a positive in validation"]).split(", ")
    assert list(train.ids) == sorted(train.ids)  # rows keep their order
    check_splits({"train": train, "validation": validation})


def test_validation_has_exactly_the_share_without_series_and_follows_the_seed() -> None:
    split = big_split(series=False)
    first, again, other = (split.carve_validation(0.1, seed)[1] for seed in (3, 3, 4))
    assert len(first) == 40
    assert first.ids == again.ids != other.ids


def test_a_label_without_any_positive_is_said_to_be_missing_from_train() -> None:
    labels = np.zeros((20, 3))
    labels[:, 0] = 1
    train, validation = make_split(labels).carve_validation(0.25)
    assert train.notes["labels without a positive in train"] == "dog, sea"
    assert validation.notes["labels without a positive in validation"] == "dog, sea"
    assert validation.notes["carved from"] == "train, share 0.25, seed 0"


def test_a_series_too_long_for_validation_is_an_error_that_says_so() -> None:
    with pytest.raises(ValueError, match=r"No series of the train split fits into a validation part of 1 rows"):
        make_split(series=("a", "a", "b", "b")).carve_validation(0.25)
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.0"):
        make_split().carve_validation(1.0)


# ---- between splits ----


def test_shared_ids_series_and_other_orders_are_refused() -> None:
    train = make_split(series=("a", "b", "c", "d"))
    test = make_split(name="test", ids=["w", "x", "3.jpg", "z"])
    with pytest.raises(ValueError, match=r"'train' and 'test' share 1 ids, .*leaks into the other: 3.jpg"):
        check_splits({"train": train, "test": test})
    test = make_split(name="test", ids=list("wxyz"), series=("e", "b", "a", "f"))
    with pytest.raises(ValueError, match=r"share 2 series.*: a, b\. Mend: keep each series in one split"):
        check_splits({"train": train, "test": test})
    test = make_split(name="test", ids=list("wxyz"), label_names=("cat", "sea", "dog"))
    with pytest.raises(ValueError, match=r"column 1 is 'dog' in one and 'sea' in the other"):
        check_splits({"train": train, "test": test})


def test_the_summary_shows_sizes_order_hash_notes_and_rarest_labels() -> None:
    train = make_split(notes={"missing images, skipped": 1234}, images=[b""] * 4)
    test = make_split([[0, 0, 0]], name="test", ids=["x"], features=np.ones((1, 7), dtype=np.float16))
    console = Console(file=io.StringIO(), width=160)
    print_data_summary({"train": train, "test": test}, console)
    text = console.file.getvalue()
    for split in (train, test):
        assert f"{split.name}: content hash {split.content_hash()}" in text
    assert "3 labels in this order: cat, dog, sea" in text
    assert "train: missing images, skipped: 1,234" in text
    assert "features 7 x float16" in text
    table = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if ":" not in line]
    assert ["train", "images", "4", "0", "–", "1"] in table
    assert ["test", "features 7 x float16", "1", "1", "–", "0"] in table
    rarest = table.index(["label", "train", "test"])
    assert table[rarest + 2 : rarest + 5] == [["sea", "1", "0"], ["cat", "2", "0"], ["dog", "2", "0"]]


# ---- images ----


def test_images_come_as_rgb_from_files_bytes_and_pil(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", (4, 3), "red")
    for source in (path, path.read_bytes(), Image.open(path)):
        image = open_image(source)
        assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 3), (255, 0, 0))


def transparent(mode: str) -> Image.Image:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    if mode == "P":
        palette = Image.new("P", (2, 1), 0)
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.putpixel((1, 0), 1)
        palette.info["transparency"] = 0
        return palette
    return image.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white_not_black(mode: str, tmp_path: Path) -> None:
    transparent(mode).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0x8000, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "a.png")
    image = open_image(tmp_path / "a.png")
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0,) * 3, (128,) * 3, (255,) * 3]
    with pytest.raises(UnreadableImageError, match=r"mode 'F' have no fixed range"):
        open_image(Image.new("F", (2, 2)))


def test_photos_are_turned_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 2))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_image(tmp_path / "a.jpg").size == (2, 4)


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7])
def test_a_broken_file_is_unreadable_with_its_name_and_never_an_image(
    format: str, kept: float, tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format)
    content = buffer.getvalue()
    path = tmp_path / "broken.bin"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UnreadableImageError, match=r"broken.bin"):
        open_image(path)
    with pytest.raises(UnreadableImageError, match=r"^row 7: "):
        open_image(path.read_bytes(), name="row 7")


def test_a_missing_file_and_a_text_file_are_unreadable(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"gone.png: there is no such file"):
        open_image(tmp_path / "gone.png")
    (tmp_path / "a.jpg").write_text("<html>404</html>")
    with pytest.raises(UnreadableImageError, match=r"a.jpg: not a readable image"):
        open_image(tmp_path / "a.jpg")
    assert issubclass(UnreadableImageError, ValueError)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch) -> None:
    path = write_image(tmp_path / "big.png", (50, 40))
    with pytest.raises(UnreadableImageError, match=r"big.png: 50 x 40 = 2,000 pixels, more than max_pixels=1,999"):
        open_image(path, max_pixels=1999)
    assert open_image(path, max_pixels=2000).size == (50, 40)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)  # Pillow's own limit speaks first
    with pytest.raises(UnreadableImageError, match=r"big.png: too large, .*MAX_IMAGE_PIXELS"):
        open_image(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1900)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImageError, match=r"big.png: too large"):
            open_image(path)


def test_images_of_a_folder_are_sorted_and_hidden_ones_left_out(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a.webp", ".hidden.png", ".cache/x.png"):
        write_image((tmp_path / name).with_suffix(".png")).rename(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a.webp", "a/z.png", "b.JPG"]
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no image; looked for \.bmp"):
        find_images(tmp_path / "empty")


@pytest.mark.parametrize(
    "name",
    ["", " ", "../x.png", "a/../../x.png", "a\\..\\..\\x.png", "/etc/passwd", "C:\\x.png", "C:x.png", "\\\\h\\x"],
)
def test_a_path_that_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"write it relative to the data folder and inside it"):
        resolve_inside(tmp_path, name)


def test_links_out_of_the_folder_are_refused_and_links_inside_are_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("")
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root / "a")
    assert resolve_inside(root, "in/x..y.png") == root / "in" / "x..y.png"
    with pytest.raises(ValueError, match=r"'out/secret.txt' leads out of the data folder through a link"):
        resolve_inside(root, "out/secret.txt")


# ---- tables ----


def write_table(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".csv":
        text = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows]
        pd.DataFrame(text).to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


ROWS = [
    {"path": "a/1.png", "labels": ["sea", "cat"], "split": "train", "series": "s1"},
    {"path": "2.png", "labels": [], "split": "test", "series": "s2"},
    {"path": "3.png", "labels": ["dog"], "split": "train", "series": "s1"},
    {"path": "4.png", "labels": ["dog"], "split": "validation", "series": "s3"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for row in ROWS:
        write_image(tmp_path / row["path"])
    return tmp_path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_of_names_is_divided_into_splits(suffix: str, folder: Path) -> None:
    splits = load_table(write_table(folder / f"t{suffix}", ROWS))
    assert list(splits) == ["train", "validation", "test"]
    assert splits["train"].label_names == NAMES  # sorted
    assert rows_of(splits["train"]) == {"a/1.png": [1, 0, 1], "3.png": [0, 1, 0]}
    assert rows_of(splits["test"]) == {"2.png": [0, 0, 0]}
    assert splits["train"].series == ("s1", "s1")
    assert splits["test"].notes["without a label, kept"] == 1
    assert open_image(splits["train"].images[0]).size == (8, 6)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_column_per_label_may_leave_cells_unknown(suffix: str, folder: Path) -> None:
    rows = [
        {"path": "a/1.png", "dog": 1, "cat": 0},
        {"path": "2.png", "dog": None, "cat": 1},
        {"path": "3.png", "dog": 0, "cat": None},
    ]
    train = load_table(write_table(folder / f"t{suffix}", rows), label_columns="all")["train"]
    assert train.label_names == ("dog", "cat")  # the order of the columns
    assert train.labels.tolist() == [[1, 0], [-1, 1], [0, -1]]


def test_a_value_may_mean_unknown_and_columns_may_be_chosen(folder: Path) -> None:
    rows = [{"path": "a/1.png", "width": 640, "dog": -1, "cat": 1}]
    table = write_table(folder / "t.csv", rows)
    train = load_table(table, unknown=-1, label_columns=["cat", "dog"])["train"]
    assert rows_of(train) == {"a/1.png": [1, -1]}
    with pytest.raises(ValueError, match=r"t.csv, row 1, column 'width' holds '640'.*`label_columns`"):
        load_table(table, unknown=-1, label_columns="all")
    with pytest.raises(ValueError, match=r"row 1, column 'dog' holds '-1'.*`--absent_value -1`.*`--unknown_value -1`"):
        load_table(table, label_columns=["cat", "dog"])
    with pytest.raises(ValueError, match=r"label column: 'dgo' \(did you mean 'dog'\?\)"):
        load_table(table, label_columns=["dgo"])


def test_names_may_be_joined_and_another_separator_has_to_be_said(folder: Path) -> None:
    table = folder / "t.csv"
    table.write_text('path,labels\n2.png,cat|sea\n3.png,dog\n4.png,"[]"\n', encoding="utf-8-sig")
    assert rows_of(load_table(table)["train"]) == {"2.png": [1, 0, 1], "3.png": [0, 1, 0], "4.png": [0, 0, 0]}
    table.write_text("path,labels\n2.png,cat; sea\n3.png,dog\n")
    with pytest.raises(
        ValueError, match=r"no cell contains '\|' but some contain ';'.*Pass `--separator ';'`.*separator=';'"
    ):
        load_table(table)
    assert rows_of(load_table(table, separator=";")["train"]) == {"2.png": [1, 0, 1], "3.png": [0, 1, 0]}
    assert load_table(table, separator="|")["train"].label_names == ("cat; sea", "dog")


def test_label_names_fix_the_order_and_the_set(folder: Path) -> None:
    table = write_table(folder / "t.jsonl", [{"path": "2.png", "labels": ["dog"]}])
    assert load_table(table, label_names=["sea", "dog"])["train"].labels.tolist() == [[0, 1]]
    with pytest.raises(
        ValueError, match=r"t.jsonl, row 1, column 'labels': Unknown label: 'dog' .did you mean 'dogs'"
    ):
        load_table(table, label_names=["sea", "dogs"])


def test_unlabelled_rows_may_be_dropped_with_a_count(folder: Path) -> None:
    rows = [{"path": "2.png", "labels": ["dog"]}, {"path": "3.png", "labels": []}]
    train = load_table(write_table(folder / "t.jsonl", rows), keep_unlabeled=False)["train"]
    assert train.ids == ("2.png",) and train.notes["without a label, dropped"] == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"path": "2.png", "labels": ["dog", " "]}], r"row 1, column 'labels': empty label"),
        ([{"path": "2.png", "labels": ["dog"]}, {"path": "3.png", "labels": "cat||dog"}], r"row 2, .*empty label"),
        ([{"path": "2.png", "labels": ""}], r"row 1, column 'labels': empty label.*write \[\]"),
        ([{"path": "2.png", "labels": None}], r"row 1, column 'labels' must hold the names .*got None"),
        ([{"path": "2.png", "labels": [0, 1, 0]}], r"row 1, .*given by name, got \[0, 1, 0\].*one column per label"),
        ([{"path": "2.png", "labels": [0, 4]}], r"given by name, got the numbers 0 to 4.*`--labels` with 5 names"),
        ([{"path": "2.png", "labels": "[dog"}], r"row 1, .*no list as JSON or Python writes it"),
        ([{"path": "2.png", "labels": []}], r"no row has a label"),
        ([{"path": "2.png", "labels": ["a"]}] * 2, r"rows 1 and 2 have the same path '2.png'"),
        (
            [{"path": "2.png", "labels": ["a"], "id": ""}],
            r"row 1, column 'id' must be a text that is not empty, got ''",
        ),
        (
            [{"path": "2.png", "labels": ["a"], "split": "val"}],
            r"row 1, column 'split': Unknown split: 'val'.*'train'",
        ),
        ([{"path": "../2.png", "labels": ["a"]}], r"column 'path': The path '\.\./2.png' goes up"),
        ([{"file": "2.png", "labels": ["a"]}], r"neither a column 'path' nor 'image'; its columns: file, labels"),
        ([{"path": "2.png"}], r"neither a column 'labels' .* nor the columns of the labels"),
        ([{"path": "2.png", "image": "aGk=", "labels": ["a"]}], r"embedded images need Parquet"),
        ([], r"t.jsonl has no rows"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(rows: list[dict], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_table(write_table(folder / "t.jsonl", rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,labels\n2.png,a,b\n", r"row 1 has 3 cells but the header has 2 columns"),
        ("path,cat,dog\n2.png,1,0\n3.png,1\n", r"row 2 has 2 cells but the header has 3 columns"),
        ("path,cat,cat\n2.png,1,0\n", r"header has a column without a name or twice: \['cat'\]"),
        ("", r"t.csv cannot be read as CSV: it is empty"),
    ],
)
def test_a_csv_of_the_wrong_width_is_refused(text: str, message: str, folder: Path) -> None:
    (folder / "t.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_table(folder / "t.csv")


def test_files_that_are_missing_unknown_or_broken_are_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone.csv"):
        load_table(folder / "gone.csv")
    with pytest.raises(
        ValueError, match=r"t.xlsx: unknown file type '.xlsx'; use one of .*'.csv', '.tsv', '.parquet'"
    ):
        load_table(folder / "t.xlsx")
    for name, message in (("t.parquet", "not a readable Parquet file"), ("t.jsonl", "line 1 is not JSON")):
        (folder / name).write_text("path,labels")
        with pytest.raises(ValueError, match=message):
            load_table(folder / name)


def test_missing_images_of_a_table_raise_or_are_skipped_with_a_count(folder: Path) -> None:
    table = write_table(folder / "t.jsonl", ROWS)
    (folder / "3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 images are missing .*first in row 3: '3.png'.*`image_root`"):
        load_table(table)
    train = load_table(table, missing_images="skip")["train"]
    assert rows_of(train) == {"a/1.png": [1, 0, 1]} and train.notes["missing images, skipped"] == 1
    (folder / "4.png").unlink()
    with pytest.raises(ValueError, match=r"split 'validation' has no row left"):
        load_table(table, missing_images="skip")


def test_images_may_lie_elsewhere_than_the_table(folder: Path, tmp_path_factory) -> None:
    table = write_table(tmp_path_factory.mktemp("tables") / "t.jsonl", ROWS)
    assert load_table(table, image_root=folder)["train"].images[1] == folder / "3.png"


@pytest.mark.parametrize("struct", [False, True])
def test_a_parquet_file_may_embed_its_images(struct: bool, tmp_path: Path) -> None:
    images = [encoded("red"), encoded("blue"), encoded("green")]
    rows = [
        {"image": {"bytes": b, "path": None} if struct else b, "labels": ["cat"], "id": i, "split": s}
        for b, i, s in zip(images, (7, 8, 9), ("test", "train", "test"), strict=True)
    ]
    splits = load_table(write_table(tmp_path / "t.parquet", rows))
    assert splits["test"].ids == ("7", "9")
    assert [open_image(image).getpixel((0, 0)) for image in splits["test"].images] == [(255, 0, 0), (0, 128, 0)]
    rows[1]["image"] = {"bytes": None, "path": "x.png"} if struct else None
    with pytest.raises(ValueError, match=r"row 2, column 'image' holds no bytes"):
        load_table(write_table(tmp_path / "t.parquet", rows))


# ---- datasets ----

IMAGES = [{"bytes": encoded(color), "path": None} for color in ("red", "blue", "green")]


def test_a_dataset_of_class_labels_keeps_their_order() -> None:
    features = Features({"image": ImageFeature(), "labels": List(ClassLabel(names=["sea", "dog", "cat"]))})
    dataset = Dataset.from_dict({"image": IMAGES, "labels": [[2, 0], [], [1, 1]]}, features=features)
    train = from_dataset(dataset)["train"]
    assert train.label_names == ("sea", "dog", "cat")
    assert rows_of(train) == {"train-1": [1, 0, 1], "train-2": [0, 0, 0], "train-3": [0, 1, 0]}
    assert open_image(train.images[1]).getpixel((0, 0)) == (0, 0, 255)
    assert open_image(pickle.loads(pickle.dumps(train)).images[2]).getpixel((0, 0)) == (0, 128, 0)
    dropped = from_dataset(dataset, keep_unlabeled=False)["train"]
    assert dropped.ids == ("train-1", "train-3") and dropped.notes["without a label, dropped"] == 1
    assert open_image(dropped.images[1]).getpixel((0, 0)) == (0, 128, 0)


@pytest.mark.parametrize("form", ["list of objects", "object of lists"])
def test_a_dataset_of_objects_gives_their_categories(form: str) -> None:
    category = ClassLabel(names=["cat", "dog"])
    if form == "list of objects":
        kind: Any = List({"category": category, "area": Value("float32")})
        objects: list = [
            [{"category": 1, "area": 1.0}, {"category": 1, "area": 2.0}],
            [],
            [{"category": 0, "area": 3}],
        ]
    else:
        kind = {"category": List(category), "area": List(Value("float32"))}
        objects = [{"category": [1, 1], "area": [1, 2]}, {"category": [], "area": []}, {"category": [0], "area": [3]}]
    features = Features({"image": ImageFeature(), "objects": kind, "image_id": Value("int64")})
    part = Dataset.from_dict({"image": IMAGES, "objects": objects, "image_id": [5, 6, 7]}, features=features)
    splits = from_dataset(
        DatasetDict({"train": part.select([0, 1]), "test": part.select([2])}),
        labels_column="objects.category",
        id_column="image_id",
    )
    assert rows_of(splits["train"]) == {"5": [0, 1], "6": [0, 0]} and rows_of(splits["test"]) == {"7": [1, 0]}
    assert open_image(splits["test"].images[0]).getpixel((0, 0)) == (0, 128, 0)


def test_a_dataset_of_names_and_bytes_is_read_too() -> None:
    dataset = Dataset.from_dict(
        {"photo": [encoded("red"), encoded("blue")], "tags": [["sea"], ["cat"]], "burst": ["x", "x"]}
    )
    train = from_dataset(dataset, image_column="photo", labels_column="tags", series_column="burst")["train"]
    assert train.label_names == ("cat", "sea") and train.labels.tolist() == [[0, 1], [1, 0]]
    assert train.series == ("x", "x") and train.images[1] == encoded("blue")


def test_a_dataset_that_cannot_be_used_is_refused_by_name() -> None:
    features = Features({"image": ImageFeature(), "labels": List(Value("string"))})
    dataset = Dataset.from_dict({"image": IMAGES[:1], "labels": [["cat"]]}, features=features)
    with pytest.raises(ValueError, match=r"Unknown column: 'label' \(did you mean 'labels'"):
        from_dataset(dataset, labels_column="label")
    with pytest.raises(ValueError, match=r"Unknown split: 'val'\. Known: 'train', 'validation', 'test'"):
        from_dataset(DatasetDict({"train": dataset, "val": dataset}))
    with pytest.raises(ValueError, match=r"do not stream"):
        from_dataset(dataset.to_iterable_dataset())
    with pytest.raises(ValueError, match=r"'labels' must be of type Image or bytes"):
        from_dataset(dataset, image_column="labels")
    with pytest.raises(ValueError, match=r"'labels' has no field 'category'"):
        from_dataset(dataset, labels_column="labels.category")
    empty = Dataset.from_dict({"image": [IMAGES[0], None], "labels": [["cat"], ["cat"]]}, features=features)
    with pytest.raises(ValueError, match=r"row 2, column 'image' holds no image"):
        from_dataset(empty)
    classes = Features({"image": ImageFeature(), "labels": List(ClassLabel(names=["cat"]))})
    missing = Dataset.from_dict({"image": IMAGES[:2], "labels": [[0], [-1]]}, features=classes)
    with pytest.raises(ValueError, match=r"row 2, column 'labels': -1 is no class"):
        from_dataset(missing)


# ---- features ----


@pytest.mark.parametrize("file", ["features.npy", "features.safetensors"])
def test_a_folder_of_features_is_divided_like_a_table(file: str, tmp_path: Path) -> None:
    features = np.arange(8, dtype=np.float16).reshape(4, 2)
    if file.endswith(".npy"):
        np.save(tmp_path / file, features)
    else:
        safetensors.numpy.save_file({"features": features}, tmp_path / file)
    write_table(tmp_path / "labels.jsonl", ROWS)
    splits = load_features(tmp_path)
    assert splits["train"].features.tolist() == [[0, 1], [4, 5]] and splits["train"].features.dtype == np.float16
    assert splits["test"].ids == ("2.png",) and splits["test"].images is None
    assert rows_of(splits["train"]) == {"a/1.png": [1, 0, 1], "3.png": [0, 1, 0]}


def test_a_folder_of_features_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no features.npy or features.safetensors. A folder of features holds"
    ):
        load_features(tmp_path)
    np.save(tmp_path / "features.npy", np.zeros((2, 3), dtype=np.float32))
    with pytest.raises(FileNotFoundError, match=r"no labels.jsonl or .*labels.csv or .*labels.parquet"):
        load_features(tmp_path)
    (tmp_path / "labels.csv").write_text("cat,dog\n1,0\n0,1\n0,1\n")
    with pytest.raises(ValueError, match=r"features.npy has shape \[2, 3\] but labels.csv has 3 rows"):
        load_features(tmp_path, label_columns="all")
    (tmp_path / "labels.csv").write_text("cat,dog\n1,0\n0,1\n")
    with pytest.raises(ValueError, match="its labels are columns: pass `--label_columns cat dog`"):
        load_features(tmp_path)
    columns = {"label_columns": ["cat", "dog"]}
    assert rows_of(load_features(tmp_path, **columns)["train"]) == {"row-1": [1, 0], "row-2": [0, 1]}
    np.save(tmp_path / "features.npy", np.array([[0, 0], [0, np.inf]], dtype=np.float32))
    with pytest.raises(ValueError, match=r"feature inf in row 1, column 1"):
        load_features(tmp_path, label_columns="all")
    np.save(tmp_path / "features.npy", np.array([[object()], [object()]]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"[Pp]ickle|object"):
        load_features(tmp_path, label_columns="all")
    safetensors.numpy.save_file({"x": np.zeros(2)}, tmp_path / "features.safetensors")
    with pytest.raises(ValueError, match=r"holds features.npy and features.safetensors: keep one"):
        load_features(tmp_path, label_columns="all")


# ---- Yeast ----


def fake_river(root: Path, rows: int = 2417) -> None:
    """The package's layout with random numbers; importing it fails, as it does without its dependencies."""
    generator = np.random.default_rng(0)
    columns = [f"Att{i}" for i in range(1, 104)] + [f"Class{i}" for i in range(1, 15)]
    values = np.hstack([generator.normal(size=(rows, 103)).round(6), generator.integers(0, 2, (rows, 14))])
    (root / "river" / "datasets").mkdir(parents=True)
    (root / "river" / "__init__.py").write_text("raise ImportError('river must not be imported')\n")
    frame = pd.DataFrame(values, columns=columns).astype({name: int for name in columns[103:]})
    with gzip.open(root / "river" / "datasets" / "yeast.csv.gz", "wt", compresslevel=1) as file:
        frame.to_csv(file, index=False)


def test_yeast_is_the_published_split_of_the_file_without_importing_river(tmp_path: Path, monkeypatch) -> None:
    fake_river(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    splits = load_yeast()
    assert [(name, split.features.shape) for name, split in splits.items()] == [
        ("train", (1500, 103)),
        ("test", (917, 103)),
    ]
    assert splits["train"].ids[0] == "gene-0917" and splits["test"].ids[-1] == "gene-0916"
    assert splits["train"].label_names == tuple(f"Class{i}" for i in range(1, 15))
    assert splits["train"].features.dtype == np.float32
    assert "river" not in sys.modules


def test_yeast_without_river_or_with_another_file_names_the_command(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("fairpo_trl.classification.data.yeast.importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps river==0\.26\.1"):
        load_yeast()
    monkeypatch.undo()
    fake_river(tmp_path, rows=5)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ValueError, match=r"5 rows and 117 columns instead of 2417 and 117.*river==0\.26\.1"):
        load_yeast()


def test_the_real_yeast_has_the_published_counts() -> None:
    try:
        splits = load_yeast()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    train, test = splits["train"].label_counts(), splits["test"].label_counts()
    assert list(train.values()) == [476, 645, 598, 532, 441, 378, 261, 289, 98, 161, 198, 1128, 1116, 21]
    assert test["Class14"] == 13 and sum(test.values()) + sum(train.values()) == 10241
    assert splits["train"].features[0, :2].tolist() == pytest.approx([0.0937, 0.139771])  # first row of yeast-train
