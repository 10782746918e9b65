"""Rows that are expensive to compute, kept on disk under a key: in shards, by any number of processes, checked."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from fairpo_trl.files import write_file, write_json
from fairpo_trl.hashing import sha256_of_array, sha256_of_json


_VERSION = 2  # 2: hashes with type and shape; in the key, so that what an older version wrote is computed again
_SHARD_ROWS = 512  # about: a shard is a whole number of batches

Batches = Iterator[list[int]]


class ComputedBatch(NamedTuple):
    """The values of a batch's rows that could be read, `[rows, width]`, and row -> why of those that could not."""

    values: np.ndarray
    bad: Mapping[int, str]


Compute = Callable[[Batches], Iterator[ComputedBatch]]


class StoredRows(NamedTuple):
    """A complete array on disk: a read-only memory map, the rows it holds (increasing), row -> why of the others."""

    values: np.ndarray
    kept: np.ndarray
    bad: Mapping[int, str]


class ShardStore:
    """
    A folder `<root>/<name>-<key>` that fills up with shards and ends as one array, `rows.npy`.

    A shard is a few batches of consecutive rows. Batches are cut from the rows in order and do not depend on what is
    already there, so the result does not depend on interruptions or on the number of processes. A shard counts when
    its record (a JSON file with its SHA-256, written last) is there; files are written under another name, synced and
    renamed, so a killed process leaves no half shard. Which process computes which shard is settled by file locks,
    which end with the process that holds them. When every shard is there, one process joins them and writes the hash
    of each into `manifest.json`; from then on each opening checks the array against these.

    The batch size is not in the key: with another one the last bits may differ, since libraries choose other kernels
    for other shapes. A complete array is therefore used for any batch size, and an unfinished one is only continued
    with its own.

    Args:
        root (`str` or `os.PathLike`), name (`str`):
            Where folders of this kind lie, and the first part of the folder's name, for people.
        key (`Mapping[str, Any]`):
            JSON-ready: everything that decides the values. Another key is another folder.
        rows, width (`int`), dtype (`str`):
            Shape and type of the array.
        batch_size (`int`):
            Rows computed together.

    Raises:
        ValueError: If the folder holds another key, or an unfinished array of another batch size.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str,
        key: Mapping[str, Any],
        *,
        rows: int,
        width: int,
        dtype: str,
        batch_size: int,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {batch_size}.")
        if rows < 1:
            raise ValueError(f"{name!r} has no rows: there is nothing to compute.")
        self.rows, self.width, self.dtype = rows, width, np.dtype(dtype)
        self._set_batch_size(batch_size)
        full_key = {**key, "version": _VERSION, "rows": rows, "width": width, "dtype": str(self.dtype)}
        self.key = sha256_of_json(full_key)
        self.folder = Path(root) / f"{name}-{self.key[:16]}"
        self._manifest_path, self._rows_path = self.folder / "manifest.json", self.folder / "rows.npy"
        (self.folder / "locks").mkdir(parents=True, exist_ok=True)
        with self._lock("manifest"):
            if not self._manifest_path.exists():
                begun = {"version": _VERSION, "key": self.key, "decided_by": full_key, "batch_size": batch_size}
                write_json(self._manifest_path, begun)
        manifest = self._manifest()
        if (manifest["version"], manifest["key"]) != (_VERSION, self.key):
            raise ValueError(
                f"{self.folder} belongs to other inputs: its manifest holds key {manifest['key'][:16]} (version "
                f"{manifest['version']}), needed is {self.key[:16]} (version {_VERSION}). Delete the folder, or give "
                "another cache folder."
            )
        if "shards" in manifest:
            # Ready: the layout it was made with is the one to check it by.
            self._set_batch_size(manifest["batch_size"])
        elif manifest["batch_size"] != batch_size:
            raise ValueError(
                f"{self.folder} is unfinished and was begun with batch_size={manifest['batch_size']}; with "
                f"{batch_size} the last bits may differ. Pass the former, or delete the folder."
            )

    def _set_batch_size(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.shard_rows = -(-_SHARD_ROWS // batch_size) * batch_size
        self.starts = range(0, self.rows, self.shard_rows)

    # ---- files ----

    def _path(self, shard: int, suffix: str) -> Path:
        return self.folder / f"shard-{shard:05d}.{suffix}"

    def _lock(self, name: str) -> FileLock:
        return FileLock(self.folder / "locks" / f"{name}.lock")

    def _manifest(self) -> dict[str, Any]:
        manifest = _read_object(self._manifest_path, {"version": int, "key": str, "batch_size": int})
        shards = manifest.get("shards", []) if manifest is not None else None
        if manifest is None or not isinstance(shards, list) or not all(map(_is_record, shards)):
            raise ValueError(
                f"{self._manifest_path} is damaged: nothing says what the files beside it hold. Delete {self.folder}; "
                "its rows are then computed again."
            )
        return manifest

    def _read_shard(self, shard: int) -> tuple[np.ndarray, dict[str, Any]] | None:
        """A shard as a memory map, with its record (hash and unreadable rows); `None` if either is damaged."""
        record, values = _read_object(self._path(shard, "json"), {}), _read_array(self._path(shard, "npy"))
        if values is None or values.ndim != 2 or record is None or not _is_record(record):
            return None
        return (values, record) if sha256_of_array(values) == record["sha256"] else None

    def _write_shard(self, shard: int, values: np.ndarray, bad: Mapping[int, str]) -> None:
        write_file(self._path(shard, "npy"), lambda file: np.save(file, values, allow_pickle=False))
        write_json(self._path(shard, "json"), {"sha256": sha256_of_array(values), "bad": dict(bad)})

    def _range(self, shard: int) -> range:
        return range(self.starts[shard], min(self.starts[shard] + self.shard_rows, self.rows))

    def _is_there(self, shard: int) -> bool:
        # After the join the shards are gone; the manifest stands for them all.
        return self._path(shard, "json").exists() or "shards" in self._manifest()

    # ---- computing ----

    def missing(self) -> list[int]:
        """The shards that are not there yet, by number."""
        return [] if "shards" in self._manifest() else [i for i in range(len(self.starts)) if not self._is_there(i)]

    def missing_rows(self) -> int:
        """How many rows are not there yet."""
        return sum(len(self._range(shard)) for shard in self.missing())

    def get(self, compute: Compute, *, recompute_damaged: bool) -> StoredRows:
        """
        The array, computing what is not there.

        `compute` takes an iterator of batches (lists of rows) and yields one [`ComputedBatch`] for each, in order;
        `recompute_damaged`: whether shards whose hash is wrong are computed again instead of raising.

        Raises:
            ValueError: If a shard is damaged and `recompute_damaged` is off; names the shards and their rows.
        """
        if recompute_damaged:
            self._drop_damaged()
        # First what nobody else is working on, then whatever the others have not finished, waiting for them: a lock
        # is free when its process has finished the shard or has died.
        for wait in (False, True):
            if self.missing():
                self._compute_missing(compute, wait)
        self._join()
        records = self._manifest()["shards"]
        self._raise_damaged([shard for shard, part in enumerate(self._joined(records)) if part is None])
        bad = {int(row): why for record in records for row, why in record["bad"].items()}
        kept = np.array([row for row in range(self.rows) if row not in bad], dtype=np.int64)
        return StoredRows(np.load(self._rows_path, mmap_mode="r", allow_pickle=False), kept, bad)

    def _compute_missing(self, compute: Compute, wait: bool) -> None:
        claimed: deque[tuple[int, FileLock]] = deque()

        def batches() -> Batches:
            # Runs ahead of the results when the loader prefetches: hence the queue of claims. Shards are taken in
            # increasing order, so processes that wait for one another cannot form a circle.
            for shard in self.missing():
                lock = self._lock(f"shard-{shard:05d}")
                try:
                    lock.acquire(timeout=-1 if wait else 0)
                except Timeout:
                    continue
                if self._is_there(shard):
                    lock.release()
                    continue
                claimed.append((shard, lock))
                rows = self._range(shard)
                for start in range(0, len(rows), self.batch_size):
                    yield list(rows[start : start + self.batch_size])

        done: list[ComputedBatch] = []
        seen = 0
        try:
            for result in compute(batches()):
                done.append(result)
                seen += len(result.values) + len(result.bad)
                shard, lock = claimed[0]
                if seen == len(self._range(shard)):
                    values = np.concatenate([batch.values for batch in done]).astype(self.dtype, copy=False)
                    self._write_shard(shard, values, {row: why for batch in done for row, why in batch.bad.items()})
                    lock.release()
                    claimed.popleft()
                    done, seen = [], 0
        finally:
            for _, lock in claimed:
                lock.release()

    # ---- joining, opening, mending ----

    def _join(self) -> None:
        with self._lock("manifest"):
            manifest = self._manifest()
            if "shards" in manifest:
                return
            found = [self._read_shard(shard) for shard in range(len(self.starts))]
            self._raise_damaged([shard for shard, part in enumerate(found) if part is None])
            parts = [part for part in found if part is not None]

            def content(file: Any) -> None:
                shape = (sum(len(values) for values, _ in parts), self.width)
                header = {"descr": self.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
                for values, _ in parts:
                    file.write(np.ascontiguousarray(values).data)

            write_file(self._rows_path, content)
            write_json(self._manifest_path, {**manifest, "shards": [record for _, record in parts]}, indent=1)
        for shard in range(len(self.starts)):
            self._path(shard, "npy").unlink(missing_ok=True)
            self._path(shard, "json").unlink(missing_ok=True)
        for draft in self.folder.glob("shard-*.tmp"):  # of processes that were killed while they wrote
            draft.unlink(missing_ok=True)

    def _joined(self, records: list[dict[str, Any]]) -> list[np.ndarray | None]:
        """The part of `rows.npy` that belongs to each shard, or `None` where hash or size are wrong."""
        values = _read_array(self._rows_path)
        parts: list[np.ndarray | None] = []
        first = 0
        for shard, record in enumerate(records):
            count = len(self._range(shard)) - len(record["bad"])
            part = None if values is None else values[first : first + count]
            parts.append(part if part is not None and sha256_of_array(part) == record["sha256"] else None)
            first += count
        return parts

    def _raise_damaged(self, damaged: list[int]) -> None:
        if damaged:
            ranges = [(shard, self._range(shard)) for shard in damaged[:5]]
            named = ", ".join(f"shard {shard} (rows {rows[0]} to {rows[-1]})" for shard, rows in ranges)
            raise ValueError(
                f"{self.folder} is damaged: {named}{', ...' if len(damaged) > 5 else ''} no longer "
                f"{'has its' if len(damaged) == 1 else 'have their'} recorded SHA-256. Pass recompute_damaged=True to "
                "compute these rows again, or delete the folder."
            )

    def _drop_damaged(self) -> None:
        """Leaves the shards whose hash is right, and nothing else."""
        with self._lock("manifest"):
            manifest = self._manifest()
            if "shards" not in manifest:
                for shard in range(len(self.starts)):
                    if self._path(shard, "json").exists() and self._read_shard(shard) is None:
                        self._path(shard, "json").unlink()
                return
            records = manifest.pop("shards")
            parts = self._joined(records)
            if any(part is None for part in parts):
                # Back to shards: the intact ones are written out, then the manifest stops vouching for the whole.
                for shard, (part, record) in enumerate(zip(parts, records, strict=True)):
                    if part is not None:
                        self._write_shard(shard, part, record["bad"])
                write_json(self._manifest_path, manifest)


def _read_object(path: Path, needed: Mapping[str, type]) -> dict[str, Any] | None:
    """A JSON object with entries of these types, or `None` if the file does not hold one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, or no text
        return None
    fits = isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in needed.items())
    return value if fits else None


def _read_array(path: Path) -> np.ndarray | None:
    """An array as a memory map, or `None` if the file is not one."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def _is_record(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("sha256"), str) and isinstance(value.get("bad"), dict)
