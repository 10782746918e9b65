"""Pictures from anywhere: only pixels are decoded, in bounded memory."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairpo_trl.classification.data.images import FORMATS, UnreadableImageError, open_image


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
SIDE = 4000


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.eps"])
def test_postscript_under_any_name_starts_no_program(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "STARTED"
    program = tmp_path / "bin" / "gs"  # stands for an installed Ghostscript
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {started}\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / name).write_bytes(POSTSCRIPT)
    for source in (tmp_path / name, POSTSCRIPT):
        with pytest.raises(UnreadableImageError, match="not a readable image: it holds none of BMP, GIF, JPEG"):
            open_image(source)
    assert not started.exists()


@pytest.mark.parametrize("kind", ["PPM", "PCX", "SGI", "TGA", "ICO", "PDF", "IM"])
def test_formats_that_no_data_set_needs_are_not_decoded(kind: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, kind)
    with pytest.raises(UnreadableImageError, match="it holds none of"):
        open_image(stream.getvalue(), name="row 3")


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_of_data_sets_are(kind: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(stream, kind)
    assert open_image(stream.getvalue()).getpixel((8, 8))[0] > 250


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_lies_on_white_exactly(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairpo_trl.classification.data.images._BAND_PIXELS", 50)  # many bands, the last one short
    values = np.random.default_rng(0).integers(0, 256, (23, 17, 4), dtype=np.uint8)
    image = Image.fromarray(values).convert(mode) if mode != "P" else Image.fromarray(values).quantize(16)
    rgba = image.convert("RGBA")
    whole = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    np.testing.assert_array_equal(np.asarray(open_image(image)), np.asarray(whole))


def palette() -> Image.Image:
    image = Image.new("P", (SIDE, SIDE))
    image.info["transparency"] = 0
    return image


@pytest.mark.parametrize(
    ("make", "kind", "options"),
    [
        (palette, "PNG", {"transparency": 0}),
        (lambda: Image.new("LA", (SIDE, SIDE)), "PNG", {}),
        (lambda: Image.new("1", (SIDE, SIDE)), "TIFF", {"compression": "group4"}),
        (lambda: Image.new("RGB", (SIDE, SIDE)), "JPEG", {}),
    ],
    ids=["palette", "grey with alpha", "one bit", "jpeg"],
)
def test_a_small_file_takes_no_more_memory_than_its_pixels_allow(
    make: Callable[[], Image.Image], kind: str, options: dict
) -> None:
    stream = io.BytesIO()
    make().save(stream, kind, **options)
    content = stream.getvalue()
    assert len(content) < 0.02 * SIDE**2

    def measure(pipe) -> None:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        open_image(content)
        pipe.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    # The peak of a child begins at what its parent has now, so only what it takes above that is seen.
    process = context.Process(target=measure, args=(theirs,))
    process.start()
    process.join(600)
    assert process.exitcode == 0 and ours.recv() < 10 * SIDE**2
