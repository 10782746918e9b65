"""Small square copies (RGBA on white, cropped to what is drawn, 160 pixels, WebP), and which are near-duplicates."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFilter


SIDE = 160
MARGIN = 0.04
MIN_DRAWN_SIDE = 24
"""What is drawn on fewer pixels than this cannot be recognised by a person either."""

NEAR = {"shape": 0.92, "colour": 0.10}
"""Near-duplicates: one series. Chosen by looking at 200 pairs: below, unlike drawings of like outline begin."""

NEAR_OUTLINE = 0.75
"""Near-duplicates within one folder: the drawing and its line art, phases of the moon, signs with the same frame."""

WEBP = {"format": "WEBP", "quality": 78, "method": 6}


class Unusable(Exception):
    """A picture that takes no part; the message is the reason counted in the report."""


def small_copy(png: bytes) -> Image.Image:
    """
    A white 160 x 160 RGB picture with the drawing in its middle.

    The transparent border is cropped away: some drawings fill a twentieth of their page. Opaque pictures stay whole,
    so that the flag of Japan does not become a circle.

    Raises:
        Unusable: the picture is too large, too small or empty.
    """
    # Pillow refuses more than 179 megapixels: three pictures, of up to 623. From 89 on it warns: twelve of food.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            opened = Image.open(io.BytesIO(png))
        except Image.DecompressionBombError:
            raise Unusable("more than 179 megapixels") from None
        with opened:
            image = opened.convert("RGBA")
    if min(image.size) > 2048:
        image = image.reduce(min(image.size) // 1024)
    box = image.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if box is None:
        raise Unusable("nothing drawn")
    image = image.crop(box)
    if max(image.size) < MIN_DRAWN_SIDE:
        raise Unusable(f"drawn on fewer than {MIN_DRAWN_SIDE} pixels")
    inner = SIDE - 2 * round(SIDE * MARGIN)
    scale = inner / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    image = image.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    canvas.paste(image, ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2), image)
    drawn = (np.asarray(canvas).min(axis=2) < 235).mean()
    if drawn < 0.002:
        raise Unusable("nothing to see on white")
    return canvas


def webp_bytes(image: Image.Image) -> bytes:
    """The picture as WebP, the same bytes each time with the same version of Pillow's encoder."""
    buffer = io.BytesIO()
    image.save(buffer, **WEBP)
    return buffer.getvalue()


class Signature(NamedTuple):
    """What near-duplicates share. Vectors of mean 0 and length 1, but for the colour."""

    shape: np.ndarray
    """Grey, 32 x 32."""

    colour: np.ndarray
    """RGB, 16 x 16, in [0, 1]."""

    outline: np.ndarray
    """Blurred edges, 40 x 40: equal for a drawing and its copy in other colours."""


def _unit(image: Image.Image, side: int) -> np.ndarray:
    values = np.asarray(image.resize((side, side), Image.Resampling.BOX), np.float32).ravel()
    values = values - values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-6)


def signature(image: Image.Image) -> Signature:
    """The signature of a small copy."""
    grey = image.convert("L")
    # The filter leaves the border of one pixel as it is.
    edges = grey.filter(ImageFilter.FIND_EDGES).crop((1, 1, SIDE - 1, SIDE - 1)).filter(ImageFilter.GaussianBlur(1.5))
    colour = np.asarray(image.resize((16, 16), Image.Resampling.BOX), np.float32).ravel() / 255
    return Signature(_unit(grey, 32), colour, _unit(edges, 40))


def near_duplicates(signatures: Sequence[Signature], shape: float, colour: float) -> list[tuple[int, int]]:
    """
    Pairs of pictures that nearly agree in shape and colour.

    Args:
        signatures (`Sequence[Signature]`):
            One per picture.
        shape (`float`):
            The least correlation of the two grey pictures.
        colour (`float`):
            The most root-mean-square difference of the two colour pictures.
    """
    greys = np.stack([one.shape for one in signatures])
    colours = np.stack([one.colour for one in signatures])
    pairs = []
    for start in range(0, len(greys), 512):
        rows, columns = np.nonzero(greys[start : start + 512] @ greys.T >= shape)
        rows, columns = rows[rows + start < columns] + start, columns[rows + start < columns]
        near = np.sqrt(np.square(colours[rows] - colours[columns]).mean(axis=1)) <= colour
        pairs += zip(rows[near].tolist(), columns[near].tolist(), strict=True)
    return pairs


def same_outline(signatures: Sequence[Signature], folders: Sequence[str], outline: float) -> list[tuple[int, int]]:
    """Pairs of pictures of one folder whose edges have at least the correlation `outline`."""
    members: dict[str, list[int]] = {}
    for number, folder in enumerate(folders):
        members.setdefault(folder, []).append(number)
    pairs = []
    for numbers in members.values():
        edges = np.stack([signatures[number].outline for number in numbers])
        pairs += [
            (numbers[a], numbers[b]) for a, b in zip(*np.nonzero(edges @ edges.T >= outline), strict=True) if a < b
        ]
    return pairs
