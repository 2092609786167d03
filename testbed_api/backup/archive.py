"""A backup on disk: a folder of compressed dumps, and a manifest with the hash of each.

The manifest is written last: a folder without one is no backup.
"""

import asyncio
import gzip
import hashlib
import os
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

import orjson

from broker.errors import Corrupt, Invalid, Refused, Taken, Unavailable, Unknown
from broker.namespace import StreamAddress, checked_space
from broker.process import files
from testbed_api.backup import dump as backup_dump

VERSION = 1
MANIFEST = "manifest.json"
TABLES = "tables.jsonl.gz"
_FAST = 1
_PIECE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup.  rows: of tables, or samples; fingerprint: of samples."""

    file: str
    sha256: str
    bytes: int
    rows: int
    space: str = ""
    stream: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup says of itself.  sha256: of the manifest's own file."""

    taken: str
    schema: str
    tables: Part
    streams: tuple[Part, ...]
    sha256: str = ""

    @property
    def samples(self) -> int:
        """How many samples there are in all."""
        return sum(one.rows for one in self.streams)

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Read one; raises Corrupt, or Refused if its version is unknown."""
        try:
            told = orjson.loads(text)
            if told["v"] != VERSION:
                raise Refused(
                    f"the backup has version {told['v']!r}, this one reads {VERSION}",
                    hint="restore it with the version that made it",
                )
            parts = tuple(Part(**one) for one in told["streams"])
            tables = Part(**told["tables"])
            for one in parts:
                checked_space(one.space)
                StreamAddress.parse(one.stream)
            for one in (tables, *parts):
                if ".." in Path(one.file).parts or Path(one.file).is_absolute():
                    raise ValueError(one.file)
            sha256 = hashlib.sha256(text).hexdigest()
            return cls(str(told["taken"]), str(told["schema"]), tables, parts, sha256)
        except (ValueError, KeyError, TypeError, Invalid) as exc:
            raise Corrupt(f"the manifest lacks sense: {exc}", hint="use another backup") from exc


def new_folder(path: Path) -> None:
    """Make the folder of a new backup; raises Taken if something is in it."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(path.iterdir()):
            raise Taken(f"{path} is not empty", hint="name a new folder for each backup")
    except OSError as exc:
        raise Unavailable(f"{path} cannot be written: {exc.strerror}") from exc


async def write(folder: Path, file: str, dump: AsyncIterator[bytes]) -> Part:
    """Write one dump; raises Unavailable if the dump breaks off or the disk does not take it."""
    path = folder / file
    packer, total = zlib.compressobj(_FAST, wbits=31), hashlib.sha256()
    tail = b""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _created(path) as sink:

            def put(chunk: bytes | None) -> None:
                packed = packer.flush() if chunk is None else packer.compress(chunk)
                total.update(packed)
                sink.write(packed)

            async for chunk in dump:
                await asyncio.to_thread(put, chunk)
                tail = (tail + chunk)[-4096:]
            await asyncio.to_thread(put, None)
            await asyncio.to_thread(_flush, sink)
            packed_size = sink.tell()
    except OSError as exc:
        raise Unavailable(f"{path} cannot be written: {exc.strerror}") from exc
    last = backup_dump.ended(_object(tail.splitlines()[-1] if tail else b"{}"), file)
    rows = int(last["rows"] if "rows" in last else last["samples"])
    return Part(file, total.hexdigest(), packed_size, rows, fingerprint=last.get("sha256", ""))


def close(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest: from now on it is a backup."""
    told = asdict(manifest) | {"v": VERSION}
    del told["sha256"]
    text = orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n"
    try:
        with _created(folder / MANIFEST) as sink:
            sink.write(text)
            _flush(sink)
    except OSError as exc:
        raise Unavailable(f"{folder / MANIFEST} cannot be written: {exc.strerror}") from exc
    return Manifest.parse(text)


def checked(folder: Path) -> Manifest:
    """The manifest of a backup whose every file has its hash.

    Raises Unknown if there is no backup, Corrupt naming the first file that is not as it was.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError as exc:
        raise Unknown(
            f"there is no backup in {folder}", hint="it has a manifest.json, written last"
        ) from exc
    manifest = Manifest.parse(text)
    for part in (manifest.tables, *manifest.streams):
        path = folder / part.file
        if not path.is_file() or _sha256(path) != part.sha256:
            raise Corrupt(
                f"{path} is damaged: it is not what the manifest says",
                hint="nothing was restored; use another copy of the backup",
            )
    return manifest


def tables_head(folder: Path, part: Part) -> Mapping[str, Any]:
    """The first line of the dump of tables; raises Refused if the dump's version is unknown."""
    head = next(lines(folder, part))
    if head.get("v") != backup_dump.VERSION:
        raise Refused(
            f"the dump has version {head.get('v')!r}, this version reads {backup_dump.VERSION}",
            hint="make the backup with the version that the server has",
        )
    return head


def lines(folder: Path, part: Part) -> Iterator[Mapping[str, Any]]:
    """The lines of one dump, its end left out."""
    with gzip.open(folder / part.file) as source:
        for line in source:
            told = _object(line)
            if "end" not in told:
                yield told


def _object(line: bytes) -> Mapping[str, Any]:
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(_PIECE):
            total.update(piece)
    return total.hexdigest()


def _created(path: Path) -> IO[bytes]:
    """A new file that nobody else reads: hashes of credentials are in it."""
    return files.create_private(path)


def _flush(sink: IO[bytes]) -> None:
    sink.flush()
    os.fsync(sink.fileno())
