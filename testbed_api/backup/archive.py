"""Writes and verifies a backup on disk: a folder of compressed dumps, with a manifest of hashes.

The manifest is written last: a folder without one is no backup.
"""

import asyncio
import gzip
import hashlib
import os
import re
import shutil
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
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
_COMPRESSION_LEVEL = 1
_CHUNK = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupFile:
    """One file of a backup, as the manifest lists it.

    file: path relative to the folder.  sha256, bytes: of the compressed file.  rows: number of rows
    or samples.  space, stream, fingerprint: for samples only.
    """

    file: str
    sha256: str
    bytes: int
    rows: int
    space: str = ""
    stream: str = ""
    fingerprint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The manifest of a backup: its time, its schema and its files.

    taken: time of the backup, ISO 8601.  schema: version of the tables.  audit_key: public key that
    signed the newest head of the audit, in hex; empty without a head.  sha256: of the manifest's
    own file.
    """

    taken: str
    schema: str
    tables: BackupFile
    streams: tuple[BackupFile, ...]
    audit_key: str = ""
    sha256: str = ""

    @property
    def samples(self) -> int:
        """Total number of samples."""
        return sum(file.rows for file in self.streams)

    @classmethod
    def parse(cls, text: bytes) -> Self:
        """Parse a manifest; raises Corrupt, or Refused if its version is unknown."""
        try:
            document = orjson.loads(text)
            if document["v"] != VERSION:
                raise Refused(
                    f"the backup has version {document['v']!r}, this one reads {VERSION}",
                    hint="restore it with the version that made it",
                )
            streams = tuple(BackupFile(**file) for file in document["streams"])
            tables = BackupFile(**document["tables"])
            for samples in streams:
                checked_space(samples.space)
                StreamAddress.parse(samples.stream)
            for name in (tables.file, *(samples.file for samples in streams)):
                if ".." in Path(name).parts or Path(name).is_absolute():
                    raise ValueError(name)
            sha256 = hashlib.sha256(text).hexdigest()
            return cls(
                taken=str(document["taken"]),
                schema=str(document["schema"]),
                tables=tables,
                streams=streams,
                audit_key=str(document.get("audit_key", "")),
                sha256=sha256,
            )
        except KeyError as exc:
            raise _senseless(f"it lacks {exc}") from exc
        except TypeError as exc:
            names = ", ".join(field.name for field in fields(BackupFile))
            raise _senseless(f"an entry of it has other fields than {names}") from exc
        except (ValueError, Invalid) as exc:
            raise _senseless(str(exc)) from exc


def _senseless(why: str) -> Corrupt:
    return Corrupt(f"the manifest lacks sense: {why}", hint="use another backup")


@contextmanager
def new_folder(path: Path) -> Iterator[None]:
    """Create the folder of a new backup, and remove what is in it if the context fails.

    A folder that was there before stays, empty.  Raises Taken if it is not empty.
    """
    is_new = not path.exists()
    _create_empty(path)
    try:
        yield
    except BaseException:
        for entry in path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        if is_new:
            path.rmdir()
        raise


def _create_empty(path: Path) -> None:
    """Create a folder if it does not exist; raises Taken if it is not empty."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(path.iterdir()):
            raise Taken(f"{path} is not empty", hint="name a new folder for each backup")
    except OSError as exc:
        raise Unavailable(f"{path} cannot be written: {exc.strerror}") from exc


async def write(folder: Path, file: str, dump: AsyncIterator[bytes]) -> BackupFile:
    """Compress one dump into a file; raises Unavailable if the dump or the write breaks off."""
    path = folder / file
    packer, total = zlib.compressobj(_COMPRESSION_LEVEL, wbits=31), hashlib.sha256()
    tail = b""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _create(path) as sink:

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
    last = backup_dump.check_end(_parse_object(tail.splitlines()[-1] if tail else b"{}"), file)
    rows = int(last["rows"] if "rows" in last else last["samples"])
    return BackupFile(
        file=file,
        sha256=total.hexdigest(),
        bytes=packed_size,
        rows=rows,
        fingerprint=last.get("sha256", ""),
    )


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest, which completes the backup; returns it with its hash."""
    document = asdict(manifest) | {"v": VERSION}
    del document["sha256"]
    text = orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"
    try:
        with _create(folder / MANIFEST) as sink:
            sink.write(text)
            _flush(sink)
    except OSError as exc:
        raise Unavailable(f"{folder / MANIFEST} cannot be written: {exc.strerror}") from exc
    return Manifest.parse(text)


def verify(folder: Path, sha256: str | None = None) -> Manifest:
    """Verify the hash of every file of a backup, and return the manifest.

    sha256: expected of the manifest, None for any; looked at before all else.  Raises Unknown if
    there is no backup, Corrupt for another manifest, or with the name of the first damaged file.
    """
    try:
        text = (folder / MANIFEST).read_bytes()
    except OSError as exc:
        raise Unknown(
            f"there is no backup in {folder}", hint="it has a manifest.json, written last"
        ) from exc
    if sha256 is not None:
        _check_manifest(text, sha256)
    manifest = Manifest.parse(text)
    for listed in (manifest.tables, *manifest.streams):
        path = folder / listed.file
        if not path.is_file() or _sha256(path) != listed.sha256:
            raise Corrupt(
                f"{path} is damaged: it is not what the manifest says",
                hint="nothing was restored; use another copy of the backup",
            )
    return manifest


def _check_manifest(text: bytes, sha256: str) -> None:
    """Raise Corrupt if a manifest has another SHA-256, Invalid if that is none."""
    if not _SHA256.fullmatch(sha256):
        raise Invalid(
            f"{sha256[:80]!r} is no SHA-256",
            hint="64 hexadecimal digits, as `testbed backup` printed them",
        )
    own = hashlib.sha256(text).hexdigest()
    if own != sha256.lower():
        raise Corrupt(
            f"the manifest's SHA-256 is {own}, not {sha256}",
            hint="nothing was restored: it is another backup, or it was changed",
        )


def tables_head(folder: Path, dumped: BackupFile) -> Mapping[str, Any]:
    """Read the first line of the dump of tables; raises Refused if its version is unknown."""
    head = next(lines(folder, dumped))
    if head.get("v") != backup_dump.VERSION:
        raise Refused(
            f"the dump has version {head.get('v')!r}, this version reads {backup_dump.VERSION}",
            hint="make the backup with the version that the server has",
        )
    return head


def lines(folder: Path, dumped: BackupFile) -> Iterator[Mapping[str, Any]]:
    """Read the lines of one dump, except the last one with `end`."""
    with gzip.open(folder / dumped.file) as source:
        for line in source:
            document = _parse_object(line)
            if "end" not in document:
                yield document


def _parse_object(line: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _sha256(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            total.update(chunk)
    return total.hexdigest()


def _create(path: Path) -> IO[bytes]:
    """Create a file that only its owner can read, because it contains hashes of credentials."""
    return files.create_private(path)


def _flush(sink: IO[bytes]) -> None:
    sink.flush()
    os.fsync(sink.fileno())
