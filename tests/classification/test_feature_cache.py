"""The feature cache: equal to a bare loop, resumable after a kill, shared by processes, keyed, and checked."""

from __future__ import annotations

import dataclasses
import io
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_disk import journal
from PIL import Image

from fairpo_trl.classification.data.split import MultiLabelSplit
from fairpo_trl.classification.features import shards
from fairpo_trl.classification.features.backbones import load_backbone
from fairpo_trl.classification.features.cache import cache_logits, extract_features
from fairpo_trl.classification.model import MultiLabelClassifier, MultiLabelClassifierConfig


FORK = multiprocessing.get_context("fork")
BATCH = 4


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_SHARD_ROWS", 8)  # two batches of four


def save_tiny_dinov2(folder: Path, seed: int) -> str:
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=16, patch_size=8
    )
    Dinov2Model(config).save_pretrained(folder)
    BitImageProcessor(size={"shortest_edge": 18}, crop_size={"height": 16, "width": 16}).save_pretrained(folder)
    return f"hf:{folder}"


@pytest.fixture(scope="session")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_dinov2(tmp_path_factory.mktemp("backbone") / "tiny-random-dinov2", seed=0)


class Counting:
    """A transform that notes how many images it has seen, and may stop the process at one of them."""

    def __init__(self, transform, die_at: int | None = None, log: Path | None = None) -> None:
        self.transform, self.die_at, self.log = transform, die_at, log
        self.count = 0

    def __call__(self, image):
        self.count += 1
        if self.count == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{image.getpixel((0, 0))[0]}\n")
        return self.transform(image)


def backbone_of(spec: str, pooling: str = "cls_mean", **counting):
    backbone = load_backbone(spec, pooling=pooling)
    backbone.transform = Counting(backbone.transform, **counting)
    return backbone


def picture(row: int) -> Image.Image:
    pixels = np.random.default_rng(row).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    pixels[0, 0, 0] = row
    return Image.fromarray(pixels)


def make_split(rows: int = 30, images: list | None = None, **changes) -> MultiLabelSplit:
    labels = np.random.default_rng(0).integers(0, 2, (rows, 3)).astype(np.int8)
    fields = {
        "name": "train",
        "label_names": ("cat", "dog", "hat"),
        "labels": labels,
        "ids": tuple(f"{row:02d}.png" for row in range(rows)),
        "images": images if images is not None else [picture(row) for row in range(rows)],
        "features": None,
        "series": None,
        "notes": {},
    }
    return MultiLabelSplit(**{**fields, **changes})


def bare_loop(spec: str, pictures: list[Image.Image], pooling: str = "cls_mean") -> np.ndarray:
    backbone = load_backbone(spec, pooling=pooling)
    with torch.no_grad():
        return torch.cat(
            [
                backbone(torch.stack([backbone.transform(image) for image in pictures[start : start + BATCH]]))
                for start in range(0, len(pictures), BATCH)
            ]
        ).numpy()


@pytest.fixture(scope="session")
def expected(spec: str) -> np.ndarray:
    return bare_loop(spec, [picture(row) for row in range(30)])


def extract(split: MultiLabelSplit, backbone, folder: Path, **options) -> MultiLabelSplit:
    return extract_features(split, backbone, folder, **{"batch_size": BATCH, "progress": False, **options})


def only_folder(cache: Path) -> Path:
    (folder,) = cache.iterdir()
    return folder


def in_process(target) -> int:
    """Runs `target` in a process of its own; its exit code (negative: the signal that ended it)."""
    process = FORK.Process(target=target)
    process.start()
    while process.exitcode is None:  # `join` would also wait for loader workers that outlive it by seconds
        time.sleep(0.01)
    return process.exitcode


# ---- equal to a bare loop ----


@pytest.mark.parametrize("num_workers", [0, 2])
def test_features_equal_a_bare_loop_bit_for_bit(spec, expected, tmp_path, num_workers):
    split = extract(make_split(), backbone_of(spec), tmp_path, num_workers=num_workers)
    assert isinstance(split.features, np.memmap) and not split.features.flags.writeable
    np.testing.assert_array_equal(split.features, expected)
    assert split.ids == make_split().ids


def test_half_precision_rounds_the_same_values(spec, expected, tmp_path):
    split = extract(make_split(), backbone_of(spec), tmp_path, dtype="float16")
    assert split.features.dtype == np.float16
    np.testing.assert_array_equal(split.features, expected.astype(np.float16))


def test_paths_and_bytes_give_the_same_features(spec, expected, tmp_path):
    content, paths = [], []
    for row in range(30):
        stream = io.BytesIO()
        picture(row).save(stream, "png")
        content.append(stream.getvalue())
        paths.append(tmp_path / f"{row:02d}.png")
        paths[-1].write_bytes(content[-1])
    for images in (content, paths):
        split = extract(make_split(images=images), backbone_of(spec), tmp_path / "cache")
        np.testing.assert_array_equal(split.features, expected)
    assert len(list((tmp_path / "cache").iterdir())) == 1  # both are keyed by their content


def test_a_complete_cache_is_read_and_not_computed_again(spec, expected, tmp_path):
    extract(make_split(), backbone_of(spec), tmp_path)
    backbone = backbone_of(spec)
    again = extract(make_split(), backbone, tmp_path, batch_size=7, num_workers=0)  # for any batch size
    np.testing.assert_array_equal(again.features, expected)
    assert backbone.transform.count == 0
    assert sorted(path.name for path in only_folder(tmp_path).iterdir()) == ["locks", "manifest.json", "rows.npy"]


def test_the_progress_bar_counts_images(spec, tmp_path, capsys):
    extract(make_split(), backbone_of(spec), tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert "Features of train: 100%" in shown and "30/30" in shown and "images/s" in shown


# ---- stopped and continued ----


def test_after_a_kill_only_missing_shards_are_computed(spec, expected, tmp_path):
    # Dies at image 22: shards 0 and 1 (rows 0-15) are written, shard 2 has one batch in memory.
    assert in_process(lambda: extract(make_split(), backbone_of(spec, die_at=22), tmp_path)) == -signal.SIGKILL
    folder = only_folder(tmp_path)
    assert sorted(path.name for path in folder.glob("*.npy")) == ["shard-00000.npy", "shard-00001.npy"]
    # What a kill in the middle of writing leaves: a temporary file, or a shard without its record.
    (folder / "shard-00002.npy.1.tmp").write_bytes(b"half")
    np.save(folder / "shard-00002.npy", np.zeros((8, 32), np.float32))
    backbone = backbone_of(spec)
    split = extract(make_split(), backbone, tmp_path)
    assert backbone.transform.count == 30 - 16
    np.testing.assert_array_equal(split.features, expected)
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("suffix", ["bmp", "tif"])
def test_another_picture_of_the_same_size_in_the_same_file_is_another_picture(suffix, spec, tmp_path):
    def extracted(offset: int, cache: str) -> np.ndarray:
        for row in range(4):
            picture(row + offset).resize((20, 20)).save(tmp_path / f"{row}.{suffix}")
        split = make_split().select(range(4))
        split = dataclasses.replace(split, images=[tmp_path / f"{row}.{suffix}" for row in range(4)])
        return np.array(extract(split, backbone_of(spec), tmp_path / cache).features)

    first, second = extracted(0, "cache"), extracted(10, "cache")
    np.testing.assert_array_equal(second, extracted(10, "fresh"))
    assert not np.array_equal(first, second)


def test_shards_are_on_the_disk_before_they_count(spec, tmp_path, monkeypatch):
    events = journal(monkeypatch)
    extract(make_split(), backbone_of(spec), tmp_path)
    names = [name for kind, name in events if kind == "replace"]
    assert {"shard-00000.npy", "shard-00000.json", "rows.npy", "manifest.json"} <= set(names)
    for name in names:
        at = events.index(("replace", name))
        assert events[at - 1][0] == "fsync" and events[at - 1][1].startswith(f"{name}.")
        assert events[at + 1] == ("fsync", only_folder(tmp_path).name)


def test_a_kill_with_workers_leaves_no_lock_behind(spec, expected, tmp_path):
    def dying() -> None:
        backbone = load_backbone(spec, pooling="cls_mean")

        def die_after_a_shard(module, args, output):
            if list(tmp_path.glob("*/shard-*.json")):
                os.kill(os.getpid(), signal.SIGKILL)

        backbone.register_forward_hook(die_after_a_shard)
        extract(make_split(), backbone, tmp_path, num_workers=1)

    assert in_process(dying) == -signal.SIGKILL
    backbone = backbone_of(spec)
    split = extract(make_split(), backbone, tmp_path)
    assert backbone.transform.count == 30 - 8
    np.testing.assert_array_equal(split.features, expected)


def test_an_unfinished_cache_wants_its_own_batch_size(spec, tmp_path):
    in_process(lambda: extract(make_split(), backbone_of(spec, die_at=12), tmp_path))
    with pytest.raises(
        ValueError, match="unfinished and was begun with batch_size=4; with 5 the last bits may differ"
    ):
        extract(make_split(), backbone_of(spec), tmp_path, batch_size=5)


# ---- several processes ----


def test_processes_share_the_work_and_agree(spec, expected, tmp_path):
    def work(number: int) -> None:
        backbone = backbone_of(spec, log=tmp_path / f"log{number}")
        split = extract(make_split(), backbone, tmp_path / "cache")
        np.testing.assert_array_equal(split.features, expected)

    processes = [FORK.Process(target=work, args=(number,)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=600)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    seen = [int(line) for log in tmp_path.glob("log*") for line in log.read_text().split()]
    assert sorted(seen) == list(range(30))  # each image exactly once


def test_a_process_finishes_the_shard_of_one_that_died(spec, expected, tmp_path):
    def slow_death() -> None:
        backbone = load_backbone(spec, pooling="cls_mean")

        def hold(module, args, output):
            (tmp_path / "holding").touch()
            while not (tmp_path / "cache-done").exists():
                pass
            os.kill(os.getpid(), signal.SIGKILL)

        backbone.register_forward_hook(hold)
        extract(make_split(), backbone, tmp_path / "cache")

    holder = FORK.Process(target=slow_death)
    holder.start()
    while not (tmp_path / "holding").exists():
        assert holder.is_alive()

    backbone = backbone_of(spec)
    original = backbone.transform.transform

    def release_the_holder(image):
        # The 22 images of the shards nobody holds are done: now the first shard's owner dies.
        if backbone.transform.count == 22:
            (tmp_path / "cache-done").touch()
        return original(image)

    backbone.transform.transform = release_the_holder
    split = extract(make_split(), backbone, tmp_path / "cache")
    holder.join(timeout=600)
    assert holder.exitcode == -signal.SIGKILL
    assert backbone.transform.count == 30
    np.testing.assert_array_equal(split.features, expected)


# ---- keys ----


def test_other_weights_pooling_images_or_dtype_are_another_folder(spec, tmp_path):
    cache = tmp_path / "cache"
    extract(make_split(), backbone_of(spec), cache)
    extract(make_split(), backbone_of(save_tiny_dinov2(tmp_path / "other", seed=1)), cache)
    extract(make_split(), backbone_of(spec, pooling="cls"), cache)
    extract(make_split(), backbone_of(spec), cache, dtype="float16")
    extract(make_split(images=[picture(row + 1) for row in range(30)]), backbone_of(spec), cache)
    extract(make_split(ids=tuple(f"x{row}" for row in range(30))), backbone_of(spec), cache)
    assert len(list(cache.iterdir())) == 6
    # Labels do not decide features, nor does the place of the same weights.
    extract(make_split(labels=np.zeros((30, 3), np.int8)), backbone_of(spec), cache)
    extract(make_split(), backbone_of(save_tiny_dinov2(tmp_path / "same", seed=0)), cache)
    assert len(list(cache.iterdir())) == 6


def test_a_folder_that_holds_another_key_is_refused(spec, tmp_path):
    extract(make_split(), backbone_of(spec), tmp_path)
    path = only_folder(tmp_path) / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "key": "0" * 64}))
    with pytest.raises(ValueError, match="belongs to other inputs: its manifest holds key 0000"):
        extract(make_split(), backbone_of(spec), tmp_path)


# ---- damage ----


def flip_a_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_a_damaged_shard_is_named_and_computed_again_on_request(spec, expected, tmp_path):
    extract(make_split(), backbone_of(spec), tmp_path)
    flip_a_byte(only_folder(tmp_path) / "rows.npy", 128 + 9 * 32 * 4)  # behind the header, row 9
    named = r"shard 1 \(rows 8 to 15\) no longer has its recorded SHA-256\. Pass recompute_damaged=True"
    with pytest.raises(ValueError, match=named):
        extract(make_split(), backbone_of(spec), tmp_path)
    backbone = backbone_of(spec)
    split = extract(make_split(), backbone, tmp_path, recompute_damaged=True)
    assert backbone.transform.count == 8
    np.testing.assert_array_equal(split.features, expected)


def test_a_shard_damaged_before_all_were_there_is_found_too(spec, expected, tmp_path):
    in_process(lambda: extract(make_split(), backbone_of(spec, die_at=22), tmp_path))
    flip_a_byte(only_folder(tmp_path) / "shard-00000.npy", 200)
    with pytest.raises(ValueError, match=r"shard 0 \(rows 0 to 7\) no longer has"):
        extract(make_split(), backbone_of(spec), tmp_path)
    backbone = backbone_of(spec)
    split = extract(make_split(), backbone, tmp_path, recompute_damaged=True)
    assert backbone.transform.count == 8  # the others were computed by the call that raised
    np.testing.assert_array_equal(split.features, expected)


@pytest.mark.parametrize("text", ["", '{"version": 1, "ke', "[]", "{}", '{"version": 1, "key": 7, "batch_size": 4}'])
def test_a_damaged_manifest_is_named_with_the_folder_to_delete(text, spec, tmp_path):
    extract(make_split(), backbone_of(spec), tmp_path)
    folder = only_folder(tmp_path)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=rf"manifest\.json is damaged: .*Delete {folder}; its rows are then computed"):
        extract(make_split(), backbone_of(spec), tmp_path)


@pytest.mark.parametrize("text", ["", '{"sha', "[]", "{}"])
def test_a_damaged_record_is_a_damaged_shard(text, spec, expected, tmp_path):
    in_process(lambda: extract(make_split(), backbone_of(spec, die_at=22), tmp_path))
    (only_folder(tmp_path) / "shard-00000.json").write_text(text)
    with pytest.raises(ValueError, match=r"shard 0 \(rows 0 to 7\) no longer has"):
        extract(make_split(), backbone_of(spec), tmp_path)
    split = extract(make_split(), backbone_of(spec), tmp_path, recompute_damaged=True)
    np.testing.assert_array_equal(split.features, expected)


def test_a_cut_off_file_is_damage(spec, expected, tmp_path):
    extract(make_split(), backbone_of(spec), tmp_path)
    path = only_folder(tmp_path) / "rows.npy"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is damaged"):
        extract(make_split(), backbone_of(spec), tmp_path)
    split = extract(make_split(), backbone_of(spec), tmp_path, recompute_damaged=True)
    np.testing.assert_array_equal(split.features, expected)


# ---- images that cannot be read, values that cannot be kept ----


def with_bad_images() -> MultiLabelSplit:
    images = [picture(row) for row in range(30)]
    return make_split(images=[*images[:3], b"no image", *images[4:11], b"", *images[12:]])


def test_an_unreadable_image_is_named(spec, tmp_path):
    with pytest.raises(ValueError, match=r"Image '03\.png' \(row 3 of train\) cannot be read: .*bad_images='skip'"):
        extract(with_bad_images(), backbone_of(spec), tmp_path)


def test_unreadable_images_are_dropped_and_counted_on_request(spec, expected, tmp_path):
    split = extract(with_bad_images(), backbone_of(spec), tmp_path, bad_images="skip")
    good = [row for row in range(30) if row not in (3, 11)]
    assert split.notes["unreadable_images"] == 2
    assert split.ids == tuple(f"{row:02d}.png" for row in good)
    np.testing.assert_array_equal(split.labels, make_split().labels[good])
    # Rows that share a batch with a bad one were computed in a smaller batch.
    np.testing.assert_allclose(split.features, expected[good], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"Image '03\.png' \(row 3 of train\) and 1 more cannot be read"):
        extract(with_bad_images(), backbone_of(spec), tmp_path)
    again = extract(with_bad_images(), backbone_of(spec), tmp_path, bad_images="skip")
    np.testing.assert_array_equal(again.features, split.features)


def test_a_split_without_any_readable_image_is_refused(spec, tmp_path):
    with pytest.raises(ValueError, match="No image of train could be read"):
        extract(make_split(rows=5, images=[b"x"] * 5), backbone_of(spec), tmp_path, bad_images="skip")


def test_features_that_are_not_finite_are_refused(spec, tmp_path):
    backbone = backbone_of(spec)
    backbone.register_forward_hook(lambda module, args, output: output * 1e9)
    with pytest.raises(ValueError, match=r"'00\.png' \(row 0 of train\) do not fit float16: use dtype='float32'"):
        extract(make_split(), backbone, tmp_path, dtype="float16")
    backbone.register_forward_hook(lambda module, args, output: output * float("inf"))
    with pytest.raises(ValueError, match=r"'00\.png' \(row 0 of train\) are not finite"):
        extract(make_split(), backbone, tmp_path)


def test_options_out_of_range_are_refused(spec, tmp_path):
    with pytest.raises(ValueError, match="`dtype` must be 'float16' or 'float32', got 'bfloat16'"):
        extract(make_split(), backbone_of(spec), tmp_path, dtype="bfloat16")
    with pytest.raises(ValueError, match="`bad_images` must be 'raise' or 'skip', got 'black'"):
        extract(make_split(), backbone_of(spec), tmp_path, bad_images="black")
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        extract(make_split(), backbone_of(spec), tmp_path, batch_size=0)
    with pytest.raises(ValueError, match="'train' has no images"):
        without = dataclasses.replace(make_split(), images=None, features=np.zeros((30, 2), np.float32))
        extract(without, backbone_of(spec), tmp_path)


def test_the_mode_of_the_backbone_is_restored(spec, tmp_path):
    backbone = backbone_of(spec).train()
    extract(make_split(), backbone, tmp_path)
    assert backbone.training


# ---- logits of a reference ----


def reference(width: int, seed: int = 0) -> MultiLabelClassifier:
    torch.manual_seed(seed)
    config = MultiLabelClassifierConfig(
        label_names=["cat", "dog", "hat"], feature_size=width, head="shared_mlp", dropout=0.5, standardize=False
    )
    return MultiLabelClassifier(config)


def test_cached_logits_equal_the_forward_pass(spec, expected, tmp_path, monkeypatch):
    split = make_split().with_features(expected)
    model = reference(32).train()
    logits = cache_logits(model, split, tmp_path, batch_size=30, progress=False)
    with torch.no_grad():
        np.testing.assert_array_equal(logits, model.eval()(features=torch.from_numpy(expected)).logits.numpy())
    assert logits.dtype == np.float32 and not logits.flags.writeable
    monkeypatch.setattr(model, "forward", None)  # read, not computed
    np.testing.assert_array_equal(cache_logits(model, split, tmp_path, batch_size=30, progress=False), logits)


def test_logits_of_images_go_through_the_backbone(spec, expected, tmp_path):
    model = reference(32)
    model.attach_backbone(load_backbone(spec, pooling="cls_mean"))
    from_images = cache_logits(model, make_split(), tmp_path, batch_size=BATCH, progress=False)
    from_features = cache_logits(
        model, make_split().with_features(expected), tmp_path, batch_size=BATCH, progress=False
    )
    np.testing.assert_array_equal(from_images, from_features)


def test_another_reference_or_other_features_are_another_cache(expected, tmp_path):
    split = make_split().with_features(expected)
    cache_logits(reference(32), split, tmp_path, progress=False)
    cache_logits(reference(32, seed=1), split, tmp_path, progress=False)
    cache_logits(reference(32), split.with_features(expected + 1), tmp_path, progress=False)
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(ValueError, match="labels are not those of train"):
        cache_logits(reference(32), make_split(label_names=("dog", "cat", "hat")), tmp_path, progress=False)
