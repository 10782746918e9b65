"""The shipped clip-art set: images, labels, split and features recomputed from the files; the rules that made it."""

import hashlib
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw
from safetensors.numpy import save_file


openclipart = pytest.importorskip("openclipart", reason="recipes/ is not on the path")
from openclipart import load as loading  # noqa: E402
from openclipart.build_images import content_hash  # noqa: E402
from openclipart.labels import RULES, labels_of, read_rules  # noqa: E402
from openclipart.pictures import NEAR, NEAR_OUTLINE, Unusable, near_duplicates, same_outline, signature, small_copy  # noqa: E402
from openclipart.series import make_series, privileged_labels, split_once, stem_key  # noqa: E402
from openclipart.sources import Picture, package_file, words_of  # noqa: E402


pytestmark = pytest.mark.xdist_group("openclipart_data")  # its fixtures are costly: once for the file


DATA = Path(openclipart.__file__).with_name("data")


@pytest.fixture(scope="module")
def rows():
    return pq.read_table(loading.PARQUET).to_pylist()


@pytest.fixture(scope="module")
def report():
    return json.loads((DATA / "build_report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def splits():
    return loading.load_openclipart()


def picture(path="animals/x", keywords=(), folders=None, title="", author=""):
    words = set(words_of(path.rsplit("/", 1)[1]) + words_of(title))
    return Picture(path, b"", title, author, set(keywords), set(folders or [path.rsplit("/", 1)[0]]), words)


def png(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


# ---- the files ----


def test_every_image_is_a_160_pixel_webp_and_no_two_are_equal(rows):
    for row in rows:
        with Image.open(io.BytesIO(row["image"]["bytes"])) as image:
            assert (image.format, image.size, image.mode) == ("WEBP", (160, 160), "RGB"), row["id"]
    assert len({hashlib.sha256(row["image"]["bytes"]).digest() for row in rows}) == len(rows)
    assert len({row["id"] for row in rows}) == len(rows)


def test_no_series_crosses_the_split(rows):
    sides = {}
    for row in rows:
        assert sides.setdefault(row["series"], row["split"]) == row["split"], row["series"]
    assert set(sides.values()) == {"train", "test"}


def test_no_near_duplicates_cross_the_split(rows):
    signatures = [signature(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows]
    folders = [row["id"].rsplit("/", 1)[0] for row in rows]
    pairs = near_duplicates(signatures, **NEAR)
    pairs += same_outline(signatures, folders, NEAR_OUTLINE)
    crossing = [(rows[a]["id"], rows[b]["id"]) for a, b in pairs if rows[a]["split"] != rows[b]["split"]]
    assert len(pairs) > 500
    assert crossing == []


def test_every_label_is_in_both_splits_and_privileged_ones_have_15_test_positives(rows, report):
    count = {
        split: Counter(label for row in rows if row["split"] == split for label in row["labels"])
        for split in ("train", "test")
    }
    names = json.loads(pq.read_schema(loading.PARQUET).metadata[b"label_names"])
    assert set(count["train"]) == set(count["test"]) == set(names)
    rarest = sorted(names, key=lambda name: (count["train"][name], name))[: round(0.2 * len(names))]
    assert report["privileged"] == rarest
    assert min(count["test"][name] for name in rarest) >= 15
    assert min(count["train"].values()) >= 15


def test_the_report_states_what_is_in_the_file(rows, report):
    names = json.loads(pq.read_schema(loading.PARQUET).metadata[b"label_names"])
    assert report["content_hash"] == content_hash(rows, names)
    assert report["images"] == dict(Counter(row["split"] for row in rows))
    for name, images in report["images_per_label"].items():
        for split in ("train", "test"):
            assert images[split] == sum(name in row["labels"] for row in rows if row["split"] == split)
    merged_or_dropped = report["sources"]["symbolic links merged"] + sum(report["dropped_pictures"].values())
    assert report["sources"]["paths"] - merged_or_dropped == len(rows)


def test_implied_labels_are_present_in_every_row(rows):
    names = set(json.loads(pq.read_schema(loading.PARQUET).metadata[b"label_names"]))
    missing = Counter()
    for row in rows:
        for label in row["labels"]:
            missing.update((label, wide) for wide in set(RULES[label].implies) & names - set(row["labels"]))
    # Only where a word rules the wide label out: a golf flag, a hat in a folder of people.
    assert sum(missing.values()) <= 10, missing


def test_the_files_are_small_enough_to_ship():
    assert loading.PARQUET.stat().st_size < 15e6
    assert loading.FEATURES.stat().st_size < 8e6


# ---- the loader ----


def test_the_loader_gives_both_splits_with_features_of_finite_length(splits, report):
    for name, split in splits.items():
        assert len(split) == report["images"][name]
        assert split.label_names == tuple(name for name in RULES if name in report["images_per_label"])
        assert split.label_counts() == {label: report["images_per_label"][label][name] for label in split.label_names}
        assert split.features.shape == (len(split), 768)
        assert split.features.dtype == np.float16
        assert (np.linalg.norm(split.features.astype(np.float32), axis=1) > 1).all()


def test_features_of_other_images_are_refused(tmp_path):
    stored, metadata = loading.read_features()
    metadata["images_hash_test"] = "0" * 64
    save_file(stored, tmp_path / "features.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="made from other images.*split 'test'.*build_features"):
        loading.load_openclipart(features_file=tmp_path / "features.safetensors")


def test_missing_files_name_the_command_that_makes_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="openclipart.build_images"):
        loading.load_openclipart(parquet=tmp_path / "no.parquet")
    with pytest.raises(FileNotFoundError, match="features=False"):
        loading.load_openclipart(features_file=tmp_path / "no.safetensors")
    with pytest.raises(FileNotFoundError, match="apt-get download"):
        package_file(tmp_path, "png")


def test_a_changed_package_is_refused(tmp_path):
    (tmp_path / "openclipart-svg_1%3a0.18+dfsg-19_all.deb").write_bytes(b"!<arch>\nchanged")
    with pytest.raises(ValueError, match="SHA-256 is"):
        package_file(tmp_path, "svg")


@pytest.mark.slow
def test_stored_features_agree_with_live_ones():
    dinov2 = pytest.importorskip("openclipart.dinov2")
    from fairpo_trl.classification.features.backbones import load_backbone

    try:
        folder, _ = dinov2.dinov2_path()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    assert loading.check_features(load_backbone(f"hf:{folder}", pooling="cls_mean"), n=20) < loading.RELATIVE_TOLERANCE
    with pytest.raises(ValueError, match="pooling"):
        loading.check_features(load_backbone(f"hf:{folder}", pooling="cls"), n=1)


# ---- the rules ----


def test_a_narrow_label_brings_its_wide_ones():
    assert labels_of(picture("animals/mammals/dogs/beagle_01")) == ["animal", "mammal", "dog"]
    assert labels_of(picture("unsorted/gatto_nero", ["cat"])) == ["animal", "mammal", "cat"]


def test_a_word_can_rule_a_label_out():
    assert labels_of(picture("unsorted/bear_01", ["animal"])) == ["animal"]
    assert labels_of(picture("recreation/toys/teddy_bear_01", ["animal"])) == ["toy"]
    assert labels_of(picture("food/x/hot_dog_01", ["dog"])) == ["food"]


def test_a_flag_is_no_sign_whatever_its_keywords_say():
    assert labels_of(picture("signs_and_symbols/flags/europe/italy", ["flag", "sign"])) == ["flag"]


def test_rules_that_name_unknown_labels_are_refused(tmp_path):
    (tmp_path / "labels.yaml").write_text("dog:\n  words: [dog]\n  implies: [anmial]\n")
    with pytest.raises(ValueError, match="'dog' names labels that do not exist.*anmial"):
        read_rules(tmp_path / "labels.yaml")


def test_names_run_together_are_taken_apart():
    assert words_of("DangerElectrique_02") == ["danger", "electrique"]


def test_variants_of_a_drawing_have_one_stem():
    one = picture("computer/buttons/arrow-left-blue_benji_p_01", author="Benji Park")
    two = picture("computer/buttons/arrow-up-red_benji_park_02", author="Benji Park")
    assert stem_key(one) == stem_key(two) == "computer/buttons/arrow"
    assert stem_key(picture("animals/mammals/pig_01")) != stem_key(picture("animals/mammals/cow_01"))


def test_a_series_joins_stems_folders_and_near_duplicates():
    pictures = [
        picture("a/pig_01"),
        picture("a/pig_02"),
        picture("a/cow"),
        picture("b/goat"),
        picture("recreation/games/cards/white/king"),
        picture("recreation/games/cards/simple/ace"),
    ]
    assert make_series(pictures, [(1, 3)]) == [
        "a/pig_01",
        "a/pig_01",
        "a/cow",
        "a/pig_01",
        "recreation/games/cards/white/king",
        "recreation/games/cards/white/king",
    ]


def test_a_split_keeps_series_whole_and_gives_the_rarest_label_its_share():
    import random

    series = [f"s{n // 2}" for n in range(80)]
    labels = [["rare"] if n < 40 else ["common"] for n in range(80)]
    split = split_once(series, labels, random.Random(0))
    assert set(split) == set(series)
    # 40 images: the test split should get 17, in pairs.
    assert 2 * sum(split[f"s{n}"] == "test" for n in range(20)) in (16, 18)


def test_privileged_are_the_rarest_fifth():
    assert privileged_labels(Counter(a=5, b=3, c=9, d=8, e=7), list("abcde")) == ["b"]


def test_transparent_borders_are_cropped_and_opaque_pictures_stay_whole():
    drawing = Image.new("RGBA", (400, 400))
    drawing.paste((255, 0, 0, 255), (180, 180, 220, 200))
    copy = np.asarray(small_copy(png(drawing)))
    red = np.argwhere((copy == (255, 0, 0)).all(axis=2))
    # 40 x 20 pixels become 148 x 74, centred on 160 x 160 white.
    assert red.min(axis=0).tolist() == [43, 6]
    assert red.max(axis=0).tolist() == [116, 153]
    japan = Image.new("RGB", (300, 200), "white")
    japan.paste((255, 0, 0), (120, 70, 180, 130))
    copy = np.asarray(small_copy(png(japan)))
    red = np.argwhere(copy[..., 1] < 128)
    assert (np.ptp(red, axis=0) <= 31).all()


@pytest.mark.parametrize(
    "image, reason",
    [
        (Image.new("RGBA", (100, 100)), "nothing drawn"),
        (Image.new("RGBA", (9, 9), "red"), "fewer than 24 pixels"),
        (Image.new("RGB", (100, 100), "white"), "nothing to see"),
    ],
)
def test_pictures_that_show_nothing_are_unusable(image, reason):
    with pytest.raises(Unusable, match=reason):
        small_copy(png(image))


def test_near_duplicates_are_found_in_shape_and_colour():
    one = Image.new("RGB", (160, 160), "white")
    one.paste((255, 0, 0), (20, 20, 80, 140))
    shifted = Image.new("RGB", (160, 160), "white")
    shifted.paste((255, 0, 0), (21, 20, 81, 140))
    blue = Image.new("RGB", (160, 160), "white")
    blue.paste((0, 0, 255), (20, 20, 80, 140))
    pairs = near_duplicates([signature(image) for image in (one, shifted, blue)], **NEAR)
    assert pairs == [(0, 1)]


def test_line_art_and_its_coloured_copy_share_their_outline_within_a_folder():
    line, filled, other = (Image.new("RGB", (160, 160), "white") for _ in range(3))
    ImageDraw.Draw(line).ellipse((20, 40, 120, 140), outline="black", width=4)
    ImageDraw.Draw(filled).ellipse((20, 40, 120, 140), outline="black", fill=(230, 200, 90), width=4)
    ImageDraw.Draw(other).rectangle((60, 10, 100, 150), outline="black", fill=(230, 200, 90), width=4)
    signatures = [signature(image) for image in (line, filled, other)]
    assert near_duplicates(signatures, **NEAR) == []
    assert same_outline(signatures, ["a", "a", "a"], NEAR_OUTLINE) == [(0, 1)]
    assert same_outline(signatures, ["a", "b", "a"], NEAR_OUTLINE) == []
