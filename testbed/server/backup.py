"""`testbed backup` and `testbed restore`: registry, ledger and store, checked by hash.

A running server is asked through its API, for its files are its own; the data of one that is
stopped is opened here, under its lock.  Either way the same dumps are written.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from rich.console import Console

from broker import api_client
from broker.clock import Clock, text_of
from broker.errors import Corrupt, Refused, Unavailable
from broker.namespace import StreamAddress
from testbed.client import api
from testbed_api import persistence
from testbed_api.backup import archive
from testbed_api.backup import restore as backup_restore
from testbed_api.backup.archive import TABLES, BackupFile, Manifest
from testbed_api.backup.dump import Dumper
from testbed_api.backup.restore import RestoreTarget
from testbed_api.domain import audit
from testbed_api.domain.audit import Event, Outcome
from testbed_api.registry import tables
from testbed_api.retention.deletions import Loss
from testbed_api.settings import ServerSettings

PATIENCE_S = 600.0
"""The longest that the server may look for the next piece of a dump."""


class Source(Protocol):
    """Where dumps come from: `Dumper` here, or the API's."""

    def tables(self) -> AsyncGenerator[bytes]:
        """See `Dumper.tables`."""

    def samples(self, space: str, stream: StreamAddress) -> AsyncGenerator[bytes]:
        """See `Dumper.samples`."""


class _Asked:
    """The dumps of a running server."""

    def __init__(self, door: api_client.Api) -> None:
        self._door = door

    async def tables(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._lines("/backup/tables")) as lines:
            async for chunk in lines:
                yield chunk

    async def samples(self, space: str, stream: StreamAddress) -> AsyncGenerator[bytes]:
        async with aclosing(self._lines(f"/backup/samples/{space}/{stream}")) as lines:
            async for chunk in lines:
                yield chunk

    async def _lines(self, path: str) -> AsyncGenerator[bytes]:
        async with self._door.stream(path) as answer:
            async for chunk in answer.aiter_bytes():
                yield chunk


@asynccontextmanager
async def _source(settings: ServerSettings | None, clock: Clock) -> AsyncIterator[Source]:
    if settings is None:
        async with api.door(PATIENCE_S) as door:
            yield _Asked(door)
        return
    if not (settings.folder / "layout").exists():
        raise Refused(f"there is no data in {settings.folder}", hint="name the folder of a server")
    async with persistence.open_exclusive(settings) as kept:
        yield Dumper(kept.engine, kept.store, kept.deletions, clock)


async def backup(to: Path, settings: ServerSettings | None, clock: Clock) -> Manifest:
    """Write a backup into a new folder; settings: of a server that is stopped, None asks one."""
    async with _source(settings, clock) as source:
        archive.new_folder(to)
        ledger = await archive.write(to, TABLES, source.tables())
        head = archive.tables_head(to, ledger)
        files = []
        for space, stream in await asyncio.to_thread(_streams, to, ledger):
            file = f"samples/{space}/{str(stream).replace('/', '.')}.jsonl.gz"
            written = await archive.write(to, file, source.samples(space, stream))
            files.append(replace(written, space=space, stream=str(stream)))
    manifest = Manifest(
        taken=head["taken"], schema=head["schema"], tables=ledger, streams=tuple(files)
    )
    return archive.write_manifest(to, manifest)


def _streams(folder: Path, ledger: BackupFile) -> Sequence[tuple[str, StreamAddress]]:
    """Every space and stream that may have samples: those whose spec the recorder has."""
    rows = backup_restore.rows_of(archive.lines(folder, ledger), tables.specs)
    found = sorted({(row["space"], row["stream"]) for row in rows})
    return [(space, StreamAddress.parse(stream)) for space, stream in found]


async def restore(
    folder: Path, settings: ServerSettings, clock: Clock, sha256: str | None
) -> tuple[Manifest, Sequence[Loss]]:
    """Bring a backup back into an empty data folder, and the store of its settings.

    sha256: what the manifest's own must be, if it is known.
    """
    manifest = await asyncio.to_thread(archive.verify, folder)
    if sha256 is not None and sha256 != manifest.sha256:
        raise Corrupt(
            f"the manifest's SHA-256 is {manifest.sha256}, not {sha256}",
            hint="it is another backup, or it was changed",
        )
    backup_restore.check_schema(manifest)
    mark = settings.folder / persistence.RESTORE_MARK
    _make_empty(settings.folder, mark)
    async with persistence.open_exclusive(settings, restoring=True) as kept:
        losses = await backup_restore.restore(
            folder, manifest, RestoreTarget(kept.engine, kept.store, clock)
        )
        facts = audit.details({"taken": manifest.taken})
        what, now_ns = f"backup {manifest.sha256}", clock.now_ns()
        await kept.registry.append([Event(now_ns, "restore", what, Outcome.ALLOWED, details=facts)])
    mark.unlink()
    return manifest, losses


def _make_empty(folder: Path, mark: Path) -> None:
    """The data folder, made if it is not there; marked until the restore has come to its end."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise Refused(f"{folder} is not empty", hint="restore into a new folder")
        mark.touch()
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc


def show(manifest: Manifest, folder: Path, out: Console) -> None:
    """What the backup holds."""
    rows = f"{manifest.tables.rows} rows of registry and ledger"
    out.print(f"{folder}: {rows}, {manifest.samples} samples of {len(manifest.streams)} streams")
    out.print(f"  taken   {manifest.taken}")
    out.print(f"  sha256  {manifest.sha256}")


def show_restored(manifest: Manifest, losses: Sequence[Loss], out: Console) -> None:
    """What came back, and what did not."""
    out.print(f"restored: {manifest.samples} samples of {len(manifest.streams)} streams")
    if losses:
        out.print(f"What was recorded after {manifest.taken} is lost but for what the gateways")
        out.print("still have; what they do not send again is a gap, lost-after-backup:")
    for one in losses:
        span = f"{text_of(one.span.from_ns)} to {text_of(one.span.to_ns)}"
        out.print(f"  {one.span.stream} in {one.span.space}: {span}")


def told(manifest: Manifest, folder: Path) -> dict[str, object]:
    """The same as JSON."""
    return {
        "folder": str(folder),
        "taken": manifest.taken,
        "rows": manifest.tables.rows,
        "samples": manifest.samples,
        "streams": len(manifest.streams),
        "sha256": manifest.sha256,
    }
