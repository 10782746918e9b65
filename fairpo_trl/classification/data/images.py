"""Images from files, bytes or PIL as RGB, and file names that stay inside the data folder."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fairpo_trl.classification.data.split import ImageSource, StoredImages
from fairpo_trl.core.messages import shortened


MAX_PIXELS = 89_478_485
"""Pixels of the largest image opened by default (Pillow's own warning limit, a quarter of a GiB as RGB)."""

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""What a file may hold, whatever its name: pixels alone. For PostScript, Pillow would start another program."""

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""Suffixes, in any case, that [`find_images`] takes for images."""

_ORIENTATION = 0x0112  # the tag of EXIF
_BAND_PIXELS = 1_000_000

# What Pillow's decoders raise on broken files.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error, zlib.error)


class UnreadableImageError(ValueError):
    """An image that is missing, truncated, corrupt, too large or of a kind that has no RGB form; names the file."""


def open_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, name: str | None = None) -> Image.Image:
    """
    Opens an image as RGB: upright (by its EXIF orientation), transparency on white, the first frame of several.

    Args:
        source (`pathlib.Path`, `bytes` or `PIL.Image.Image`):
            The file, its content, or an image that is open already (left unchanged).
        max_pixels (`int`, *optional*, defaults to `89478485`):
            Largest width x height, looked at before the pixels are decoded.
        name (`str`, *optional*):
            What errors call the image, for example its id; `None` is the path.

    Returns:
        `PIL.Image.Image`: mode RGB, fully decoded. Whatever the file, at most ten bytes a pixel are needed for it.

    Raises:
        UnreadableImageError: If there is no such image; the caller decides whether to skip it. Never a black image.
    """
    if name is None:
        name = str(source) if isinstance(source, str | os.PathLike) else "an image given as " + type(source).__name__
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, max_pixels, name)
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            return _to_rgb(image, max_pixels, name)
    except UnreadableImageError:
        raise
    except FileNotFoundError as error:
        raise UnreadableImageError(f"{name}: there is no such file.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(
            f"{name}: too large, {error} Make it smaller, or raise `max_pixels` and PIL.Image.MAX_IMAGE_PIXELS."
        ) from error
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{name}: not a readable image: it holds none of {', '.join(FORMATS)}. Mend or remove it."
        ) from error
    except _DECODING_ERRORS as error:
        raise UnreadableImageError(f"{name}: not a readable image ({error}). Mend or remove it.") from error


def _to_rgb(image: Image.Image, max_pixels: int, name: str) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"{name}: {width} x {height} = {width * height:,} pixels, more than max_pixels={max_pixels:,}. Make it "
            "smaller, or raise `max_pixels`."
        )
    image.load()
    if image.mode in ("I", "F"):
        raise UnreadableImageError(
            f"{name}: pixels of mode {image.mode!r} have no fixed range; save it with 8 bits a channel."
        )
    if image.mode.startswith("I;16"):  # Pillow's own conversion clips at 255: nearly all of it white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.getexif().get(_ORIENTATION, 1) != 1:  # else a copy for nothing
        image = ImageOps.exif_transpose(image)
    return _on_white(image) if image.has_transparency_data else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    """A transparent image on white, band by band: four bytes a pixel besides the image, instead of sixteen."""
    flat = Image.new("RGB", image.size, "white")
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        band = image.crop(box).convert("RGBA")
        flat.paste(Image.alpha_composite(Image.new("RGBA", band.size, "white"), band).convert("RGB"), box)
    return flat


def find_images(folder: str | Path) -> list[Path]:
    """
    All images below a folder, sorted by their path; hidden files and folders are left out.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no image.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {str(root)!r} to read images from.")
    found = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
        and path.is_file()
    ]
    if not found:
        raise ValueError(f"{str(root)!r} holds no image; looked for {', '.join(IMAGE_SUFFIXES)}.")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def resolve_inside(root: str | Path, name: str) -> Path:
    """
    `root / name`, which need not exist, if it stays inside `root`, links followed. The root itself may be a link.

    Raises:
        ValueError: If `name` is empty, absolute, goes up with `..`, or is a link that leads out.
    """
    _check_relative(name)
    root = Path(root)
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise ValueError(
            f"The path {shortened(name)} leads out of the data folder through a link: put the file itself there."
        )
    return path


def existing_files(root: str | Path, names: Sequence[str]) -> list[bool]:
    """
    Which of many names (posix paths) are files inside `root`: as [`resolve_inside`], but each folder is read once.

    Raises:
        ValueError: As [`resolve_inside`].
    """
    root = Path(root)
    folders: dict[str, dict[str, bool]] = {}  # folder -> file -> whether it is a link
    found = []
    for name in names:
        _check_relative(name)
        parent, _, leaf = name.rpartition("/")
        if parent not in folders:
            folder = resolve_inside(root, parent) if parent else root
            with os.scandir(folder) if folder.is_dir() else nullcontext(()) as entries:
                folders[parent] = {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}
        link = folders[parent].get(leaf)
        if link:
            resolve_inside(root, name)
        found.append(link is not None)
    return found


class ImageFiles(StoredImages):
    """The files `names` (posix paths) in `root`, as paths when asked for: a list of 270,000 paths takes 100 MB."""

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    def get(self, row: int) -> Path:
        """The path of a file."""
        return self.root / self.names[row]


def _check_relative(name: str) -> None:
    """The checks that need no disk, for both kinds of separator."""
    problem = None
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        problem = "is not a file name"
    elif name[0] in "/\\" or (":" in name and PureWindowsPath(name).drive):
        problem = "is absolute"
    elif ".." in name and ".." in (*PurePosixPath(name).parts, *PureWindowsPath(name).parts):
        problem = "goes up with '..'"
    if problem:
        raise ValueError(f"The path {shortened(name)} {problem}: write it relative to the data folder and inside it.")
