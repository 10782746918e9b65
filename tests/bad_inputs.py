"""Bad inputs, each with what its error must name: the place, and the mend. `test_bad_input.py` runs them."""

from __future__ import annotations

import gzip
import io
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from conftest import make_model, make_rows, make_tokenizer
from datasets import Dataset, DatasetDict
from helpers_classification import LABELS, multilabel
from helpers_trainer import fairpo
from helpers_trees import coco_content, edit_coco, write_coco, write_image, write_nus_wide
from rich.console import Console

from fairpo_trl.classification.config import MultiLabelFairPOConfig
from fairpo_trl.classification.data.coco import load_coco_2014
from fairpo_trl.classification.data.hf_datasets import from_dataset
from fairpo_trl.classification.data.images import open_image
from fairpo_trl.classification.data.nus_wide import load_nus_wide
from fairpo_trl.classification.data.split import MultiLabelSplit, check_splits
from fairpo_trl.classification.data.tables import load_features, load_table
from fairpo_trl.classification.metrics.calibration import fit_temperature
from fairpo_trl.classification.metrics.confusion import retrieval
from fairpo_trl.classification.metrics.group_report import evaluate_groups
from fairpo_trl.commands.main import main
from fairpo_trl.core import GroupWeights, Partition
from fairpo_trl.evaluation import paired_bootstrap, sample_completions, text_guards, win_rate
from fairpo_trl.generation.config import FairPOConfig
from fairpo_trl.preferences import check_preferences, load_preferences, split_by_prompt
from fairpo_trl.preferences.ratings import pairs_from_ratings


MEGABYTE = 1_000_000


@dataclass(frozen=True)
class BadInput:
    """
    One bad input.

    Attributes:
        what: What is wrong, as the name of the test.
        names: What the message must hold.
        make: From an empty folder, which it may fill, to the call that must fail.
    """

    what: str
    names: tuple[str, ...]
    make: Callable[[Path], Callable[[], object]]


def case(what: str, *names: str) -> Callable[[Callable[[Path], Callable[[], object]]], BadInput]:
    """Decorates the function that makes a bad input."""
    return lambda make: BadInput(what, names, make)


def calls(what: str, names: tuple[str, ...], call: Callable[[], object]) -> BadInput:
    """A bad input that needs no folder."""
    return BadInput(what, names, lambda folder: call)


# ---- preference pairs given to the trainer ----


def changed(row: int | None = None, **values: Any) -> Dataset:
    """Six pairs, of which one (or each) has other values."""
    pairs = make_rows(6)
    for place, pair in enumerate(pairs):
        if row is None or place == row:
            pair.update(values)
    return Dataset.from_list(pairs)


def training(what: str, names: tuple[str, ...], data: Callable[[], Any], **options: Any) -> BadInput:
    """Pairs or options that the trainer must refuse before it loads the model, which does not exist."""

    def make(folder: Path) -> Callable[[], object]:
        given = {name: value() if callable(value) else value for name, value in options.items()}
        return lambda: fairpo(folder / "out", data(), **{"model": str(folder / "no-model"), "ref": None, **given})

    return BadInput(what, names, make)


def chat(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


TRAINER = [
    training("rows in a list", ("train data", "got list", "Dataset.from_list(rows)"), lambda: make_rows(4)),
    training("every split at once", ("['train']", "pass one of them"), lambda: DatasetDict({"train": changed()})),
    training(
        "a misspelt attribute column",
        ("'attribute'", "did you mean 'atribute'"),
        lambda: changed().rename_column("attribute", "atribute"),
    ),
    training("no attribute", ("'attribute'", "row 2", "''"), lambda: changed(2, attribute="")),
    training("an attribute that is a number", ("rows 0, 1", "got 3"), lambda: changed(attribute=3)),
    training(
        "a megabyte in a list of attributes", ("rows 0, 1", "..."), lambda: changed(attribute=["x" * MEGABYTE, ""])
    ),
    training(
        "a misspelt privileged attribute",
        ("'concize'", "did you mean 'concise'"),
        changed,
        privileged_attributes=["concize"],
    ),
    training("nothing privileged", ("`privileged_attributes`", "'polite'"), changed, privileged_attributes=None),
    training(
        "an attribute declared without pairs",
        ("'brief'", "Remove it from the partition"),
        changed,
        non_privileged_attributes=["polite", "factual", "brief"],
    ),
    training(
        "an attribute in no list", ("'factual'", "Give each a role"), changed, non_privileged_attributes=["polite"]
    ),
    training("a prompt that is null", ("Row 1", "no prompt", "Remove"), lambda: changed(1, prompt=None)),
    training("a prompt of white space", ("Row 1", "no prompt", "Remove"), lambda: changed(1, prompt=" ")),
    training(
        "prompts that are numbers", ("Rows 0, 1", "'prompt' is neither text nor", "but 5"), lambda: changed(prompt=5)
    ),
    training(
        "completions that are one message", ("'chosen'", "list of messages"), lambda: changed(chosen=chat("a")[0])
    ),
    training("an empty completion", ("Row 3", "empty completion", "Remove"), lambda: changed(3, rejected="")),
    training(
        "completions that are equal", ("Rows 0, 1", "identical", "Remove"), lambda: changed(chosen="a", rejected="a")
    ),
    training(
        "plain prompts with conversational completions",
        ("rows 0, 1", "one format"),
        lambda: changed(chosen=chat("a"), rejected=chat("b")),
    ),
    training(
        "a conversational chosen with a plain rejected",
        ("rows 0, 1", "one format"),
        lambda: changed(prompt=chat("q", "user"), chosen=chat("a")),
    ),
    training(
        "messages without a role",
        ("message 0 of 'prompt'", "'role'", "did you mean 'rol'"),
        lambda: changed(prompt=[{"rol": "user", "content": "q"}], chosen=chat("a"), rejected=chat("b")),
    ),
    training(
        "messages without content",
        ("message 0 of 'chosen'", "'content'", "text"),
        lambda: changed(prompt=chat("q", "user"), chosen=[{"role": "assistant", "text": "a"}], rejected=chat("b")),
    ),
    training(
        "messages that are strings",
        ("message 0 of 'chosen'", "role and a content"),
        lambda: changed(prompt=chat("q", "user"), chosen=["a"], rejected=["b"]),
    ),
    training("images", ("'image'", "Remove the column"), lambda: changed(image=0)),
    training("no rows", ("train data has no rows",), lambda: changed().select([])),
    training(
        "an attribute in the evaluation alone",
        ("eval data", "'funny'", "training data"),
        changed,
        eval_dataset=lambda: Dataset.from_list(make_rows(3, ("funny",), seed=9)),
    ),
    training(
        "a prompt of the training data in the evaluation",
        ("Rows 0, 1", "held-out data", "split_by_prompt", "allow_prompt_overlap"),
        changed,
        allow_prompt_overlap=False,
        eval_dataset=lambda: {"held-out": changed(prompt=make_rows(6)[2]["prompt"].upper())},
    ),
    training(
        "an evaluation without rows", ("eval data has no rows",), changed, eval_dataset=lambda: changed().select([])
    ),
    training(
        "a prior of an unknown group",
        ("'privilegd'", "did you mean 'privileged'"),
        changed,
        group_prior={"privilegd": 1.0},
    ),
    training(
        "a prior that is text",
        ("`prior`", "'privileged'"),
        changed,
        group_prior='{"privileged": "much", "non_privileged": 1}',
    ),
    training("a floor for too many groups", ("`floor`", "[0, 0.5)"), changed, floor=0.6),
    training("a negative step size of the weights", ("`eta`", ">= 0"), changed, eta_alpha=-0.1),
    training(
        "a multiplier above its maximum",
        ("`multiplier_max`", "5.0 and 1.0"),
        changed,
        balancer="lagrangian",
        multiplier_start=5.0,
        multiplier_max=1.0,
    ),
    training(
        "a prompt that swallows the completion",
        ("row 2", "max_length=64", "Raise `max_length`"),
        lambda: changed(2, prompt="the cat " * 50),
        model=make_model,
        ref=make_model,
        max_length=64,
    ),
    training(
        "a prompt of a megabyte",
        ("row 2", "max_length=1024", "250000 tokens"),
        lambda: changed(2, prompt="the " * 250_000),
        model=make_model,
        ref=make_model,
    ),
]


# ---- options ----


def config(what: str, names: tuple[str, ...], **options: Any) -> BadInput:
    given = {"bf16": False, "report_to": "none", "privileged_attributes": ["concise"], **options}
    return BadInput(what, names, lambda folder: lambda: FairPOConfig(output_dir=str(folder / "out"), **given))


def labels_config(what: str, names: tuple[str, ...], **options: Any) -> BadInput:
    given = {"report_to": "none", "use_cpu": True, **options}
    return BadInput(what, names, lambda folder: lambda: MultiLabelFairPOConfig(output_dir=str(folder / "o"), **given))


OPTIONS = [
    config("a misspelt loss", ("`privileged_loss`", "'simp'", "did you mean 'simpo'"), privileged_loss="simp"),
    config("a misspelt level of the hinge", ("`hinge_level`", "did you mean 'attribute'"), hinge_level="atribute"),
    config("a misspelt balancer", ("`balancer`", "did you mean 'mirror_ascent'"), balancer="mirror"),
    config("a misspelt timing", ("`timing`", "did you mean 'lagged'"), timing="lag"),
    config(
        "a misspelt sampling of the rows",
        ("`train_sampling_strategy`", "did you mean 'random'"),
        train_sampling_strategy="randm",
    ),
    config("a beta of zero", ("`beta`", "positive", "0.0"), beta=0.0),
    config("a beta that is not a number", ("`beta`", "finite", "nan"), beta=math.nan),
    config("a beta that is text", ("`beta`", "positive", "'strong'"), beta="strong"),
    config("an infinite slack", ("`epsilon`", "finite", "inf"), epsilon=math.inf),
    config("a batch of no rows", ("`per_device_train_batch_size`", ">= 1", "got 0"), per_device_train_batch_size=0),
    config("half a batch", ("`per_device_train_batch_size`", "integer", "2.5"), per_device_train_batch_size=2.5),
    config("no accumulation step", ("`gradient_accumulation_steps`", ">= 1"), gradient_accumulation_steps=0),
    config("a negative learning rate", ("`learning_rate`", ">= 0", "-1.0"), learning_rate=-1.0),
    config("no epoch", ("`num_train_epochs`", "positive", "got 0"), num_train_epochs=0),
    config("a negative number of steps", ("`max_steps`", ">= 1", "-7"), max_steps=-7),
    config("a negative length", ("`max_length`", ">= 1", "-3"), max_length=-3),
    config(
        "names that are one string", ("`privileged_attributes`", "pass ['concise']"), privileged_attributes="concise"
    ),
    config("a name that is empty", ("`privileged_attributes`", "''"), privileged_attributes=["concise", ""]),
    config("a name in both lists", ("at once", "['concise']"), non_privileged_attributes=["concise"]),
    config(
        "a constraint without its bound", ("`balancer='lagrangian'`", "hinge=True"), balancer="lagrangian", hinge=False
    ),
    config("an option of another loss", ("['simpo_gamma']", "'privileged_loss': 'simpo'"), simpo_gamma=1.0),
    config("a loss of DPO that FairPO does not have", ("`loss_type=['ipo']`", "`privileged_loss`"), loss_type="ipo"),
    config("a prior that is no JSON", ("`group_prior`", "must be JSON like"), group_prior="privileged=1"),
    config(
        "weights of a step before it, over several",
        ("timing='lagged'", "gradient_accumulation_steps=4"),
        timing="current",
        gradient_accumulation_steps=4,
    ),
    labels_config("a misspelt loss of labels", ("`privileged_loss`", "did you mean 'simpo'"), privileged_loss="simp"),
    labels_config("a misspelt confuser", ("`confuser`", "did you mean 'hardest'"), confuser="hardst"),
    labels_config("one exponent for two", ("`asymmetric_gammas`", "two numbers"), asymmetric_gammas=[4.0]),
    labels_config("exponents that are text", ("`asymmetric_gammas`", "'a'"), asymmetric_gammas=["a", "b"]),
    labels_config("labels that are one string", ("`privileged_labels`", "pass ['dog']"), privileged_labels="dog"),
    labels_config("a negative batch", ("`per_device_eval_batch_size`", ">= 1", "-4"), per_device_eval_batch_size=-4),
    labels_config(
        "multipliers without a bound",
        ("non_privileged_loss='hinge'",),
        balancer="lagrangian",
        non_privileged_loss="bce",
    ),
]


# ---- files of pairs and ratings ----


def file(what: str, names: tuple[str, ...], name: str, content: str | bytes, **options: Any) -> BadInput:
    """A file that `load_preferences` must refuse."""

    def make(folder: Path) -> Callable[[], object]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        given = path if "/" not in name else path.parent
        return lambda: load_preferences(given, console=Console(file=io.StringIO()), **options)

    return BadInput(what, names, make)


def lines(*rows_: dict) -> str:
    return "\n".join(json.dumps(row) for row in rows_)


A, B = make_rows(2)
RATED = lines({"prompt": "p", "response": "x", "kind": 2}, {"prompt": "p", "response": "y", "kind": 1})


@case("a path with nothing at it", "'ultrafedback'", "did you mean 'ultrafeedback'")
def NO_FILE(folder: Path) -> Callable[[], object]:
    return lambda: load_preferences("ultrafedback", console=Console(file=io.StringIO()))


@case("a folder without data files", "empty", "any data files")
def EMPTY_FOLDER(folder: Path) -> Callable[[], object]:
    (folder / "empty").mkdir()
    return lambda: load_preferences(folder / "empty", console=Console(file=io.StringIO()))


FILES = [
    NO_FILE,
    EMPTY_FOLDER,
    file("a type of file that is not read", ("pairs.txt", ".jsonl"), "pairs.txt", "a"),
    file("a line that is not JSON", ("pairs.jsonl, line 2", "not JSON"), "pairs.jsonl", json.dumps(A) + "\n{"),
    file("JSON nested a hundred thousand times", ("pairs.json", "too deeply"), "pairs.json", "[" * 100_000),
    file("JSON Lines that are not UTF-8", ("pairs.jsonl", "UTF-8"), "pairs.jsonl", b'{"prompt": "\xff"}'),
    file(
        "a number beyond 64 bits",
        ("pairs.csv", "does not fit into one table"),
        "pairs.csv",
        "prompt,chosen,rejected,attribute,score\na,b,c,x,1\nb,c,d,x,-18446744073708240896\n",
    ),
    file("a CSV that is not UTF-8", ("pairs.csv", "UTF-8"), "pairs.csv", b"prompt,chosen\n\xff,a"),
    file("a compressed file that is not", ("pairs.jsonl.gz", "damaged"), "pairs.jsonl.gz", b"not compressed"),
    file("half a compressed file", ("pairs.jsonl.gz", "damaged"), "pairs.jsonl.gz", gzip.compress(b"x" * 9999)[:-9]),
    file("a Parquet file cut off", ("pairs.parquet", "not a readable"), "pairs.parquet", b"PAR1\0\0"),
    file("a folder with half a file", ("'data'", "quotation mark"), "data/train.jsonl", '{"prompt": "a'),
    file("a file without rows", ("pairs.jsonl has no rows",), "pairs.jsonl", ""),
    file(
        "a misspelt column of pairs",
        ("'rejected'", "did you mean 'rejectd'"),
        "pairs.jsonl",
        lines({**{k: v for k, v in A.items() if k != "rejected"}, "rejectd": "x"}),
    ),
    file(
        "plain and conversational rows in one file",
        ("pairs.jsonl", "row 0", "text in some rows, messages in others", "one format"),
        "pairs.jsonl",
        lines(A, {"prompt": chat("q", "user"), "chosen": chat("a"), "rejected": chat("b"), "attribute": "x"}),
    ),
    file(
        "an attribute spelt twice",
        ("Row 1", "differ only in case", "one spelling"),
        "pairs.jsonl",
        lines(A, {**A, "chosen": "other", "attribute": A["attribute"].upper()}),
    ),
    file("ratings without their option", ("ratings=['kind']",), "ratings.jsonl", RATED),
    file("a misspelt rating column", ("'knid'", "did you mean 'kind'"), "ratings.jsonl", RATED, ratings=["knid"]),
    file(
        "a rating that is infinite",
        ("'kind'", "inf in row 1"),
        "ratings.jsonl",
        RATED.replace("1}", "Infinity}"),
        ratings=["kind"],
    ),
    file(
        "ratings that are text",
        ("'kind'", "'good' in row 0"),
        "ratings.jsonl",
        RATED.replace("2}", '"good"}'),
        ratings=["kind"],
    ),
    file(
        "ratings that are NaN",
        ("'kind'", "no_score 2"),
        "ratings.jsonl",
        RATED.replace("2}", "NaN}").replace("1}", "NaN}"),
        ratings=["kind"],
    ),
    file(
        "one id for two responses",
        ("Rows 0 and 1", "same id 's'"),
        "ratings.jsonl",
        RATED.replace('"prompt"', '"id": "s", "prompt"'),
        ratings=["kind"],
    ),
    file(
        "a response twice",
        ("row 1 as row 0", "keep one"),
        "ratings.jsonl",
        RATED.replace('"y"', '"x"'),
        ratings=["kind"],
    ),
    file("a margin below zero", ("`min_margin`", "-1"), "ratings.jsonl", RATED, ratings=["kind"], min_margin=-1),
    file(
        "no pair per prompt", ("1 or more", "got 0"), "ratings.jsonl", RATED, ratings=["kind"], max_pairs_per_prompt=0
    ),
    file(
        "an option that ratings do not have",
        ("'min_margn'", "did you mean 'min_margin'"),
        "ratings.jsonl",
        RATED,
        ratings=["kind"],
        min_margn=1,
    ),
    file("a test share above one", ("`share`", "between 0 and 1", "1.5"), "pairs.jsonl", lines(A, B), test_share=1.5),
    file(
        "an attribute that is not there",
        ("'polit'", "did you mean 'polite'"),
        "pairs.jsonl",
        lines(A, B),
        attributes=["polit"],
    ),
    file(
        "a published set that does not exist",
        ("'helpster2'", "did you mean 'helpsteer2'"),
        "pairs.jsonl",
        lines(A),
        source="helpster2",
    ),
    file(
        "rows of another published set",
        ("As MultiPref", "'comparison_id'"),
        "pairs.jsonl",
        lines(A),
        source="multipref",
    ),
    calls("one prompt to divide", ("1 different prompts", "takes two"), lambda: split_by_prompt([A, A], 0.5)),
    calls("a check of no split", ("no split to check",), lambda: check_preferences({})),
    calls(
        "a length without a tokenizer",
        ("`max_length`", "needs a tokenizer"),
        lambda: check_preferences([A, B], max_length=9),
    ),
    calls(
        "a table with a column twice",
        ("'kind' more than once",),
        lambda: pairs_from_ratings(
            pd.DataFrame([["p", "x", 1, 2]], columns=["prompt", "response", "kind", "kind"]), ["kind"]
        ),
    ),
]


# ---- images and labels ----


def split(**changes: Any) -> MultiLabelSplit:
    base: dict[str, Any] = {"name": "train", "label_names": ("cat", "dog"), "ids": ("x", "y")}
    return MultiLabelSplit(**{**base, "labels": np.array([[1, 0], [0, 1]]), **changes})


def table(what: str, names: tuple[str, ...], name: str, content: str | bytes, **options: Any) -> BadInput:
    """A table of images that must be refused; the image `a.png` exists beside it."""

    def make(folder: Path) -> Callable[[], object]:
        write_image(folder / "a.png")
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return lambda: load_table(folder / name, **options)

    return BadInput(what, names, make)


def features(what: str, names: tuple[str, ...], name: str, content: bytes) -> BadInput:
    def make(folder: Path) -> Callable[[], object]:
        (folder / name).write_bytes(content)
        (folder / "labels.csv").write_text("id,cat\na,1\n")
        return lambda: load_features(folder, label_columns="all")

    return BadInput(what, names, make)


def coco(what: str, names: tuple[str, ...], edit: Callable[[dict], object]) -> BadInput:
    def make(folder: Path) -> Callable[[], object]:
        content = coco_content("train", {9: ["dog"], 25: ["cat"]})
        write_coco(folder, {9: ["dog"], 25: ["cat"]}, {42: ["dog"]})
        edit(content)
        edit_coco(folder, "train", content)
        return lambda: load_coco_2014(folder)

    return BadInput(what, names, make)


@case("the folder of COCO without its annotations", "annotations/instances_train2014.json", "Expected layout")
def HALF_A_TREE(folder: Path) -> Callable[[], object]:
    (folder / "train2014").mkdir()
    return lambda: load_coco_2014(folder)


@case("a label file of NUS-WIDE that is too short", "Labels_zebra_Train.txt has 1 rows", "TrainImagelist.txt has 2")
def SHORT_LABELS(folder: Path) -> Callable[[], object]:
    write_nus_wide(folder / "nus", {"a\\1_1.jpg": ["zebra"], "a\\1_2.jpg": []}, {"a\\2_1.jpg": []})
    (folder / "nus/Groundtruth/TrainTestLabels/Labels_zebra_Train.txt").write_text("1\n")
    return lambda: load_nus_wide(folder / "nus")


@case("a concept of NUS-WIDE that is a path", "'../../secret'", "leave the folder")
def CONCEPT_PATH(folder: Path) -> Callable[[], object]:
    write_nus_wide(folder / "nus", {"a\\1_1.jpg": []}, {"a\\2_1.jpg": []})
    concepts = folder / "nus/ConceptsList/Concepts81.txt"
    concepts.write_text(concepts.read_text().replace("airport", "../../secret"))
    return lambda: load_nus_wide(folder / "nus")


@case("an image cut in half", "a.png", "not a readable image")
def CUT_IMAGE(folder: Path) -> Callable[[], object]:
    path = write_image(folder / "a.png", size=(90, 90))
    path.write_bytes(path.read_bytes()[:60])
    return lambda: open_image(path)


@case("an image of too many pixels", "a.png", "48 pixels", "max_pixels=40")
def LARGE_IMAGE(folder: Path) -> Callable[[], object]:
    path = write_image(folder / "a.png", size=(8, 6))
    return lambda: open_image(path, max_pixels=40)


@case("an image that the table has and the folder has not", "labels.jsonl", "row 1: 'b.png'", "image_root")
def NO_IMAGE(folder: Path) -> Callable[[], object]:
    (folder / "labels.jsonl").write_text(json.dumps({"path": "b.png", "labels": ["cat"]}))
    return lambda: load_table(folder / "labels.jsonl")


@case("a dataset without its column of images", "'image'", "did you mean 'images'")
def NO_IMAGE_COLUMN(folder: Path) -> Callable[[], object]:
    data = Dataset.from_list([{"images": b"x", "labels": ["cat"]}])
    return lambda: from_dataset(data)


PICTURES = [
    HALF_A_TREE,
    SHORT_LABELS,
    CONCEPT_PATH,
    CUT_IMAGE,
    LARGE_IMAGE,
    NO_IMAGE,
    NO_IMAGE_COLUMN,
    coco(
        "a category that COCO does not have",
        ("instances_train2014.json", "'dgo'", "did you mean 'dog'"),
        lambda c: c["categories"][16].update(name="dgo"),
    ),
    coco(
        "annotations of an unknown category",
        ("1 annotations", "unknown category ids: 99"),
        lambda c: c["annotations"][0].update(category_id=99),
    ),
    coco("an image id twice", ("image id 9 occurs more than once",), lambda c: c["images"][1].update(id=9)),
    coco(
        "an image id that is a list",
        ("instances_train2014.json", "wrong type"),
        lambda c: c["images"][0].update(id=[9]),
    ),
    coco(
        "a file name that is absolute",
        ("'/etc/passwd'", "inside it"),
        lambda c: c["images"][0].update(file_name="/etc/passwd"),
    ),
    coco(
        "a file name that goes up", ("'../a.jpg'", "inside it"), lambda c: c["images"][0].update(file_name="../a.jpg")
    ),
    coco(
        "annotations without boxes", ("'bbox' is missing", "`annotations`"), lambda c: c["annotations"][0].pop("bbox")
    ),
    table(
        "a cell of a megabyte",
        ("labels.csv, row 1", "column 'labels'", "1,000,000 characters", "no name of a label"),
        "labels.csv",
        f'path,labels\na.png,"{"x" * MEGABYTE}"\n',
    ),
    table(
        "a name of a megabyte",
        ("labels.jsonl, row 1", "'path'"),
        "labels.jsonl",
        json.dumps({"path": ["x" * MEGABYTE], "labels": ["cat"]}),
    ),
    table("a table that is not UTF-8", ("labels.csv", "UTF-8"), "labels.csv", b"path,labels\n\xff.png,cat\n"),
    table(
        "a row of the wrong width",
        ("labels.csv, row 1", "3 cells", "2 columns"),
        "labels.csv",
        "path,labels\na.png,cat,dog\n",
    ),
    table(
        "a path out of the folder", ("'path'", "'../a.png'", "inside it"), "labels.csv", "path,labels\n../a.png,cat\n"
    ),
    table(
        "labels that are numbers",
        ("column 'labels'", "given by name", "`--labels` with 2 names", "label_names="),
        "labels.jsonl",
        json.dumps({"path": "a.png", "labels": [1]}),
    ),
    table(
        "a label that is not listed",
        ("row 1", "'cta'", "did you mean 'cat'"),
        "labels.csv",
        "path,labels\na.png,cta\n",
        label_names=["cat"],
    ),
    table("an id twice", ("rows 1 and 2", "same path 'a.png'"), "labels.csv", "path,labels\na.png,cat\na.png,cat\n"),
    table(
        "a split of another name",
        ("'tset'", "did you mean 'test'"),
        "labels.csv",
        "path,labels,split\na.png,cat,tset\n",
    ),
    table(
        "a cell that is no label",
        ("row 1, column 'cat'", "'yes'", "`--absent_value yes`", "unknown='yes'"),
        "labels.csv",
        "path,cat\na.png,yes\n",
        label_columns="all",
    ),
    table(
        "columns that may be labels or not",
        ("`--label_columns checked cat`", "`--label_columns all`", "label_columns=[...]"),
        "labels.csv",
        "path,checked,cat\na.png,0,1\n",
    ),
    table(
        "blanks for absent",
        ("label columns hold 1 and empty cells", "the first 'cat'", "`--absent_value ''`", "unknown=''"),
        "labels.csv",
        "path,cat,dog\na.png,1,0\nb.png,,1\n",
        label_columns=["cat", "dog"],
    ),
    table(
        "labels joined by blanks",
        ("' '", "`--separator ' '`", "separator='|'"),
        "labels.csv",
        "path,labels\na.png,cat dog\n",
    ),
    table(
        "an option of another kind",
        ("missing_images", "did you mean 'skip'"),
        "labels.csv",
        "path,labels\na.png,cat\n",
        missing_images="skp",
    ),
    features("features that are empty", ("features.npy", "not a whole array"), "features.npy", b""),
    features("features that are a pickle", ("features.npy", "objects are never read"), "features.npy", b"\x80\x04N."),
    features(
        "safetensors cut off", ("features.safetensors", "not a whole"), "features.safetensors", b"\x08\0\0\0\0\0\0\0{"
    ),
    calls(
        "a label matrix of another width",
        ("2 label names", "[N, 2]", "[2, 3]"),
        lambda: split(labels=np.zeros((2, 3), int)),
    ),
    calls(
        "a label matrix with rows of several lengths",
        ("train split", "2 columns"),
        lambda: split(labels=[[1], [0, 1]]),
    ),
    calls("a label of two", ("row 1, label 'dog'", "holds 2"), lambda: split(labels=[[1, 0], [0, 2]])),
    calls(
        "a feature that is NaN",
        ("row 1, column 0", "nan"),
        lambda: split(features=np.array([[1.0], [np.nan]], np.float32)),
    ),
    calls("features in a list", ("NumPy array", "got list"), lambda: split(features=[[1.0], [2.0]])),
    calls(
        "an id in two splits",
        ("'train' and 'test'", "share 2 ids", "leaks"),
        lambda: check_splits({"train": split(), "test": split(name="test")}),
    ),
    BadInput(
        "a misspelt privileged label",
        ("'ancor'", "did you mean 'anchor'"),
        lambda folder: lambda: multilabel(folder / "out", privileged_labels=["ancor"]),
    ),
    BadInput(
        "no privileged label",
        ("`privileged_labels`", "by_least_frequent"),
        lambda folder: lambda: multilabel(folder / "out", privileged_labels=[]),
    ),
]


# ---- partition, weights, metrics ----

NAN = math.nan
CALLS = [
    calls("a partition that is no JSON", ("Not a partition", "not JSON"), lambda: Partition.from_json("{")),
    calls("a partition without roles", ("lacks ['roles']",), lambda: Partition.from_json('{"names": ["a"]}')),
    calls("a name twice", ("once", "['a']"), lambda: Partition.by_name(["a", "a"], ["a"])),
    calls("a share above one", ("`share`", "(0, 1]", "1.5"), lambda: Partition.by_least_frequent({"a": 1}, 1.5)),
    calls(
        "a score that is NaN", ("`scores`", "NaN for ['b']"), lambda: Partition.by_worst_score({"a": 1, "b": NAN}, 0.5)
    ),
    calls(
        "a score that is missing",
        ("`scores`", "None", "['b']"),
        lambda: Partition.by_worst_score({"a": 1, "b": None}, 0.5),
    ),
    calls("no group", ("`groups` is empty",), lambda: GroupWeights([])),
    calls("scores of a win rate that are NaN", ("a is NaN at prompt 1",), lambda: win_rate([1.0, NAN], [1.0, 2.0])),
    calls(
        "scores of a win rate that are text", ("a must be a matrix of numbers",), lambda: win_rate([["x"]], [[1.0]])
    ),
    calls("win rates of different prompts", ("2 prompts", "b of 1"), lambda: win_rate([1.0, 2.0], [1.0])),
    calls("an infinite value for an interval", ("infinite at prompt 1",), lambda: paired_bootstrap([0.5, math.inf])),
    calls("no resample", ("n must be at least 1", "got 0"), lambda: paired_bootstrap([0.5, 0.6], n=0)),
    calls("no completion", ("no completions",), lambda: text_guards([[]])),
    calls(
        "a temperature that is NaN",
        ("`temperature`", "nan"),
        lambda: sample_completions(make_model(), make_tokenizer(), ["the"], temperature=NAN),
    ),
    calls(
        "prompts that are one text",
        ("`prompts`", "in a list"),
        lambda: sample_completions(make_model(), make_tokenizer(), "the"),
    ),
    calls(
        "a prompt without a role",
        ("message 0", "'role'"),
        lambda: sample_completions(make_model(), make_tokenizer(), [[{"content": "the"}]]),
    ),
    calls(
        "a score of a label that is NaN",
        ("row 0, label 'candle'", "nan"),
        lambda: evaluate_groups(
            np.ones((1, 6), int), np.array([[0, 0, NAN, 0, 0, 0]]), Partition.by_name(LABELS, ["drum"])
        ),
    ),
    calls(
        "scores of another width",
        ("(1, 5)", "(1, 6)"),
        lambda: evaluate_groups(np.ones((1, 6), int), np.zeros((1, 5)), Partition.by_name(LABELS, ["drum"])),
    ),
    calls(
        "a temperature of nothing known",
        ("No label is known",),
        lambda: fit_temperature(np.full((2, 2), -1), np.zeros((2, 2))),
    ),
    calls(
        "a cutoff beyond the images",
        ("`cutoffs` [9]", "1 and the 2 images"),
        lambda: retrieval(np.ones((2, 1), int), np.zeros((2, 1)), Partition.by_name(["a"], ["a"]), cutoffs=(9,)),
    ),
]


LIBRARY = [*TRAINER, *OPTIONS, *FILES, *PICTURES, *CALLS]


# ---- the command line ----


@dataclass(frozen=True)
class BadCommand:
    """
    One bad command line.

    Attributes:
        what: What is wrong, as the name of the test.
        names: What the line on the standard error must hold.
        arguments: Without the name of the program; `{}` stands for the folder.
        files: What lies in the folder.
    """

    what: str
    names: tuple[str, ...]
    arguments: str
    files: dict[str, str]

    def run(self, folder: Path) -> None:
        """Calls the program in this process."""
        main(self.words(folder))

    def words(self, folder: Path) -> list[str]:
        return [word.replace("{}", str(folder)) for word in self.arguments.split()]

    def prepare(self, folder: Path) -> None:
        model = {"model/config.json": "{}"}  # never loaded: the mistake comes first
        for name, content in {**model, **self.files}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)


PAIRS = {"pairs.jsonl": lines(*make_rows(8))}
TRAIN = (
    "generation --model_name_or_path {}/model --dataset_name {}/pairs.jsonl --output_dir {}/out "
    "--privileged_attributes concise --use_cpu true --bf16 false --report_to none"
)
PAINT = "classification --dataset table --data_dir {}/labels.csv --output_dir {}/out --use_cpu true --report_to none"
TABLE = {"labels.csv": "path,labels\na.png,cat\n"}
JUDGE = (
    "evaluate {}/no-model --dataset_name {}/pairs.jsonl --test_share 0.5 --privileged_attributes concise "
    "--output_dir {}/judged"
)
ALL = "--judges concise=count:words:fewer polite=count:words:more factual=count:words:more"
ADAPTER = {"adapter/adapter_config.json": json.dumps({"peft_type": "LORA", "base_model_name_or_path": "no/base"})}
COMMANDS = [
    BadCommand("a misspelt command", ("'generate'", "did you mean 'generation'"), "generate", {}),
    BadCommand(
        "a misspelt option",
        ("'--privileged_atributes'", "did you mean '--privileged_attributes'"),
        f"{TRAIN} --privileged_atributes polite",
        PAIRS,
    ),
    BadCommand("an option that is no number", ("--learning_rate", "fast"), f"{TRAIN} --learning_rate fast", PAIRS),
    BadCommand("a negative option", ("`learning_rate`", ">= 0"), f"{TRAIN} --learning_rate -1", PAIRS),
    BadCommand(
        "a zero option", ("`gradient_accumulation_steps`", ">= 1"), f"{TRAIN} --gradient_accumulation_steps 0", PAIRS
    ),
    BadCommand(
        "options that contradict each other",
        ("`balancer='fixed'`", "`floor`"),
        f"{TRAIN} --balancer fixed --floor 0.1",
        PAIRS,
    ),
    BadCommand("a choice that is none", ("--method", "fairpoo"), f"{TRAIN} --method fairpoo", PAIRS),
    BadCommand(
        "a model folder that is not there",
        ("`model_name_or_path`", "no-model"),
        TRAIN.replace("/model", "/no-model"),
        PAIRS,
    ),
    BadCommand(
        "a model folder without a model",
        ("`model_name_or_path`", "holds no saved model"),
        TRAIN.replace("/model", "/empty"),
        {**PAIRS, "empty/notes.txt": "x"},
    ),
    BadCommand(
        "an output folder that holds files",
        ("`output_dir`", "adapter_model.safetensors", "--resume_from_checkpoint true", "--overwrite_output_dir true"),
        TRAIN,
        {**PAIRS, "out/adapter_model.safetensors": "x"},
    ),
    BadCommand("an output folder that is a file", ("`output_dir`", "is a file"), TRAIN, {**PAIRS, "out": "x"}),
    BadCommand(
        "an output folder that holds an image model",
        ("`output_dir`", "model.safetensors"),
        PAINT,
        {
            "labels.csv": "path,labels,split\na.png,cat,train\nb.png,dog,train\nc.png,cat,test\n",
            "out/model.safetensors": "x",
            **dict.fromkeys(("a.png", "b.png", "c.png"), "x"),
        },
    ),
    BadCommand(
        "a table without a test split",
        ("no split 'test'", "column `split`"),
        PAINT,
        {"labels.csv": "path,labels\na.png,cat\nb.png,dog\n", "a.png": "x", "b.png": "x"},
    ),
    BadCommand("no patience at all", ("`patience`", "at least 1"), f"{PAINT} --patience 0", TABLE),
    BadCommand(
        "blocks of a frozen backbone",
        ("`backbone_blocks=3`", "`backbone_trainable`"),
        f"{PAINT} --backbone_blocks 3",
        TABLE,
    ),
    BadCommand("a file that is not there", ("no-pairs.jsonl",), TRAIN.replace("/pairs", "/no-pairs"), {}),
    BadCommand(
        "data without a name",
        ("--dataset_name",),
        "generation --model_name_or_path x --output_dir {}/out --use_cpu true --bf16 false",
        {},
    ),
    BadCommand(
        "a misspelt attribute", ("'concize'", "did you mean 'concise'"), TRAIN.replace("concise", "concize"), PAIRS
    ),
    BadCommand("an evaluation without its split", ("'test'", "test_share"), f"{TRAIN} --eval_strategy steps", PAIRS),
    BadCommand(
        "a leak into the evaluation",
        ("Row 0 of the eval data", "allow_prompt_overlap"),
        f"{TRAIN} --eval_strategy steps --eval_steps 1",
        {"pairs.jsonl": lines(*({**row, "split": part} for part in ("train", "test") for row in make_rows(1)))},
    ),
    BadCommand("an unusable row", ("Row 0", "empty completion"), TRAIN, {"pairs.jsonl": lines({**A, "chosen": ""})}),
    BadCommand("a YAML file that is not there", ("no.yaml",), f"{TRAIN} --config {{}}/no.yaml", PAIRS),
    BadCommand(
        "a YAML file with a misspelt option",
        ("my.yaml", "'max_lenght'", "did you mean 'max_length'"),
        f"{TRAIN} --config {{}}/my.yaml",
        {**PAIRS, "my.yaml": "max_lenght: 5\n"},
    ),
    BadCommand(
        "a YAML file with a value of the wrong type",
        ("my.yaml", "`max_steps`", "integer"),
        f"{TRAIN} --config {{}}/my.yaml",
        {**PAIRS, "my.yaml": "max_steps: [1, 2]\n"},
    ),
    BadCommand(
        "a YAML file that builds objects",
        ("my.yaml", "not YAML"),
        f"{TRAIN} --config {{}}/my.yaml",
        {**PAIRS, "my.yaml": "!!python/object/apply:os.system ['true']\n"},
    ),
    BadCommand(
        "a misspelt rating",
        ("'knid'", "did you mean 'kind'"),
        "check {}/ratings.jsonl --ratings knid",
        {"ratings.jsonl": RATED},
    ),
    BadCommand("ratings given as pairs", ("ratings=['kind']",), "check {}/ratings.jsonl", {"ratings.jsonl": RATED}),
    BadCommand("a check of nothing", ("--dataset_name",), "check", {}),
    BadCommand(
        "a mixture of one source twice",
        ("'kind' twice",),
        "check --mixture kind={}/pairs.jsonl kind={}/pairs.jsonl",
        PAIRS,
    ),
    BadCommand(
        "tokens without a tokenizer", ("`max_length`", "`tokenizer`"), "check {}/pairs.jsonl --max_length 9", PAIRS
    ),
    BadCommand("images that are not there", ("labels.csv", "'a.png'", "image_root"), PAINT, TABLE),
    BadCommand(
        "an image out of the folder", ("'../a.png'", "inside it"), PAINT, {"labels.csv": "path,labels\n../a.png,cat\n"}
    ),
    BadCommand(
        "a tree that is none",
        ("annotations/instances_train2014.json", "Expected layout"),
        "classification --data_dir {} --output_dir {}/out --use_cpu true",
        {},
    ),
    BadCommand(
        "an option of another data set", ("`label_order`", "coco"), f"{PAINT} --label_order alphabetical", TABLE
    ),
    BadCommand(
        "a loss of labels that is none", ("--privileged_loss", "cpoo"), f"{PAINT} --privileged_loss cpoo", TABLE
    ),
    BadCommand("no model to evaluate", ("Name the models",), "evaluate", {}),
    BadCommand("no judge", ("--judges", "ATTRIBUTE=KIND:TARGET"), f"{JUDGE}", PAIRS),
    BadCommand(
        "a judge of a misspelt kind",
        ("'concise=cont:words'", "did you mean 'count'"),
        f"{JUDGE} --judges concise=cont:words",
        PAIRS,
    ),
    BadCommand(
        "a count that does not say what is better",
        ("count:words:fewer or",),
        f"{JUDGE} --judges concise=count:words",
        PAIRS,
    ),
    BadCommand(
        "a judge of a misspelt attribute",
        ("'concize'", "did you mean 'concise'"),
        f"{JUDGE} --judges concize=count:words:fewer",
        PAIRS,
    ),
    BadCommand("a model to evaluate that is not there", ("no-model",), f"{JUDGE} {ALL}", PAIRS),
    BadCommand(
        "an adapter without its weights",
        ("adapter' holds no weights", "safetensors"),
        f"{JUDGE} {ALL}".replace("no-model", "adapter"),
        {**PAIRS, **ADAPTER},
    ),
    BadCommand("a push of nothing", ("Name the folder",), "push", {}),
    BadCommand(
        "a push of a folder that is not there", ("no-model", "no folder"), "push {}/no-model --repo_id me/it", {}
    ),
    BadCommand(
        "a push of an empty folder",
        ("not a saved model", "adapter_config.json"),
        "push {}/empty --repo_id me/it",
        {"empty/notes.txt": "x"},
    ),
    BadCommand(
        "a push of an adapter without its weights",
        ("adapter_model.safetensors",),
        "push {}/adapter --repo_id me/it --dry_run true",
        ADAPTER,
    ),
    BadCommand(
        "a push of a pickle",
        ("pickle.bin", "run code"),
        "push {}/adapter --repo_id me/it --dry_run true",
        {**ADAPTER, "adapter/pickle.bin": "x"},
    ),
    BadCommand("a push to no repository", ("--repo_id",), "push {}/adapter", ADAPTER),
]
