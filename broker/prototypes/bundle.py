"""Packs the project of a prototype as one archive, the same bytes for the same files.

Its digest stands for the program wherever no container image does: in the record of a run that
tried it, and in a deployment on a site that runs processes.  Left out are names that begin with a
dot, Python's caches and virtual environments, and the files that `testbed prototype test` writes.
"""

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from broker import tar_entries
from broker.errors import Invalid, Unavailable, Unknown
from broker.tar_entries import TarBounds

MOST_FILES = 20_000
MOST_BYTES = 256 * 1024**2
"""Bytes of the files of a project, together."""
BOUNDS = TarBounds(MOST_FILES, MOST_BYTES)
LEFT_OUT = frozenset({"__pycache__", "out.html", "out.xml"})
"""Names that are not packed: caches, and results as the first files of a project name them."""
PREFIX = "sha256:"
"""Begin of a digest."""
_VIRTUAL_ENVIRONMENT = "pyvenv.cfg"
_PLAIN, _EXECUTABLE = 0o644, 0o755
_END = bytes(2 * tarfile.BLOCKSIZE)


@dataclass(frozen=True, slots=True)
class ProjectBundle:
    """A packed project.  digest: `sha256:` and the SHA-256 of its bytes, in hexadecimal."""

    digest: str
    size_bytes: int
    files: int


def pack(folder: Path, target: BinaryIO | None = None) -> ProjectBundle:
    """Write the files of a project as a tar archive; without a target, find its digest alone.

    Names are sorted, times and owners are 0, and a file's mode says only whether it can be
    executed.  Raises Unknown if there is no such folder, Invalid for a link or a special file and
    for a project that is too large, Unavailable for a file that changes meanwhile, and OSError as
    `target` does.
    """
    files = _files(folder)
    sha256, size = hashlib.sha256(), 0
    for piece in _archive(files):
        sha256.update(piece)
        size += len(piece)
        if target is not None:
            target.write(piece)
    return ProjectBundle(f"{PREFIX}{sha256.hexdigest()}", size, len(files))


def check(archive: BinaryIO) -> ProjectBundle:
    """The digest and size of a packed project from a file that can seek.

    Raises Invalid for an archive that `pack` does not write: anything but regular files, a name
    that leads out of its folder or stands twice, too much of it.
    """
    files = sum(1 for _ in _checked_files(archive))
    if not files:
        raise Invalid("the project has no file")
    archive.seek(0)
    sha256, size = hashlib.sha256(), 0
    while piece := archive.read(tar_entries.PIECE_BYTES):
        sha256.update(piece)
        size += len(piece)
    return ProjectBundle(f"{PREFIX}{sha256.hexdigest()}", size, files)


def unpack(archive: BinaryIO, folder: Path) -> None:
    """Write the files of a packed project into an empty folder; raises Invalid as `check` does.

    Raises OSError where the folder cannot be written; what is written by then stays.
    """
    for entry in _checked_files(archive):
        path = folder / tar_entries.check_name(entry.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for piece in tar_entries.pieces(archive, entry):
                file.write(piece)
        path.chmod(_mode(entry.mode))


def _checked_files(archive: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The entries of a packed project: regular files, each in a place of its own."""
    files: set[str] = set()
    folders: set[str] = set()
    for entry in tar_entries.entries(archive, BOUNDS):
        name = tar_entries.check_name(entry.name)
        above = {str(parent) for parent in Path(name).parents}
        if not entry.isreg() or name == ".":
            raise Invalid(f"its entry {name[:80]!r} is no regular file", hint="pack files alone")
        if name in files or name in folders or files & above:
            raise Invalid(f"its entry {name[:80]!r} stands twice")
        files.add(name)
        folders |= above
        yield entry


def _files(folder: Path) -> dict[str, Path]:
    """The files of a project by their names in the archive, sorted."""
    if not folder.is_dir():
        raise Unknown(f"there is no folder {folder}", hint="name the folder of a prototype.yaml")
    files: dict[str, Path] = {}
    size = 0
    for path in _walk(folder):
        files[_name(path, folder)] = path
        size += path.stat().st_size
        if len(files) > MOST_FILES or size > MOST_BYTES:
            raise Invalid(
                f"{folder} has more than {MOST_FILES:,} files or {MOST_BYTES // 1024**2} MiB",
                hint="keep recordings and results elsewhere, or deploy an image",
            )
    if not files:
        raise Invalid(f"{folder} has no file", hint="name the folder of a prototype.yaml")
    return dict(sorted(files.items()))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in LEFT_OUT:
            continue
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            if not (path / _VIRTUAL_ENVIRONMENT).exists():
                yield from _walk(path)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise Invalid(
                f"{path} is a link or a special file, which no project may have",
                hint="put a copy of the file there, or keep it elsewhere",
            )


def _name(path: Path, folder: Path) -> str:
    name = path.relative_to(folder).as_posix()
    try:
        name.encode()
    except UnicodeEncodeError as exc:
        raise Invalid(f"the name of {name!r} is no UTF-8", hint="give it another one") from exc
    return name


def _archive(files: Mapping[str, Path]) -> Iterator[bytes]:
    """The archive in pieces: of a file its bytes, and whether it can be executed."""
    for name, path in files.items():
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = status.st_size, _mode(status.st_mode)
                yield entry.tobuf(tarfile.PAX_FORMAT)
                yield from _content(file, path, entry.size)
        except PermissionError as exc:
            raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc
        yield bytes(-entry.size % tarfile.BLOCKSIZE)
    yield _END


def _content(file: BinaryIO, path: Path, size: int) -> Iterator[bytes]:
    """The first `size` bytes of a file in pieces."""
    while size:
        piece = file.read(min(tar_entries.PIECE_BYTES, size))
        if not piece:
            raise Unavailable(f"{path} changed while it was packed", hint="pack it again")
        size -= len(piece)
        yield piece


def _mode(mode: int) -> int:
    return _EXECUTABLE if mode & stat.S_IXUSR else _PLAIN
