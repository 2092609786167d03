"""The folder in which the server keeps recordings: a folder for each, by its number.

N/            a complete recording
.N.….new/     one that is being made, with the name of its maker in the registry
.N.….gone/    one that is being removed
.maker-….lock is locked by an API process for as long as it runs
"""

import asyncio
import re
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import structlog

from broker.errors import Taken, Unavailable
from broker.process import file_lock, files
from broker.recordings import layout

_FOLDER = re.compile(r"\.?(\d+)(?:\.[0-9a-f]+\.(?:new|gone))?", re.ASCII)

FREE_FACTOR = 4
"""A recording leaves so many times the bytes free below which the recorder waits: what comes in
now goes before a copy of what is stored.
"""

log = structlog.get_logger()


class RecordingShelf:
    """The recordings' folder, as one API process uses it; others may use it at the same time."""

    def __init__(self, root: Path, *, free_bytes: int = 0) -> None:
        """root: made when it is opened.  free_bytes: below which the recorder waits; a recording
        leaves FREE_FACTOR times as many free.
        """
        self.maker = f"maker-{secrets.token_hex(8)}"
        """Name of this process in the registry, for what it makes."""
        self.root = root
        self._is_usable = False
        self.free_bytes = FREE_FACTOR * free_bytes

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Hold the lock that says that this process lives.

        A folder that cannot be written is logged: the server runs without recordings.
        """
        lock = self._lock_of(self.maker)
        with ExitStack() as stack:
            try:
                self.root.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
                stack.enter_context(file_lock.locked(lock, Taken(f"{lock} is locked")))
                self._is_usable = True
            except OSError as exc:
                log.warning(
                    "no recordings can be kept here",
                    folder=str(self.root),
                    reason=exc.strerror,
                    setting="TESTBED_RECORDINGS_FOLDER",
                )
            try:
                yield
            finally:
                with suppress(OSError):
                    lock.unlink()

    def path(self, number: int) -> Path:
        """The folder of a recording, whether it is there or not."""
        return self.root / str(number)

    def has_ended(self, maker: str) -> bool:
        """Whether an API process that made recordings in this folder does not run any more.

        False for one that uses another folder: nothing here says it.
        """
        lock = self._lock_of(maker)
        if not lock.exists():
            return False
        try:
            with file_lock.locked(lock, Taken(f"{lock} is locked")):
                return True
        except (Taken, OSError):
            return False

    def check_room(self) -> None:
        """Raise Unavailable if there is no folder, or less is free on its disk than stays free."""
        try:
            free = shutil.disk_usage(self.root).free if self._is_usable else None
        except OSError:
            free = None
        if free is None:
            raise Unavailable(
                "this server has no folder for recordings that it can write",
                hint="record on your computer, or ask its operator to set"
                " TESTBED_RECORDINGS_FOLDER",
            )
        if free < self.free_bytes:
            raise Unavailable(
                f"the disk of the server's recordings is full: {free:,} bytes are free, and"
                f" {self.free_bytes:,} stay free",
                hint="delete recordings, or ask the operator of the testbed for room",
            )

    def bytes_written(self, number: int) -> int:
        """Bytes of the tables of a recording that is being made, as far as they are finished."""
        parts = self.root.glob(f".{number}.*.new/{layout.STREAMS}")
        return sum(_size(part) for part in parts)

    def size(self, number: int) -> int:
        """Bytes of a complete recording."""
        return _size(self.path(number))

    async def remove(self, number: int) -> None:
        """Remove a recording, which is not there at once, and then its files."""
        gone = self.root / f".{number}.{secrets.token_hex(4)}.gone"
        with suppress(FileNotFoundError):
            self.path(number).rename(gone)
            await asyncio.to_thread(shutil.rmtree, gone, ignore_errors=True)

    def numbers(self) -> frozenset[int]:
        """The numbers of the recordings of which something is there."""
        return frozenset(number for number, _ in self._folders())

    async def sweep(self, numbers: Collection[int]) -> None:
        """Remove all that is there of these recordings, and the locks of ended processes."""
        for number, path in list(self._folders()):
            if number in numbers:
                log.warning("half a recording was removed", recording=number, folder=path.name)
                await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
        for lock in list(self.root.glob(".maker-*.lock")):
            if self.has_ended(lock.name.removeprefix(".").removesuffix(".lock")):
                lock.unlink(missing_ok=True)

    def _folders(self) -> Iterator[tuple[int, Path]]:
        for path in sorted(self.root.iterdir()) if self._is_usable else ():
            match = _FOLDER.fullmatch(path.name)
            if match is not None:
                yield int(match[1]), path

    def _lock_of(self, maker: str) -> Path:
        return self.root / f".{maker}.lock"


def _size(folder: Path) -> int:
    """The bytes of the files in a folder; those that go meanwhile do not count."""
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size
