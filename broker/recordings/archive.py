"""A recording as one zip file, and back; and back from the tar stream of a server.

The files are stored in it without compression, since Parquet is compressed already, with a fixed
date and in the order of their paths: the same recording gives the same bytes.
"""

import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from broker.errors import Corrupt, Invalid, Taken, Unknown
from broker.recordings import bundle, checksums, layout, parquet
from broker.recordings.bundle import OpenRecording

MOST_FILES = 10_000
MOST_BYTES = 64 * 1024**3
"""Most bytes of a recording that is unpacked."""
MOST_RATIO = 20
"""Most bytes that a byte of an archive unpacks to: a recording's files are compressed already."""
LEAST_BYTES = 16 * 1024**2
"""Bytes that every archive may unpack to, however small it is."""
_DATE = (1980, 1, 1, 0, 0, 0)
_PIECE = 1024 * 1024


def pack(recording: OpenRecording, path: Path) -> None:
    """Write a recording into a new zip file; raises Taken, Unknown or Unavailable."""
    members = sorted(checksums.parse((recording.path / layout.CHECKSUMS).read_bytes()))
    with new_file(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for member in [layout.CHECKSUMS, *members]:
            entry = zipfile.ZipInfo(member, _DATE)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            with (
                (recording.path / member).open("rb") as source,
                archive.open(entry, "w", force_zip64=True) as target,
            ):
                while piece := source.read(_PIECE):
                    target.write(piece)


def unpack(path: Path, folder: Path) -> OpenRecording:
    """Unpack a recording into a new folder, and verify it; nothing is left if it is not whole.

    Raises Unknown if there is no such file, Taken if the folder is there, Invalid if the file is no
    recording, is not as it was recorded, or unpacks to more than a recording can.
    """
    if not path.is_file():
        raise Unknown(f"there is no file {path}", hint="name a zip file of `recording export`")
    check_new_folder(folder)
    try:
        with zipfile.ZipFile(path) as archive, bundle.new_folder(folder) as new:
            entries = _members(archive)
            (new / layout.STREAMS).mkdir()
            left = min(MOST_BYTES, max(LEAST_BYTES, MOST_RATIO * path.stat().st_size))
            for entry in entries:
                left -= _extract(archive, entry, new / entry.filename, left)
            _check_whole(new)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as exc:
        raise Invalid(f"{path} is no zip file that can be read: {exc}") from exc
    except (Corrupt, Invalid) as exc:
        raise Invalid(
            f"{path} is no recording: {exc.message}", hint="take it again from where you got it"
        ) from exc
    return bundle.peek(folder)


def check_new_folder(folder: Path) -> None:
    """Raise Taken if there is something of this name already."""
    if folder.exists() or folder.is_symlink():
        raise Taken(f"{folder} is there already", hint="name a new folder")


def unpack_tar(path: Path, folder: Path) -> OpenRecording:
    """Unpack the tar file of a server's recording into a new folder, and verify it.

    Nothing is left if it is not whole.  Raises Taken if the folder is there, Invalid if the file is
    no recording, or is not as it was recorded.
    """
    check_new_folder(folder)
    try:
        with tarfile.open(path, "r:") as archive, bundle.new_folder(folder) as new:
            entries = archive.getmembers()
            names = [entry.name.partition("/")[2] for entry in entries]
            _check_names(names)
            (new / layout.STREAMS).mkdir()
            for entry, name in zip(entries, names, strict=True):
                content = archive.extractfile(entry) if entry.isreg() else None
                if content is None:
                    raise Invalid(f"{name} in it is no regular file")
                with content, (new / name).open("wb") as target:
                    shutil.copyfileobj(content, target, _PIECE)
            _check_whole(new)
    except tarfile.TarError as exc:
        raise Invalid(f"it is no whole tar file: {exc}") from exc
    except Corrupt as exc:
        raise Invalid(f"it is no recording: {exc.message}") from exc
    return bundle.peek(folder)


def _check_whole(folder: Path) -> None:
    """Raise Corrupt if a file of a recording is not as it was recorded."""
    changed = bundle.verify(folder)
    if changed:
        raise Corrupt(f"it is not as it was recorded: {changed[0]}")


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A new file that gets its name once it is written; raises Taken, Unknown or Unavailable."""
    if path.exists() or path.is_symlink():
        raise Taken(f"{path} is there already", hint="name a new file")
    if not path.parent.is_dir():
        raise Unknown(f"there is no folder {path.parent}", hint="make it, or name another one")
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.rename(path)
    except OSError as exc:
        raise parquet.unwritten(part, exc) from exc
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive; raises Invalid for a name that no file of a recording has.

    The names are a fixed few and those of streams, so none leads out of the folder.
    """
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_names([entry.filename for entry in entries])
    for entry in entries:
        if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG}:
            raise Invalid(f"{entry.filename} in it is no regular file")
    return entries


def _check_names(names: Sequence[str]) -> None:
    """Raise Invalid for names of files that are not those of one recording."""
    if len(names) > MOST_FILES:
        raise Invalid(f"it has {len(names):,} files, and a recording has {MOST_FILES:,} at most")
    if len(set(names)) != len(names):
        raise Invalid("it has two files of one name")
    for name in names:
        if not (name == layout.CHECKSUMS or layout.is_member(name)):
            raise Invalid(f"it has a file {name[:80]!r}, which no recording has")
    if layout.CHECKSUMS not in names:
        raise Invalid(f"{layout.CHECKSUMS} is not in it")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path, most: int) -> int:
    """Write a file of an archive; its bytes.  Raises Invalid if they are more than `most`.

    The bytes are counted as they come: the size that an archive states may be wrong.
    """
    size = 0
    with archive.open(entry) as source, path.open("wb") as target:
        while piece := source.read(_PIECE):
            size += len(piece)
            if size > most:
                raise Invalid("it unpacks to more bytes than a recording of its size can have")
            target.write(piece)
    return size
