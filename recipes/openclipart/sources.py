"""Reads the two Debian packages: every picture with the keywords, title and author that people gave it."""

from __future__ import annotations

import gzip
import hashlib
import html
import io
import posixpath
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path


PACKAGES = {
    "png": (
        "openclipart-png_*0.18+dfsg-19_all.deb",
        "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
    ),
    "svg": (
        "openclipart-svg_*0.18+dfsg-19_all.deb",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    ),
}
"""Per kind: how the file is called, and its SHA-256. Debian's mirrors keep the version in bookworm and later."""

_ITEMS = re.compile(r"<rdf:li[^>]*>(.*?)</rdf:li>", re.S)
_TITLE = re.compile(r"<dc:title[^>]*>(.*?)</dc:title>", re.S)
_COPIED_TITLE = re.compile(r"(clipart by|sallite$)", re.I)
"""Two artists copied the RDF of one drawing into others: a flower is called "baloon1_04", a house "Sallite"."""

_CREATOR = re.compile(r"<dc:creator[^>]*>.*?<dc:title[^>]*>(.*?)</dc:title>.*?</dc:creator>", re.S)


@dataclass
class Picture:
    """One distinct PNG file with what people wrote about it, wherever in the library it appears."""

    path: str
    """Where it lies below `png/`, without `.png`: the first real file in the order of names."""

    png: bytes
    title: str
    author: str
    keywords: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    """Folders of all its places, for example "animals/birds"."""

    words: set[str] = field(default_factory=set)
    """Words of its titles and file names, lower case, without the author's name."""


def package_file(deb_dir: Path, kind: str) -> Path:
    """The one .deb file of a kind ("png" or "svg") in `deb_dir`, after a look at its hash."""
    pattern, expected = PACKAGES[kind]
    found = sorted(deb_dir.glob(pattern))
    if len(found) != 1:
        raise FileNotFoundError(
            f"{deb_dir} has {len(found)} files {pattern}. Run there: apt-get download openclipart-png openclipart-svg "
            "(Debian or Ubuntu), or take both files of version 1:0.18+dfsg-19 from a Debian mirror."
        )
    with found[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise ValueError(f"{found[0]}: SHA-256 is {digest}, expected {expected}. Download version 1:0.18+dfsg-19.")
    return found[0]


def read_package(deb: Path, root: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files of a .deb below `root`: their contents, and the symbolic links with what they point to."""
    data = deb.read_bytes()
    if data[:8] != b"!<arch>\n":
        raise ValueError(f"{deb} is no .deb file.")
    position, archive = 8, None
    while position < len(data):
        name, size = data[position : position + 16].decode().strip(), int(data[position + 48 : position + 58])
        if name.startswith("data.tar"):
            archive = data[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    if archive is None:
        raise ValueError(f"{deb} has no member data.tar.")
    files, links = {}, {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            name = posixpath.normpath(member.name)
            if not name.startswith(root):
                continue
            name = name[len(root) :]
            if member.isfile():
                files[name] = tar.extractfile(member).read()
            elif member.issym():
                links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
    return files, links


def _text_of(pattern: re.Pattern, text: str) -> str:
    match = pattern.search(text)
    return " ".join(html.unescape(html.unescape(match[1])).split()) if match else ""


def words_of(text: str) -> list[str]:
    """Lower-case words of letters; names run together as in `NoSmoking` are taken apart."""
    return re.findall(r"[^\W\d_]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", text).lower())


def read_pictures(deb_dir: Path) -> tuple[list[Picture], dict[str, int]]:
    """
    All distinct PNG files, merged over symbolic links and equal contents.

    Returns:
        The pictures in the order of their paths, and counts of what was merged.
    """
    pngs, png_links = read_package(package_file(deb_dir, "png"), "usr/share/openclipart/png/")
    svgs, svg_links = read_package(package_file(deb_dir, "svg"), "usr/share/openclipart/svg/")
    by_content: dict[str, Picture] = {}
    paths = sorted(name for name in {**pngs, **png_links} if name.endswith(".png"))
    # Real files first: the path of a picture is that of a file, not of a link.
    for name in sorted(paths, key=lambda name: (name in png_links, name)):
        png = pngs[_follow(name, png_links)]
        svg = svgs[_follow(name.removesuffix(".png") + ".svg", svg_links)]
        text = (gzip.decompress(svg) if svg[:2] == b"\x1f\x8b" else svg).decode("utf-8", "replace")
        title = _text_of(_TITLE, text)
        author = _text_of(_CREATOR, text)
        stem = posixpath.basename(name).removesuffix(".png")
        picture = by_content.setdefault(
            hashlib.sha256(png).hexdigest(), Picture(name.removesuffix(".png"), png, title, author)
        )
        picture.folders.add(posixpath.dirname(name))
        copied = _COPIED_TITLE.match(title) is not None
        if title.lower() == "sallite":
            text = ""
        for subject in re.findall(r"<dc:subject>(.*?)</dc:subject>", text, re.S):
            items = (" ".join(html.unescape(html.unescape(item)).lower().split()) for item in _ITEMS.findall(subject))
            picture.keywords |= {item for item in items if item}
        picture.words |= set(words_of(stem) + words_of("" if copied else title)) - set(words_of(author))
    pictures = sorted(by_content.values(), key=lambda picture: picture.path)
    counts = {
        "paths": len(paths),
        "symbolic links merged": len([name for name in paths if name in png_links]),
        "equal files merged": len([name for name in paths if name not in png_links]) - len(pictures),
    }
    return pictures, counts


def _follow(name: str, links: dict[str, str]) -> str:
    for _ in range(10):
        if name not in links:
            return name
        name = links[name]
    raise ValueError(f"The symbolic links from {name!r} go in a circle.")
