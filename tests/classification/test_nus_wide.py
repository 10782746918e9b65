"""NUS-WIDE from folders in its published layout."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_trees import NUS_CONCEPTS, write_nus_wide

from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.data.nus_wide import load_nus_wide


TRAIN = {
    "actor\\0001_2124494179.jpg": ["airport", "concept03"],
    "actor\\0002_174174086.jpg": [],
    "zoo\\0001_99.jpg": ["zebra"],
}
TEST = {"actor\\0003_2538349.jpg": ["concept00"], "zoo\\0002_5.jpg": ["zebra", "airport"]}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_nus_wide(tmp_path / "nus", TRAIN, TEST)


def labels_file(tree: Path, concept: str, part: str = "Train") -> Path:
    return tree / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"


def present(split) -> list[set[str]]:
    return [{split.label_names[t] for t in np.flatnonzero(row == 1)} for row in split.labels]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", " \n"])
def test_row_i_of_the_list_has_row_i_of_every_label_file(line_end: str, tmp_path: Path) -> None:
    splits = load_nus_wide(write_nus_wide(tmp_path / "nus", TRAIN, TEST, line_end))
    assert list(splits) == ["train", "test"]
    assert list(splits["train"].label_names) == NUS_CONCEPTS
    assert present(splits["train"]) == [{"airport", "concept03"}, set(), {"zebra"}]
    assert present(splits["test"]) == [{"concept00"}, {"zebra", "airport"}]
    assert splits["train"].ids[0] == "Flickr/actor/0001_2124494179.jpg"
    assert open_image(splits["test"].images[1]).size == (8, 6)


def test_rows_without_a_concept_are_kept_and_counted_or_dropped(tree: Path) -> None:
    assert load_nus_wide(tree)["train"].notes["without a label, kept"] == 1
    dropped = load_nus_wide(tree, keep_unlabeled=False)["train"]
    assert dropped.notes["without a label, dropped"] == 1
    assert present(dropped) == [{"airport", "concept03"}, {"zebra"}]


def test_the_concepts_may_lie_at_the_root(tree: Path) -> None:
    expected = load_nus_wide(tree)["test"].content_hash()
    (tree / "ConceptsList" / "Concepts81.txt").rename(tree / "Concepts81.txt")
    assert load_nus_wide(tree)["test"].content_hash() == expected


def test_missing_images_are_skipped_with_a_count_and_labels_stay_with_their_rows(tree: Path) -> None:
    (tree / "Flickr" / "actor" / "0001_2124494179.jpg").unlink()
    shutil.rmtree(tree / "Flickr" / "actor", ignore_errors=True)
    splits = load_nus_wide(tree)
    assert present(splits["train"]) == [{"zebra"}] and splits["train"].ids == ("Flickr/zoo/0001_99.jpg",)
    assert splits["train"].notes == {"images listed": 3, "without a label, kept": 1, "missing images, skipped": 2}
    assert splits["test"].notes["missing images, skipped"] == 1
    with pytest.raises(FileNotFoundError, match=r"2 of the 3 images of TrainImagelist.txt .*actor/0001.*'skip'"):
        load_nus_wide(tree, missing_images="raise")


def test_counts_that_differ_are_given_both(tree: Path) -> None:
    labels_file(tree, "airport", "Test").write_text("0\n1\n0\n")
    with pytest.raises(ValueError, match=r"Labels_airport_Test.txt has 3 rows but TestImagelist.txt has 2;"):
        load_nus_wide(tree)


def test_an_empty_label_file_is_not_a_file_of_zeros(tree: Path) -> None:
    labels_file(tree, "zebra").write_text("")
    with pytest.raises(ValueError, match=r"Labels_zebra_Train.txt has 0 rows but TrainImagelist.txt has 3;"):
        load_nus_wide(tree)


@pytest.mark.parametrize("content", ["0 1 0\n0 0 1\n1 1 1\n", "010\n000\n111\n", "0\n0 1\n"])
def test_a_tag_file_in_place_of_ground_truth_is_refused_as_such(content: str, tree: Path) -> None:
    labels_file(tree, "concept05").write_text(content)
    line = 2 if content.startswith("0\n") else 1
    with pytest.raises(
        ValueError, match=rf"concept05_Train.txt has several values on line {line};.*tag file.*not the g"
    ):
        load_nus_wide(tree)


def test_tags_alone_are_named_as_the_trap_they_are(tree: Path) -> None:
    shutil.rmtree(tree / "Groundtruth")
    with pytest.raises(
        FileNotFoundError, match=r"(?s)Missing:\n  Groundtruth/TrainTestLabels\n.*_Tags81.*not the ground"
    ):
        load_nus_wide(tree)
    shutil.rmtree(tree / "NUS_WID_Tags")
    with pytest.raises(FileNotFoundError) as error:
        load_nus_wide(tree)
    assert "Tags81" not in str(error.value)


def test_other_values_name_file_and_line(tree: Path) -> None:
    labels_file(tree, "concept05").write_text("0\n2\n1\n")
    with pytest.raises(ValueError, match=r"Labels_concept05_Train.txt, line 2: '2' where 0 or 1 should be"):
        load_nus_wide(tree)


def test_half_a_tree_is_one_error_that_names_all_that_is_missing(tree: Path) -> None:
    labels_file(tree, "zebra").unlink()
    (tree / "ImageList" / "TestImagelist.txt").unlink()
    shutil.rmtree(tree / "Flickr")
    with pytest.raises(FileNotFoundError) as error:
        load_nus_wide(tree)
    missing, layout = str(error.value).split("Expected layout")
    assert re.findall(r"^  (.*)$", missing, re.M) == [
        "ImageList/TestImagelist.txt",
        "Flickr",
        "Groundtruth/TrainTestLabels/Labels_zebra_Train.txt",
    ]
    assert "actor\\0001_2124494179.jpg" in layout


def test_a_cut_list_of_concepts_gives_both_numbers(tree: Path) -> None:
    (tree / "ConceptsList" / "Concepts81.txt").write_text("\n".join(NUS_CONCEPTS[:80]))
    with pytest.raises(ValueError, match=r"Concepts81.txt has 80 concepts instead of 81"):
        load_nus_wide(tree)


@pytest.mark.parametrize("name", ["..\\..\\secret.jpg", "C:\\Flickr\\a.jpg", "\\share\\a.jpg"])
def test_paths_stay_inside_the_folder(name: str, tree: Path) -> None:
    file = tree / "ImageList" / "TrainImagelist.txt"
    file.write_text(file.read_text().replace("zoo\\0001_99.jpg", name))
    with pytest.raises(ValueError, match=r"goes up with|is absolute"):
        load_nus_wide(tree)


def test_an_image_in_both_lists_is_a_leak(tree: Path) -> None:
    file = tree / "ImageList" / "TestImagelist.txt"
    file.write_text(file.read_text().replace("zoo\\0002_5.jpg", "zoo\\0001_99.jpg"))
    with pytest.raises(ValueError, match=r"'train' and 'test' share 1 ids, .*leaks.*Flickr/zoo/0001_99.jpg"):
        load_nus_wide(tree)


def test_wrong_options_name_the_right_ones(tree: Path) -> None:
    with pytest.raises(ValueError, match=r"missing_images: 'ignore'.*'raise', 'skip'"):
        load_nus_wide(tree, missing_images="ignore")
