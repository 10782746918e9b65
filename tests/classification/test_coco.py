"""COCO 2014 from folders in its published layout."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers_trees import COCO_IDS, COCO_NAMES, coco_content, edit_coco, write_coco

from fairpo_trl.classification.data.coco import COCO_LABELS, load_coco_2014
from fairpo_trl.classification.data.images import open_image


TRAIN = {9: ["person", "toothbrush", "person"], 25: ["giraffe"], 30: [], 34: ["zebra", "car"]}
VAL = {42: ["dog"], 73: []}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_coco(tmp_path / "coco", TRAIN, VAL)


def present(split) -> list[set[str]]:
    return [{split.label_names[t] for t in np.flatnonzero(row == 1)} for row in split.labels]


def test_labels_follow_names_over_ids_with_gaps(tree: Path) -> None:
    splits = load_coco_2014(tree)
    assert list(splits) == ["train", "test"]
    train = splits["train"]
    assert list(train.label_names) == list(COCO_LABELS) == COCO_NAMES
    assert (COCO_IDS[0], COCO_IDS[-1], len(COCO_IDS)) == (1, 90, 80)
    assert present(train) == [{"person", "toothbrush"}, {"giraffe"}, {"zebra", "car"}]
    assert train.labels[0].nonzero()[0].tolist() == [0, 79]  # id 90 is column 79
    assert train.labels.dtype == np.int8 and (train.labels >= 0).all()
    assert train.ids[0] == "train2014/COCO_train2014_000000000009.jpg"
    assert splits["test"].ids == ("val2014/COCO_val2014_000000000042.jpg",)
    assert open_image(train.images[2]).size == (8, 6)


def test_images_without_a_label_are_dropped_and_counted_or_kept(tree: Path) -> None:
    dropped = load_coco_2014(tree)
    assert [len(split) for split in dropped.values()] == [3, 1]
    assert [split.notes["without a label, dropped"] for split in dropped.values()] == [1, 1]
    assert [split.notes["images listed"] for split in dropped.values()] == [4, 2]
    kept = load_coco_2014(tree, keep_unlabeled=True)
    assert [len(split) for split in kept.values()] == [4, 2]
    assert kept["train"].notes["without a label, kept"] == 1
    assert present(kept["train"])[2] == set()


def test_the_alphabetical_order_moves_columns_and_keeps_meaning(tree: Path) -> None:
    by_id, by_name = load_coco_2014(tree)["train"], load_coco_2014(tree, label_order="alphabetical")["train"]
    assert list(by_name.label_names) == sorted(COCO_NAMES) and by_name.label_names[0] == "airplane"
    assert present(by_id) == present(by_name)
    assert by_id.content_hash() != by_name.content_hash()


def test_a_file_with_renumbered_categories_is_read_by_name(tree: Path) -> None:
    expected = load_coco_2014(tree)["train"].labels
    content = coco_content("train", TRAIN)
    new_id = {id_: 1000 - id_ for id_ in COCO_IDS}
    for category in content["categories"]:
        category["id"] = new_id[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = new_id[annotation["category_id"]]
    content["categories"].reverse()
    edit_coco(tree, "train", content)
    assert (load_coco_2014(tree)["train"].labels == expected).all()


def test_both_places_of_the_image_folders_give_the_same_data(tree: Path, tmp_path: Path) -> None:
    other = write_coco(tmp_path / "other", TRAIN, VAL, images_in="images")
    first, second = load_coco_2014(tree)["train"], load_coco_2014(other)["train"]
    assert first.content_hash() == second.content_hash()
    assert second.images[0] == other / "images" / "train2014" / "COCO_train2014_000000000009.jpg"
    assert (first.notes["image folder"], second.notes["image folder"]) == ("train2014", "images/train2014")


def test_crowds_and_boxes_without_area_count_as_labels_and_are_stated(tree: Path) -> None:
    content = coco_content("train", TRAIN)
    content["annotations"][1].update(iscrowd=1, segmentation={"counts": [3, 4], "size": [8, 6]})
    content["annotations"][3]["bbox"] = [1.0, 1.0, 5.0, 0.0]
    edit_coco(tree, "train", content)
    train = load_coco_2014(tree)["train"]
    assert present(train)[:2] == [{"person", "toothbrush"}, {"giraffe"}]
    assert train.notes["crowd objects, counted as labels"] == 1
    assert train.notes["boxes without area, counted as labels"] == 1


def test_half_a_tree_is_one_error_that_names_all_that_is_missing(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    (tmp_path / "images" / "train2014").mkdir(parents=True)
    edit_coco(tmp_path, "val", coco_content("val", VAL))
    with pytest.raises(FileNotFoundError) as error:
        load_coco_2014(tmp_path, missing_images="skip")
    missing, layout = str(error.value).split("Expected layout")
    assert re.findall(r"^  (.*)$", missing, re.M) == [
        "annotations/instances_train2014.json",
        "val2014 or images/val2014",
    ]
    assert "instances_val2014.json\n  train2014/" in layout


def test_a_folder_that_is_not_there_shows_the_layout(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"(?s)no folder .*nowhere.*COCO_val2014_"):
        load_coco_2014(tmp_path / "nowhere")


def test_missing_images_raise_or_are_skipped_with_a_count(tree: Path) -> None:
    (tree / "train2014" / "COCO_train2014_000000000025.jpg").unlink()
    (tree / "train2014" / "COCO_train2014_000000000030.jpg").unlink()  # has no label, so it is not missed
    with pytest.raises(FileNotFoundError, match=r"1 of the 3 images of .*train2014.json .*0025.jpg.*'skip'"):
        load_coco_2014(tree)
    train = load_coco_2014(tree, missing_images="skip")["train"]
    assert present(train) == [{"person", "toothbrush"}, {"zebra", "car"}]
    assert train.notes["missing images, skipped"] == 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda c: c["annotations"][0].update(category_id=12),
            r"1 annotations, the first in row 0, .*category ids: 12",
        ),
        (lambda c: c["annotations"][2].update(image_id=77), r"the first in row 2, .*images that are not listed: 77"),
        (lambda c: c["images"][1].update(id=9), r"image id 9 occurs more than once"),
        (
            lambda c: c["images"].append({**c["images"][0], "id": 99}),
            r"file name COCO_.*009.jpg occurs more than once",
        ),
        (lambda c: c["categories"][3].update(name="motorbike"), r"Unknown category: 'motorbike'.*Known: 'person'"),
        (lambda c: c["categories"].pop(), r"lacks 1 of the 80 categories: toothbrush"),
        (lambda c: c["categories"][0].update(id=2), r"category id 2 occurs more than once"),
        (lambda c: c["annotations"][0].pop("category_id"), r"not a COCO instances file: .*category_id"),
        (lambda c: c.pop("annotations"), r"not a COCO instances file: .*annotations"),
        (lambda c: c["images"][0].update(file_name="../a.jpg"), r"'\.\./a\.jpg' goes up"),
        (lambda c: c["images"][0].update(file_name="/etc/passwd"), r"'/etc/passwd' is absolute"),
    ],
)
def test_a_file_that_contradicts_itself_is_one_clear_error(edit, message: str, tree: Path) -> None:
    content = coco_content("train", TRAIN)
    edit(content)
    edit_coco(tree, "train", content)
    with pytest.raises(ValueError, match=message):
        load_coco_2014(tree)


def test_half_a_download_is_not_complete_json(tree: Path) -> None:
    file = tree / "annotations" / "instances_val2014.json"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ValueError, match=r"instances_val2014.json is not complete JSON"):
        load_coco_2014(tree)


def test_wrong_options_name_the_right_ones(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"label_order: 'alphabetic' \(did you mean 'alphabetical'\?\)"):
        load_coco_2014(tree, label_order="alphabetic")
    with pytest.raises(ValueError, match=r"missing_images: 'ignore'.*'raise', 'skip'"):
        load_coco_2014(tree, missing_images="ignore")


def test_linked_image_folders_are_followed_but_links_out_of_them_are_refused(tree: Path, tmp_path: Path) -> None:
    expected = load_coco_2014(tree)["train"].content_hash()
    (tree / "train2014").rename(tmp_path / "elsewhere")
    (tree / "train2014").symlink_to(tmp_path / "elsewhere")
    assert load_coco_2014(tree)["train"].content_hash() == expected
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    image = tmp_path / "elsewhere" / "COCO_train2014_000000000009.jpg"
    image.unlink()
    image.symlink_to(secret)
    with pytest.raises(ValueError, match=r"000000000009.jpg' leads out of the data folder"):
        load_coco_2014(tree)
