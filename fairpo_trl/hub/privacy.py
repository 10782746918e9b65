"""
What may leave the machine: the one place that decides it, for cards, results, reports, commands and pushes.

Text that was made here is *cut* ([`public_text`], [`public`], [`public_command`], [`public_config`]): local paths keep
their last part, secrets and addresses become `***`. Text that somebody wrote is only *searched* ([`private_places`]),
and its author is told. Files leave only if they lie in the folder themselves ([`plain_file`]).
"""

from __future__ import annotations

import functools
import getpass
import ipaddress
import json
import os
import re
import shlex
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from fairpo_trl.hub.secrets import HIDDEN, SECRET_NAME, secret_in, without_secrets


# ---- addresses ----

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{2,}\b|\b[\w.-]+@[\w.-]+(?=:[/\\~.\w])")
_PRIVATE_IP = re.compile(r"(?<![\d.])(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2,3}(?![\d.]*\d)")
_PRIVATE_SUFFIX = (".local", ".internal", ".lan", ".corp", ".intranet", ".home", ".private", ".cluster")
_NAMES_NOBODY = set("root user users home ubuntu admin runner docker test work data guest".split())

# ---- paths ----

_REMOTE = r"(?:https?|s3|gs|gcs|hf|ftps?|sftp|ssh|git|git\+\w+|abfss?|az|hdfs|wss?|doi)://(?!/)"
_PART = r"(?:\\ |[^\s\"'`<>|,;:=(){}\[\]*?/\\])+"
_SEP = r"[/\\]+"
# How a path begins that can be no name and no address: a drive, a share, a home folder, a folder above.
_ROOTED = (
    r"(?:(?<![A-Za-z0-9])[A-Za-z]:[/\\]+|(?<![\w\\:])\\\\(?=\w)"
    r"|(?<![\w/\\.~])(?:~[\w.-]*|\$\{?HOME\}?|%(?:USERPROFILE|HOMEPATH|APPDATA)%|\.\.)[/\\]+)"
)
_ABSOLUTE = r"(?<![\w.~)\]}>/\\%-])[/\\]+"
_PATH = re.compile(
    rf"(?P<remote>{_REMOTE}[^\s\"'`<>]*)"
    rf"|(?P<file>\bfile:[/\\]+[^\s\"'`<>]*)"
    rf"|(?P<quote>[\"'`])(?P<quoted>(?:{_ROOTED}|[/\\]+{_PART}{_SEP})[^\"'`\n]*)(?P=quote)"
    # A folder of Windows may have spaces in its name, where a further part follows.
    rf"|(?P<windows>(?<![A-Za-z0-9])[A-Za-z]:\\+(?:[^\\/:*?\"<>|\r\n']+\\+)*(?:{_PART})?)"
    rf"|(?P<bare>{_ROOTED}(?:{_PART}{_SEP})*(?:{_PART})?"
    rf"|{_ABSOLUTE}{_PART}(?:{_SEP}{_PART})+[/\\]*|(?<=[:=])[/\\]+{_PART}(?:{_SEP}{_PART})*[/\\]*)",
)
_BEGINS = re.compile(rf"{_ROOTED}|[/\\]+[^\s/\\]|\.[/\\]")
_ENCODED = re.compile(r"(?:file:|[\w.-]*)(?:%2[fF]|%5[cC])[^\s\"'`<>]*")
# Somebody's home folder, whoever's; `[/\\]+` also reads the doubled and escaped slashes of JSON.
_HOME = re.compile(
    r"(?<![\w.~)\]}>/\\-])(?:[A-Za-z]:|[/\\]*(?:[\w.-]+[/\\]+){0,3}?)(?<![\w.-])[/\\]*"
    r"(?:(?<=[/\\])(?:home|Users|Documents and Settings)[/\\]+[\w.-]+|(?<=[/\\])root(?=[/\\]))"
)
# A path behind one of our own prefixes, or on another machine's share.
_OURS = re.compile(
    r"\b(?:hf|reward|classifier|llm|python|local-dir|file):[/\\~]+\w[^\s\"'`<>]*|(?<![\w:\\])\\\\\w+\\[\w.$-]+\\"
)
_EVERYWHERE = ("/usr/", "/bin/", "/dev/", "/etc/", "/proc/", "/sys/", "/lib", "/opt/", "/sbin/")
_NAME_OF_HOME = re.compile(r"(?:[/\\](?:home|Users|Documents and Settings)[/\\]+[^/\\]+|^[/\\]+root|^~[^/\\]*)[/\\]*$")
_SNAPSHOT = re.compile(r"(?:models|datasets)--(?P<owner>[^/\\]+?)--(?P<name>[^/\\]+)[/\\]snapshots")


def one_line(text: str) -> str:
    """One line, without control and direction characters, and so without escape sequences."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def is_hub_id(name: str) -> bool:
    """Whether a name can be a Hub id, rather than a path on this machine."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    looks_like_file = name.count("/") != 1 and PurePosixPath(name).suffix in (".jsonl", ".json", ".csv", ".parquet")
    return bool(name) and not looks_like_file and not os.path.exists(name)


def snapshot_id(path: str) -> str | None:
    """The Hub id of a path in the Hub's cache."""
    found = _SNAPSHOT.search(path)
    return f"{found['owner']}/{found['name']}" if found else None


def last_part(path: str) -> str:
    """The last component of a path, whatever system it is from; a home folder, whoever's, is `~`."""
    if (own := os.path.expanduser("~")) and os.path.expanduser(path).rstrip("/\\") == own.rstrip("/\\"):
        return "~"
    if _NAME_OF_HOME.search(path) and re.search(r"[/\\]|^~", path):
        return "~"
    parts = [part for part in re.split(r"[/\\]+", path.replace("\\ ", " ")) if part]
    if not parts or parts[-1] in ("..", ".") or (len(parts) == 1 and re.fullmatch(r"[A-Za-z]:", parts[0])):
        return ""
    return "~" if len(parts) > 1 and parts[-1] == _own_name() else parts[-1]


def public_text(text: str) -> str:
    r"""
    A text without local paths, secrets, e-mail addresses and names of machines that only this network knows.

    Paths of every spelling keep their last part: `/a/b`, `~/b`, `..\b`, `C:\a\b`, `file:///a/b`, `hf:/a/b`, quoted or
    percent-encoded ones, also inside a longer text. Addresses on the web, Hub ids, relative paths and names such as
    `/m/01g317` stay.
    """
    if "\n" in text:
        text = without_secrets(text)  # a private key has many lines
        return "\n".join(public_text(line) for line in text.split("\n"))
    text = _ENCODED.sub(lambda found: unquote(found[0]), without_secrets(text))
    text = _EMAIL.sub(HIDDEN, text)
    text = _PATH.sub(_cut, text)
    text = _PRIVATE_IP.sub(HIDDEN, text)
    for name in _own_words():
        # Not as the owner of a Hub id, which is meant to be known.
        text = re.sub(rf"(?<![\w/]){re.escape(name)}(?![\w/])", HIDDEN, text)
    return text


def _cut(found: re.Match[str]) -> str:
    if found["remote"]:
        return _public_address(found["remote"])
    if found["file"]:
        return last_part(unquote(found["file"][len("file:") :])) or "."
    path = found["quoted"] or found[0]
    if found["windows"] is None and _is_name(path):
        return found[0]
    short = snapshot_id(path) or last_part(path) or "."
    return f"{found['quote']}{short}{found['quote']}" if found["quoted"] else short


def _is_name(path: str) -> bool:
    """Whether what looks like a path is a name: `/m/01g317` of Open Images, `/r/name`."""
    return re.fullmatch(r"/[a-z]/[\w.-]+", path) is not None and not os.path.exists(path)


def _public_address(address: str) -> str:
    """An address on the web; the name of a machine that only this network knows is hidden, a path in its query cut."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:
        return address
    # A bucket or the owner of a Hub id stands where others have a host.
    if host and re.match(r"(?:https?|wss?|ftps?|sftp|ssh|git)\b", address) and is_private_host(host):
        address = re.sub(re.escape(host), HIDDEN, address, count=1, flags=re.IGNORECASE)
    place, mark, query = address.partition("?")
    return place + mark + _PATH.sub(_cut, query) if mark else address


def is_private_host(host: str) -> bool:
    """Whether only this network knows a host: a name without a dot, a private address; not this machine itself."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        own = host == socket.gethostname().lower()
        return host != "localhost" and (own or "." not in host or host.endswith(_PRIVATE_SUFFIX))
    return found.is_private and not found.is_loopback


@functools.cache
def _own_name() -> str:
    """The name of whoever runs this, unless it names nobody."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError):  # a container without an entry for its user
        return ""
    return "" if name.lower() in _NAMES_NOBODY or len(name) < 4 else name


@functools.cache
def _own_words() -> tuple[str, ...]:
    """Names of this user and of this machine, where they are no words that a text may hold for another reason."""
    host = socket.gethostname()
    return tuple(filter(None, (_own_name(), host if len(host) > 3 and re.search(r"[\d.-]", host) else "")))


def public_value(value: str) -> str:
    """One argument of a command: as [`public_text`], and what is there on this machine is a path, however written."""
    if value[:1] in "{[" and value:
        try:
            return json.dumps(_public_json(json.loads(value)), ensure_ascii=False)
        except (json.JSONDecodeError, RecursionError):
            pass
    return _whole(value, here=True)


def _whole(value: str, here: bool) -> str:
    """A text that may be one path with spaces in it; `here`: relative ones are paths too, if they are there."""
    value = without_secrets(value)
    if not value or "\n" in value or re.match(_REMOTE, value) or value.startswith("file:"):
        return public_text(value)
    prefix = re.match(r"[\w.+-]{2,}[:=](?!/{2}\w)", value)  # `attribute=`, `hf:`, `local-dir:`
    if prefix and (prefix[0][-1] == "=" or not os.path.exists(value)):
        return public_text(prefix[0]) + _whole(value[prefix.end() :], here)
    path, mark, option = value.partition("#")
    if here and not _BEGINS.match(value):
        at = path if os.path.exists(path) else path.rpartition(":")[0]
        if at and os.path.exists(at):  # FILE.py:FUNCTION and MODEL#LABEL too
            return public_text((last_part(path) or ".") + mark + option)
    one = _BEGINS.match(value) and not re.search(rf"[\s,;:=\"'](?:{_ROOTED}|/+\w|\w+:/)", value[1:])
    if one and re.search(r"[/\\]", value) and (here or not _is_name(value)) and len(value) > 1:
        return public_text(snapshot_id(value) or last_part(value) or ".") if "@" not in value else public_text(value)
    if here and re.fullmatch(r"~[\w.-]+", value) and os.path.expanduser(value) != value:
        return "~"
    return public_text(value)


def _public_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: HIDDEN if SECRET_NAME.search(k) else _public_json(inner) for k, inner in value.items()}
    if isinstance(value, list):
        return [_public_json(inner) for inner in value]
    return public_value(value) if isinstance(value, str) else value


def public(value: Any) -> Any:
    """
    A document with every text in it made public, keys too, so that names stay the same in every place.

    Raises:
        ValueError: If two keys become one.
    """
    if isinstance(value, str):
        return _whole(value, here=False)
    if isinstance(value, Mapping):
        keys = [_whole(key, here=False) if isinstance(key, str) else key for key in value]
        if len(set(keys)) < len(keys):
            twice = sorted({str(key) for key in keys if keys.count(key) > 1})
            raise ValueError(f"Names that are paths become the same without their folders: {twice}. Rename them.")
        return dict(zip(keys, map(public, value.values()), strict=True))
    if isinstance(value, list | tuple):
        return [public(child) for child in value]
    return value


def public_command(arguments: Sequence[str]) -> str:
    """`sys.argv` as a line for the shell, without local paths and secrets; empty in a notebook or for `python -c`."""
    program = arguments[0] if arguments else ""
    if program in ("", "-c", "-m") or "ipykernel" in program:
        return ""
    shown, secret_follows = [last_part(program)], False
    if shown == ["__main__.py"]:
        shown = ["-m", Path(program).parent.name]
    for argument in arguments[1:]:
        option, equals, value = argument.partition("=")
        is_option = argument.startswith("-")
        if secret_follows and not is_option:
            shown.append(HIDDEN)
            secret_follows = False
            continue
        secret_follows = is_option and not equals and bool(SECRET_NAME.search(option))
        if is_option and equals:
            shown.append(f"{option}={HIDDEN if SECRET_NAME.search(option) else public_value(value)}")
        else:
            shown.append(argument if is_option else public_value(argument))
    line = shlex.join(one_line(argument) for argument in shown)
    return line if shown[:1] == ["fairpo"] else f"python {line}"  # `fairpo` is a program of its own


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """
    A configuration (of an adapter, a model or a tokenizer) with the last part of each path where the path was; equal
    to `config` if nothing in it is local. A Hub id stays, also where the config names its snapshot in the cache.
    """
    public_one = {key: _public_setting(value) for key, value in config.items()}
    for key in ("base_model_name_or_path", "_name_or_path", "name_or_path"):
        if isinstance(value := config.get(key), str) and not is_hub_id(value):
            public_one[key] = snapshot_id(value) or last_part(value) or value
    backbone = config.get("backbone")
    if isinstance(backbone, dict) and "spec" in backbone:
        library, _, source = backbone["spec"].partition(":")
        if not is_hub_id(source) and last_part(source) != source:
            public_one["backbone"] = {**backbone, "spec": f"{library}:{last_part(source)}", "name": last_part(source)}
    return public_one


def _public_setting(value: Any) -> Any:
    """A value of a configuration. Texts in it are names or templates: only what is a path of this machine is cut."""
    if isinstance(value, dict):
        return {key: _public_setting(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_public_setting(inner) for inner in value]
    if isinstance(value, str) and len(value) < 4096 and "\n" not in value:
        bare = value.partition(":")[2] if re.match(r"[\w-]{2,}:[/~\\]", value) else value
        bare = unquote(bare).replace("///", "/") if value.startswith("file:") else bare
        # That it exists tells it from a name with slashes, such as the labels `/m/01g317` of Open Images.
        there = _BEGINS.match(bare) and re.search(r"[/\\].*[/\\]|^~[/\\]", bare)
        if there and (os.path.exists(os.path.expanduser(bare)) or _HOME.search(bare)):
            return _whole(value, here=True)
    return value


def private_places(text: str, folders: Sequence[str] = (), token: str | None = None) -> list[tuple[int, str]]:
    """
    Where a text that is to be published names this machine, somebody's home folder or a secret.

    Args:
        text (`str`):
            What would be published.
        folders (`Sequence[str]`, *optional*):
            Paths that must not be in it.
        token (`str`, *optional*):
            The token in use; what looks like one of the Hub's is found without it.

    Returns:
        `list[tuple[int, str]]`: line (from 1) and what is there; a secret is not shown.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        # Addresses on the web may end like a path; what stands in their query is looked at.
        local = re.sub(rf"{_REMOTE}[^\s\"'`<>?]*", "", line)
        seen = f"{local} {unquote(local)}" if "%" in local else local
        if secret := secret_in(line, token):
            found.append((number, secret))
        elif match := _HOME.search(seen) or _OURS.search(seen):
            found.append((number, f"the path {match[0]!r}"))
        elif there := _path_that_exists(seen):
            found.append((number, f"the path {there!r}"))
        else:
            found += [(number, f"the path {folder!r}") for folder in folders if folder in seen][:1]
    return found


def _path_that_exists(line: str) -> str | None:
    """An absolute path in a text that is there on this machine, and is none that every machine has."""
    for match in _PATH.finditer(line):
        path = match["quoted"] or match["bare"] or match["windows"] or ""
        if os.path.isabs(path) and not path.startswith(_EVERYWHERE) and os.path.exists(path):
            return path
    return None


def plain_file(folder: str | os.PathLike[str], name: str) -> Path:
    """
    A file that may leave because it lies in the folder itself: no link, no way out of the folder.

    The folder itself may be reached over a link; `name` is a path relative to it, with slashes.

    Raises:
        FileNotFoundError: If it is not there.
        ValueError: If the name leads out of the folder, or the file or a folder on the way is a link.
    """
    root, parts = Path(folder), name.split("/")
    if not name or "\\" in name or ":" in name or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{root}: {name!r} is no name of a file in this folder, so it is not sent.")
    path = root
    for part in parts:
        path = path / part
        if path.is_symlink():
            raise ValueError(f"{path} is a link: only files of the folder itself are sent. Put a copy in its place.")
    if not path.is_file():
        raise FileNotFoundError(f"{root} has no {name}.")
    return path
