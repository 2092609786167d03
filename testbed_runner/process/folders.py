"""Where the process product keeps its images and its programs: a folder each, below one folder."""

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.errors import Invalid
from broker.process import file_lock, files
from broker.prototypes import bundle
from testbed_runner.process import shim

PROJECT = "project"
TEMPORARY = "tmp"
_GONE = ".gone-"
_NEW = ".new-"


@dataclass(frozen=True, slots=True)
class ProgramFolder:
    """The folder of one program: its project, its order, its output, its start and its end."""

    folder: Path

    @property
    def project(self) -> Path:
        """Where the files of its project are, and it is started."""
        return self.folder / PROJECT

    @property
    def order(self) -> dict[str, Any]:
        """The order of its shim; empty while it is not written."""
        return _read(self.folder / shim.ORDER)

    @property
    def started(self) -> dict[str, Any]:
        """The file that its shim wrote at its start; empty before."""
        return _read(self.folder / shim.STARTED)

    @property
    def ended(self) -> dict[str, Any]:
        """The file that its shim wrote at its end; empty before."""
        return _read(self.folder / shim.ENDED)

    @property
    def shim_log(self) -> Path:
        """The errors of its shim."""
        return self.folder / "shim.log"

    def last_words(self) -> str:
        """The last line of the errors of its shim, empty without any."""
        with suppress(OSError):
            lines = self.shim_log.read_text(errors="replace").split("\n")
            return next((line for line in reversed(lines) if line), "")
        return ""

    def has_shim(self) -> bool:
        """Whether a shim is there that has not ended."""
        return file_lock.holder(self.folder / shim.LOCK) is not None


class ProgramFolders:
    """The folders of all programs of a site, by the number of their deployment."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, and remove what a runner before this one was about to remove."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
        for name in (_GONE, _NEW):
            for left in folder.glob(f"{name}*"):
                remove_tree(left)

    def __getitem__(self, deployment: int) -> ProgramFolder:
        """The folder of a deployment's program, whether it is there or not."""
        return ProgramFolder(self._folder / str(deployment))

    def deployments(self) -> list[int]:
        """The deployments that have one."""
        names = [each.name for each in self._folder.iterdir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def add(self, deployment: int, archive: Path, order: Mapping[str, Any]) -> ProgramFolder:
        """Make the folder of a program, whole or not at all; raises Invalid or OSError.

        archive: its packed project.  order: for its shim.
        """
        new = ProgramFolder(self._folder / f"{_NEW}{deployment}")
        remove_tree(new.folder)
        new.folder.mkdir(mode=files.PRIVATE_FOLDER)
        new.project.mkdir()
        (new.folder / TEMPORARY).mkdir()
        try:
            with archive.open("rb") as opened:
                bundle.unpack(opened, new.project)
            files.replace(new.folder / shim.ORDER, json.dumps(order).encode())
            new.folder.rename(self[deployment].folder)
        except (Invalid, OSError):
            remove_tree(new.folder)
            raise
        return self[deployment]

    def remove(self, deployment: int) -> None:
        """Remove the folder of a program, if there is one."""
        gone = self._folder / f"{_GONE}{deployment}-{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            self[deployment].folder.rename(gone)
            remove_tree(gone)


class PackedProjects:
    """The packed projects of a site, by their digest."""

    def __init__(self, folder: Path) -> None:
        """Make the folder, and remove what a runner before this one had not fetched whole."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
        for left in folder.glob("*.new"):
            left.unlink()

    def file(self, digest: str) -> Path:
        """The file of a packed project, whether it is there or not."""
        return self._folder / f"{digest.replace(':', '-')}.tar"

    def new_file(self, digest: str) -> Path:
        """Where a packed project is written while it arrives."""
        return self.file(digest).with_suffix(".new")

    def prune(self, keep: Iterable[str]) -> int:
        """Remove all but some; returns how many bytes that gives back."""
        names = {self.file(digest).name for digest in keep}
        size = 0
        for each in self._folder.glob("*.tar"):
            if each.name not in names:
                size += each.stat().st_size
                each.unlink()
        return size


def remove_tree(folder: Path) -> None:
    """Remove a folder, also where a program took away our right to enter or change parts of it."""
    if not folder.exists():
        return
    with suppress(OSError):
        folder.chmod(files.PRIVATE_FOLDER)
    for place, names, _ in os.walk(folder):  # it enters a folder after this
        for inner in (Path(place, name) for name in names):
            if not inner.is_symlink():
                with suppress(OSError):
                    inner.chmod(files.PRIVATE_FOLDER)
    shutil.rmtree(folder, ignore_errors=True)


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    return content
