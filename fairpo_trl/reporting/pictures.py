"""The images of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image


LARGEST = 400
"""Pixels a side."""


def sample_image(image: str | None, name: str, folder: Path) -> Any:
    """
    The image of a sample in RGB on white, at most 400 pixels a side; `None` without a file.

    Args:
        image (`str`, *optional*):
            Its file, relative to the folder.
        name (`str`):
            Of the sample, for messages.
        folder (`Path`):
            The report's.

    Raises:
        FileNotFoundError: If the file is not in the folder.
        ValueError: If it is no image.
    """
    if image is None:
        return None
    file = folder / image
    if not file.is_file():
        raise FileNotFoundError(f"The image of sample {name!r}, {image!r}, is not in the folder.")
    try:
        with Image.open(file) as opened:
            found = opened.convert("RGBA")
    except OSError as error:
        raise ValueError(f"{image!r} of sample {name!r} is no image: {error}") from error
    found.thumbnail((LARGEST, LARGEST))
    white = Image.new("RGBA", found.size, "white")
    white.alpha_composite(found)
    return white.convert("RGB")
