"""The folder in which the server keeps the archives of images, each named by its digest.

sha256-….tar      an archive that was checked
.….part           one that is being pushed; locked by the process that takes it in
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from broker.errors import Invalid, Taken, Unavailable
from broker.process import file_lock, files
from broker.prototypes import bundle
from testbed_api.domain.deployments import ARCHIVE
from testbed_api.images import image_archive
from testbed_api.images.image_archive import CheckedImage
from testbed_api.recordings import threads

PIECE_BYTES = 1024 * 1024
"""An archive is written in pieces of so many bytes, and the disk is looked at before each."""
_ENDING = ".tar"

_Result = TypeVar("_Result")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """Bounds of the archives: bytes of one, and of its layers when they are unpacked.

    free_bytes: stay free on the disk.
    """

    archive_bytes: int
    unpacked_bytes: int
    free_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedArchive:
    """An archive that came in and was checked, and is not kept yet."""

    path: Path
    image: CheckedImage
    size_bytes: int


class ImageShelf:
    """The images' folder, as one API process uses it; others may use it at the same time."""

    def __init__(self, root: Path, limits: ImageLimits) -> None:
        """root: created when the first archive comes."""
        self.root = root
        self.limits = limits

    def path(self, digest: str) -> Path:
        """The file of an archive, whether it is there or not."""
        return self.root / f"{digest.replace(':', '-')}{_ENDING}"

    def size(self, digest: str) -> int | None:
        """The bytes of an archive, None if it is not here."""
        try:
            return self.path(digest).stat().st_size
        except OSError:
            return None

    @asynccontextmanager
    async def received(
        self, content: AsyncIterator[bytes], kind: str, taken: Callable[[], None]
    ) -> AsyncIterator[PushedArchive]:
        """Take an archive in and check it; unless `keep` is called, nothing of it stays.

        kind: archive or project.  taken: called after each PIECE_BYTES.  Raises Invalid for one
        that is too large, or wrong in itself, Unavailable for a full disk.
        """
        with self._part() as (part, file):
            size = await self._write(content, file, taken)
            image = await self._done(self._check, part, kind)
            yield PushedArchive(path=part, image=image, size_bytes=size)

    def keep(self, pushed: PushedArchive) -> None:
        """Give a checked archive its place; an archive of the same digest that is there stays."""
        path = self.path(pushed.image.digest)
        if path.exists():
            return
        try:
            pushed.path.rename(path)
            _sync(self.root)
        except OSError as exc:
            raise self._unwritten(exc) from exc

    def remove(self, digest: str) -> None:
        """Remove an archive, if it is there."""
        with suppress(OSError):
            self.path(digest).unlink()

    def digests_before(self, time_ns: int) -> frozenset[str]:
        """The digests of the archives that were written before an instant."""
        digests = set()
        for path in self.root.glob(f"sha256-*{_ENDING}"):
            with suppress(OSError):
                if path.stat().st_mtime_ns < time_ns:
                    digests.add(path.name.removesuffix(_ENDING).replace("-", ":", 1))
        return frozenset(digests)

    def sweep(self) -> None:
        """Remove what a process left that was killed while it took an archive in."""
        for part in self.root.glob(".*.part"):
            with (
                suppress(Taken, OSError),
                file_lock.locked(part, Taken(f"{part} is being written")),
            ):
                part.unlink()
                log.warning("half an image was removed", file=part.name)

    def check_room(self, size: int | None) -> None:
        """Raise Invalid for a stated size that is too large, Unavailable if the disk has no room.

        size: stated bytes, None if nobody says.
        """
        if size is not None and size > self.limits.archive_bytes:
            raise self._too_large()
        try:
            self.root.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
            free = shutil.disk_usage(self.root).free
        except OSError as exc:
            raise self._unwritten(exc) from exc
        if free - (size or PIECE_BYTES) < self.limits.free_bytes:
            raise Unavailable(
                f"the disk of the server's images is full: {free:,} bytes are free, and"
                f" {self.limits.free_bytes:,} stay free",
                hint="delete images that nothing needs, or ask the operator of the testbed for"
                " room",
            )

    @contextmanager
    def _part(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A new file for what comes in; removed unless it was renamed."""
        part = self.root / f".{secrets.token_hex(8)}.part"
        with ExitStack() as stack:
            try:
                self.root.mkdir(parents=True, exist_ok=True, mode=files.PRIVATE_FOLDER)
                stack.enter_context(file_lock.locked(part, Taken(f"{part} is being written")))
                file = stack.enter_context(part.open("wb"))
            except OSError as exc:
                raise self._unwritten(exc) from exc
            stack.callback(part.unlink, missing_ok=True)
            yield part, file

    async def _write(
        self, content: AsyncIterator[bytes], file: BinaryIO, taken: Callable[[], None]
    ) -> int:
        """Write what comes in, to the disk; returns its bytes."""
        size, piece = 0, bytearray()
        async for chunk in content:
            piece += chunk
            size += len(chunk)
            if size > self.limits.archive_bytes:
                raise self._too_large()
            if len(piece) >= PIECE_BYTES:
                self.check_room(len(piece))
                await self._done(file.write, bytes(piece))
                piece.clear()
                taken()
        await self._done(file.write, bytes(piece))
        await self._done(_flush, file)
        return size

    async def _done(self, call: Callable[..., _Result], *arguments: object) -> _Result:
        """Run a call on a thread; raises Unavailable where the disk fails."""
        try:
            return await threads.completed(call, *arguments)
        except OSError as exc:
            raise self._unwritten(exc) from exc

    def _check(self, part: Path, kind: str) -> CheckedImage:
        with part.open("rb") as file:
            if kind == ARCHIVE:
                return image_archive.check(file, self.limits.unpacked_bytes)
            project = bundle.check(file)
            return CheckedImage(digest=project.digest, architecture="", unpacked_bytes=0)

    def _too_large(self) -> Invalid:
        return Invalid(
            f"it has more than {self.limits.archive_bytes:,} bytes",
            hint="leave out what the prototype does not need; the operator of the testbed sets the"
            " limit (TESTBED_IMAGE_BYTES)",
        )

    def _unwritten(self, exc: OSError) -> Unavailable:
        log.error("image was not written", folder=str(self.root), reason=exc.strerror)
        full = files.full_disk(self.root, exc, "TESTBED_IMAGES_FOLDER")
        reason = "its disk is full" if full is not None else exc.strerror
        return Unavailable(
            f"the server cannot keep the image: {reason}",
            hint="ask the operator of the testbed, whose log says more",
        )


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


async def sent(path: Path) -> AsyncIterator[bytes]:
    """The bytes of an archive in pieces; raises Unavailable if it is not here."""
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as exc:
        raise Unavailable(
            "the image is not on this server", hint="push it again: a backup does not hold images"
        ) from exc
    with file:
        while piece := await threads.completed(file.read, PIECE_BYTES):
            yield piece
