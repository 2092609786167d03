"""Reads the ZIP file of an FMU: its description, and what of it this machine needs to run it.

Archives come from strangers: a member that would lie outside the folder, a link, an encrypted
member and whatever unpacks to more than the limits is refused before anything is written.
"""

import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from broker.errors import Invalid, Unknown

DESCRIPTION = "modelDescription.xml"
MOST_MEMBERS = 10_000
MOST_BYTES = 1 << 30
"""Unpacked size of all members."""
MOST_DESCRIPTION_BYTES = 32 << 20
ENCRYPTED = 0x1
CHUNK = 1 << 20


class FmuArchive:
    """An open archive whose members are checked."""

    def __init__(self, path: Path, file: zipfile.ZipFile) -> None:
        """Raises Invalid for an archive that is not safe to unpack."""
        self.path = path
        self._file = file
        _check(path, file.infolist())

    @property
    def names(self) -> Sequence[str]:
        """Paths of all members, with forward slashes."""
        return self._file.namelist()

    def description(self) -> bytes:
        """The text of the model description; raises Invalid if there is none."""
        try:
            info = self._file.getinfo(DESCRIPTION)
        except KeyError as exc:
            raise Invalid(
                f"{self.path} is no FMU: it has no {DESCRIPTION}",
                hint="an FMU is a ZIP file with that file at its top",
            ) from exc
        if info.file_size > MOST_DESCRIPTION_BYTES:
            raise Invalid(
                f"{DESCRIPTION} of {self.path} has {info.file_size:,} bytes",
                hint=f"at most {MOST_DESCRIPTION_BYTES:,}",
            )
        with self._reading(info) as member:
            return member.read(MOST_DESCRIPTION_BYTES)

    def unpack(self, folder: Path, is_wanted: Callable[[str], bool]) -> None:
        """Write the wanted members below a folder; raises Invalid if a member is damaged."""
        for info in self._file.infolist():
            if info.is_dir() or not is_wanted(info.filename):
                continue
            target = folder / PurePosixPath(info.filename)
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._reading(info) as member, target.open("xb") as file:
                left = info.file_size
                while chunk := member.read(min(CHUNK, left)):
                    file.write(chunk)
                    left -= len(chunk)

    @contextmanager
    def _reading(self, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        try:
            with self._file.open(info) as member:
                yield member
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as exc:
            raise Invalid(
                f"{info.filename} in {self.path} is damaged: {exc}", hint="export the FMU again"
            ) from exc


@contextmanager
def opened(path: Path) -> Iterator[FmuArchive]:
    """Open an FMU; raises Unknown if there is no such file, Invalid if it is no safe archive."""
    if not path.exists():
        raise Unknown(f"there is no FMU {path}")
    try:
        file = zipfile.ZipFile(path)
    except zipfile.BadZipFile as exc:
        raise Invalid(f"{path} is no FMU: {exc}", hint="an FMU is a ZIP file") from exc
    except OSError as exc:
        raise Invalid(f"{path} cannot be read: {exc.strerror}") from exc
    with file:
        yield FmuArchive(path, file)


def _check(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise Invalid for the first member that is not safe, or if there is too much of them."""
    if len(members) > MOST_MEMBERS:
        raise Invalid(f"{path} has {len(members):,} members", hint=f"at most {MOST_MEMBERS:,}")
    total = sum(info.file_size for info in members)
    if total > MOST_BYTES:
        raise Invalid(f"{path} would unpack to {total:,} bytes", hint=f"at most {MOST_BYTES:,}")
    names: set[str] = set()
    for info in members:
        name = info.filename
        if _leaves_the_folder(name):
            raise Invalid(
                f"{path} has a member {name[:200]!r}, which lies outside the FMU",
                hint="such an archive is refused as a whole",
            )
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            raise Invalid(
                f"{name[:200]!r} in {path} is a link or a device", hint="plain files only"
            )
        if info.flag_bits & ENCRYPTED:
            raise Invalid(f"{name[:200]!r} in {path} is encrypted", hint="export it without")
        if name in names:
            raise Invalid(f"{path} has two members {name[:200]!r}", hint="export the FMU again")
        names.add(name)


def _leaves_the_folder(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]
