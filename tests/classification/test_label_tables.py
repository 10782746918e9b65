"""Tables of labels as people have them: joined, numbered, written by pandas, one-hot with other columns or blanks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers_classification import LABELS, multilabel
from helpers_classification import rows as random_rows
from helpers_trees import write_image

from fairpo_trl.classification.data.coco import load_coco_2017
from fairpo_trl.classification.data.label_studio import load_label_studio
from fairpo_trl.classification.data.load import load_splits
from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.data.tables import load_features, load_table
from fairpo_trl.classification.data.voc import load_voc
from fairpo_trl.classification.metrics.comparison import compare_with_reference
from fairpo_trl.classification.metrics.definitions import average_precision
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.commands.classification import make_parser
from fairpo_trl.core.partition import Partition


MIGRATE = Path(__file__).parents[1] / "data" / "migrate"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures")
    for name in ("a.png", "b.png", "c.png"):
        write_image(path / name)
    return path


def command(path: Path, *options: str, kind: str = "table") -> dict[str, MultiLabelSplit]:
    args, _ = make_parser().parse(["--dataset", kind, "--data_dir", str(path), *options])
    return load_splits(args)


def labels_of(split: MultiLabelSplit) -> dict[str, list[str]]:
    """Image -> its labels."""
    return {
        identity: [name for name, value in zip(split.label_names, row, strict=True) if value == 1]
        for identity, row in zip(split.ids, split.labels, strict=True)
    }


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_lists_that_pandas_wrote_are_labels(folder: Path) -> None:
    path = table(folder, "path,labels\na.png,\"['dog', 'hot dog']\"\nb.png,\"{'cat'}\"\nc.png,[]\n")
    assert labels_of(load_table(path)["train"]) == {"a.png": ["dog", "hot dog"], "b.png": ["cat"], "c.png": []}
    table(folder, "path,labels\na.png,\"['dog' 'cat']\"\n")  # NumPy; Python would read 'dogcat'
    with pytest.raises(ValueError, match=r"row 1, column 'labels'.*begins like a list but cannot be read"):
        load_table(path)


def test_what_joins_labels_has_to_be_said(folder: Path) -> None:
    path = table(folder, "path,labels\na.png,dog cat\nb.png,cat\n")
    with pytest.raises(ValueError, match=r"such as 'dog cat'. Pass `--separator ' '`.*`--separator '\|'`"):
        load_table(path)
    assert labels_of(command(path, "--separator", " ")["train"]) == {"a.png": ["cat", "dog"], "b.png": ["cat"]}
    assert labels_of(command(path, "--separator", "|")["train"]) == {"a.png": ["dog cat"], "b.png": ["cat"]}
    table(folder, 'path,labels\na.png,"dog, cat"\nb.png,cat|sea\nc.png,dog\n')  # two ways in one table
    with pytest.raises(ValueError, match="row 1, .*'dog, cat' looks like several labels joined by ','"):
        load_table(path)


def test_numbers_of_labels_need_names(folder: Path) -> None:
    path = table(folder, "path,labels\na.png,0 2\nb.png,1\n")
    with pytest.raises(ValueError, match="numbers 0 to 2. Pass `--labels` with 3 names in the order"):
        command(path, "--separator", " ")
    named = command(path, "--separator", " ", "--labels", "dog", "cat", "sea")["train"]
    assert named.label_names == ("dog", "cat", "sea") and labels_of(named)["a.png"] == ["dog", "sea"]
    kept = command(path, "--separator", " ", "--labels", "0", "1", "2")["train"]
    assert labels_of(kept) == {"a.png": ["0", "2"], "b.png": ["1"]}
    with pytest.raises(ValueError, match="row 1, .*Unknown label: '2'"):
        command(path, "--separator", " ", "--labels", "dog", "cat")
    path = table(folder, json.dumps([{"path": "a.png", "labels": [2, 0]}]), "labels.json")
    assert labels_of(load_table(path, label_names=["x", "y", "z"])["train"]) == {"a.png": ["x", "z"]}


ONE_HOT = "path,split,is_checked,cat,dog\na.png,train,1,1,0\nb.png,train,0,0,1\nc.png,test,1,1,1\n"


def test_which_columns_are_labels_has_to_be_said(folder: Path) -> None:
    path = table(folder, ONE_HOT)
    with pytest.raises(ValueError, match="`--label_columns is_checked cat dog` without those .*`--label_columns all`"):
        command(path)
    assert command(path, "--label_columns", "cat", "dog")["train"].labels.tolist() == [[1, 0], [0, 1]]
    assert load_table(path, label_columns="all")["train"].label_names == ("is_checked", "cat", "dog")
    assert load_table(path, label_names=["dog", "cat"])["test"].labels.tolist() == [[1, 1]]


def test_blanks_are_absent_or_unknown_if_a_column_has_no_0(folder: Path) -> None:
    path = table(folder, "path,cat,dog\na.png,1,\nb.png,,1\nc.png,1,1\n")
    with pytest.raises(ValueError, match="2 of 2 label columns .*not a single 0, the first 'cat'"):
        command(path, "--label_columns", "all")
    absent = command(path, "--label_columns", "all", "--absent_value", "")["train"]
    assert absent.labels.tolist() == [[1, 0], [0, 1], [1, 1]]
    unknown = command(path, "--label_columns", "all", "--unknown_value", "")["train"]
    assert unknown.labels.tolist() == [[1, -1], [-1, 1], [1, 1]]
    table(folder, "path,cat,dog\na.png,1,0\nb.png,0,1\nc.png,,1\n")  # one 0 shows that a blank is something else
    assert command(path, "--label_columns", "all")["train"].labels.tolist() == [[1, 0], [0, 1], [-1, 1]]


def test_celeba_on_the_command_line(folder: Path) -> None:
    path = table(folder, "image_id,Bald,Smiling\na.png,-1,1\nb.png,1,-1\n")
    with pytest.raises(ValueError, match="neither a column 'path' nor 'image'.*`--path_column`"):
        command(path, "--label_columns", "Bald", "Smiling", "--absent_value", "-1")
    with pytest.raises(ValueError, match="'Bald' holds '-1'.*`--absent_value -1`.*`--unknown_value -1`"):
        command(path, "--label_columns", "all", "--path_column", "image_id")
    options = ("--label_columns", "all", "--path_column", "image_id", "--absent_value", "-1")
    assert command(path, *options)["train"].labels.tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ValueError, match="`unknown` and `absent` are both"):
        load_table(path, path_column="image_id", label_columns="all", absent=-1, unknown="-1")


def test_one_label_a_row_is_brought_together(folder: Path) -> None:
    path = table(folder, "path,labels,split\na.png,dog,train\nb.png,cat,test\na.png,sea,train\n")
    with pytest.raises(ValueError, match="rows 1 and 3 have the same path.*`--one_label_per_row true`"):
        command(path)
    table(folder, "path,labels,split\na.png,dog,train\nb.png,cat,test\na.png,hot dog,train\n")
    splits = command(path, "--one_label_per_row", "true")
    assert labels_of(splits["train"]) == {"a.png": ["dog", "hot dog"]} and labels_of(splits["test"]) == {
        "b.png": ["cat"]
    }
    table(folder, "path,labels,split\na.png,dog,train\na.png,cat,test\n")
    with pytest.raises(ValueError, match="rows 1 and 2 have the same path 'a.png' but another split"):
        command(path, "--one_label_per_row", "true")


def test_the_id_of_a_row_does_not_hide_that_its_image_is_there_twice(folder: Path) -> None:
    path = table(folder, "id,path,labels,split\n1,a.png,dog,train\n2,b.png,cat,test\n3,./a.png,cat,test\n")
    with pytest.raises(ValueError, match="rows 1 and 3 have the same path './a.png'"):
        load_table(path)
    with pytest.raises(ValueError, match="rows 1 and 3 have the same path 'a.png' but another"):
        load_table(path, one_label_per_row=True)
    table(folder, "path,labels\na.png,dog\nx/../a.png,cat\n")
    assert labels_of(load_table(path, one_label_per_row=True)["train"]) == {"a.png": ["dog", "cat"][::-1]}


def test_lists_hold_one_label_an_item(folder: Path) -> None:
    rows = [{"path": "a.png", "labels": ["dog, cat"]}, {"path": "b.png", "labels": ["dog"]}]
    rows.append({"path": "c.png", "labels": ["cat"]})
    path = table(folder, "\n".join(map(json.dumps, rows)), "labels.jsonl")
    with pytest.raises(ValueError, match="row 1, .*'dog, cat' is several labels of other rows, joined by ','"):
        load_table(path)
    assert load_table(path, separator="|")["train"].label_names == ("cat", "dog", "dog, cat")


@pytest.mark.parametrize("word", ["none", "N/A", "nan", "-"])
def test_a_word_for_nothing_is_a_label_only_where_it_is_named(word: str, folder: Path) -> None:
    path = table(folder, f"path,labels\na.png,dog\nb.png,{word}\n")
    with pytest.raises(ValueError, match=f"row 2, column 'labels' holds '{word}': write \\[\\] for a row without a"):
        load_table(path)
    assert labels_of(load_table(path, label_names=["dog", word])["train"])["b.png"] == [word]


def test_second_spellings_of_a_label_are_refused(folder: Path) -> None:
    path = table(folder, "path,labels\na.png,dog\nb.png,Dog\n")
    with pytest.raises(ValueError, match=r"the labels \['Dog', 'dog'\] differ only in case"):
        load_table(path)


def test_a_folder_of_features_reads_the_same_tables(tmp_path: Path) -> None:
    np.save(tmp_path / "features.npy", np.zeros((2, 3), dtype=np.float32))
    table(tmp_path, "cat;dog\n1;\n;1\n")
    options = ("--label_columns", "all", "--absent_value", "")
    assert command(tmp_path, *options, kind="features")["train"].labels.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(ValueError, match="not a single 0"):
        load_features(tmp_path, label_columns="all")


# ---- exports of annotation tools ----


def test_pascal_voc(tmp_path: Path) -> None:
    root = tmp_path / "VOC"
    (root / "JPEGImages").mkdir(parents=True)
    for part in ("Annotations", "ImageSets"):
        (root / part).symlink_to(MIGRATE / "voc" / part)
    for stem in ("a1", "a2", "a3", "a4"):
        write_image(root / "JPEGImages" / f"{stem}.png")
    splits = command(root, kind="voc")
    assert splits["train"].label_names == ("cat", "chair", "dog")
    assert splits["train"].labels.tolist() == [[1, -1, 0], [0, 0, 1]]  # only difficult chairs: unknown
    assert splits["test"].labels.tolist() == [[1, 1, 0], [0, 0, 0]]
    assert splits["train"].notes["labels of difficult objects alone, unknown"] == 1
    assert splits["train"].images[0] == root / "JPEGImages" / "a1.png"
    (root / "JPEGImages" / "a3.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of the 2 images of test are missing.*`--missing_images skip`"):
        load_voc(root)
    assert len(load_voc(root, missing_images="skip")["test"]) == 1
    with pytest.raises(ValueError, match="Unknown label of the annotations: 'chair'"):
        load_voc(root, label_names=["cat", "dog"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<annotation>", "x.xml is not whole XML"),
        ("<labels/>", "no annotation of Pascal VOC"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares entities"),
        ("<annotation><filename>a.png</filename><object/></annotation>", "<object> without a <name>"),
        ("<annotation><filename>../a.png</filename></annotation>", "none: no object|goes up"),
    ],
)
def test_xml_that_is_no_annotation_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.xml").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_voc(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no annotations of Pascal VOC"):
        load_voc(tmp_path / "nowhere")


def test_label_studio_images(tmp_path: Path) -> None:
    for name in ("3f2a-kitchen.png", "yard/garden.png", "77aa-hall.png"):
        write_image(tmp_path / name)
    splits = command(MIGRATE / "label_studio_images.json", "--image_root", str(tmp_path), kind="label_studio")
    assert labels_of(splits["train"]) == {
        "3f2a-kitchen.png": ["lamp", "table"],  # one of two people saw a table
        "yard/garden.png": ["table", "tree"],  # a choice and a box
        "77aa-hall.png": [],
    }
    assert splits["train"].notes["tasks without an annotation, left out"] == 1
    (tmp_path / "t.json").write_text(json.dumps([{"image": "x.png", "choice": "lamp"}]))
    with pytest.raises(ValueError, match="task 1 has no `data` and `annotations`.*format JSON"):
        load_label_studio(tmp_path / "t.json")
    path = table(tmp_path, 'image,choice\n3f2a-kitchen.png,"{""choices"": [""lamp"", ""table""]}"\n')
    read = command(path, "--path_column", "image", "--labels_column", "choice")["train"]  # its CSV export
    assert labels_of(read) == {"3f2a-kitchen.png": ["lamp", "table"]}


def test_coco_2017_has_other_names_for_files(tmp_path: Path) -> None:
    shutil.copytree(MIGRATE / "coco2017", tmp_path, dirs_exist_ok=True)
    for name in ("train2017/000000000009.jpg", "train2017/000000000025.jpg", "val2017/000000000042.jpg"):
        write_image(tmp_path / name)
    splits = command(tmp_path, kind="coco2017")
    assert splits["train"].ids == ("train2017/000000000009.jpg", "train2017/000000000025.jpg")  # 30 has no object
    assert labels_of(splits["train"]) == {
        "train2017/000000000009.jpg": ["dog"],
        "train2017/000000000025.jpg": ["cat", "dog"],
    }
    assert labels_of(splits["test"]) == {"val2017/000000000042.jpg": ["cat"]}
    (tmp_path / "annotations/instances_val2017.json").unlink()
    with pytest.raises(FileNotFoundError, match="(?s)not a complete COCO 2017 folder.*instances_val2017.json"):
        load_coco_2017(tmp_path)


# ---- labels that nothing can be said about ----


def test_a_label_without_negatives_has_no_average_precision() -> None:
    labels = np.array([[1, 1, 1], [-1, 0, 1], [1, 1, -1]])
    scores = np.array([[2.0, 1.0, 3.0], [1.0, 2.0, 1.0], [0.5, 3.0, 2.0]])
    np.testing.assert_allclose(average_precision(labels, scores), [np.nan, (1 + 2 / 3) / 2, np.nan])
    partition = Partition.by_name(("a", "b", "c"), ["a"])
    report = evaluate_groups(labels, scores, partition)
    assert report.labels_without_negatives == ("a", "c") and report.labels_without_positives == ()
    assert report.by_group["labels_counted"].tolist() == [1, 0, 1]
    assert report.by_group.loc["all", "map"] == report.by_label.loc["b", "ap"]
    assert np.isnan(report.by_group.loc["privileged", "map"])
    assert np.isnan(report.by_group.loc["privileged", "map_label_prior"])
    assert "2 left out: a, c" in report.describe()


def test_resamples_without_a_negative_do_not_count() -> None:
    labels = np.ones((6, 1), dtype=np.int8)
    labels[0] = 0
    scores, reference = np.zeros((6, 1)), np.arange(6.0)[:, None]  # ties against a perfect ranking
    partition = Partition.by_name(("a",), ["a"])
    compared = compare_with_reference(labels, scores, reference, partition, resamples=400, seed=0)
    # the one negative is missing in about (5/6)^6 = .33 of the resamples, where any two rankings are equal
    assert 100 < compared.by_label.loc["a", "resamples_without_positives"] < 170
    assert compared.by_label.loc["a", "high"] < 0


def test_a_privileged_label_needs_positives_and_negatives_in_train(tmp_path: Path) -> None:
    for value, what in ((0, "positive"), (1, "negative")):
        split = random_rows()
        split.labels[:, LABELS.index("candle")] = value
        with pytest.raises(ValueError, match=f"1 privileged labels have no {what} .*: candle. Nothing can be learned"):
            multilabel(tmp_path, train=split)


def test_the_least_frequent_labels_have_examples() -> None:
    counts = {"a": 0, "b": 7, "c": 1, "d": 0, "e": 2}
    assert Partition.by_least_frequent(counts, 0.4).privileged == ("c", "e")
    assert Partition.by_least_frequent(counts, 1.0).privileged == ("b", "c", "e")
    with pytest.raises(ValueError, match="no name with an example"):
        Partition.by_least_frequent({"a": 0, "b": 0}, 0.5)
