"""Back up and restore registry, ledger and store, with the SHA-256 of every file.

A running server dumps its data through the API; the data folder of a stopped one is opened here,
under its lock.  Both ways write the same dumps.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rich.console import Console

from broker import api_client
from broker.audit_head import HeadSigner
from broker.clock import Clock, text_of
from broker.errors import Refused, Unavailable
from broker.namespace import StreamAddress
from broker.process import files
from testbed.client import api
from testbed_api import data_folder, persistence
from testbed_api.audit import journal
from testbed_api.backup import archive
from testbed_api.backup import restore as backup_restore
from testbed_api.backup import rights as backup_rights
from testbed_api.backup.archive import TABLES, BackupFile, Manifest
from testbed_api.backup.dump import Dumper
from testbed_api.backup.restore import Restored, RestoredRights, RestoreTarget
from testbed_api.backup.rights import BackupRight, RightName
from testbed_api.domain import audit
from testbed_api.domain.audit import AuditOutcome, Event
from testbed_api.registry import tables
from testbed_api.security import certificates
from testbed_api.settings import ServerSettings

TIMEOUT_S = 600.0
"""The longest wait for the next piece of a dump."""
GIVEN_KEY = "the file of TESTBED_AUDIT_KEY_FILE"


class DumpSource(Protocol):
    """Dumps of registry and store: of a `Dumper`, or of a running server."""

    def tables(self) -> AsyncGenerator[bytes]:
        """See `Dumper.tables`."""

    def samples(self, space: str, stream: StreamAddress) -> AsyncGenerator[bytes]:
        """See `Dumper.samples`."""


class _ApiDumps:
    """The dumps of a running server, through its API."""

    def __init__(self, connection: api_client.Api) -> None:
        self._connection = connection

    async def tables(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._lines("/backup/tables")) as lines:
            async for chunk in lines:
                yield chunk

    async def samples(self, space: str, stream: StreamAddress) -> AsyncGenerator[bytes]:
        async with aclosing(self._lines(f"/backup/samples/{space}/{stream}")) as lines:
            async for chunk in lines:
                yield chunk

    async def _lines(self, path: str) -> AsyncGenerator[bytes]:
        async with self._connection.stream(path) as answer:
            async for chunk in answer.aiter_bytes():
                yield chunk


@asynccontextmanager
async def _dumps(settings: ServerSettings | None, clock: Clock) -> AsyncIterator[DumpSource]:
    """Open the dumps of a stopped server by its settings, of a running one for None."""
    if settings is None:
        async with api.connect(TIMEOUT_S) as connection:
            yield _ApiDumps(connection)
        return
    data_folder.check_exists(settings.folder)
    async with persistence.open_exclusive(settings) as data:
        yield Dumper(data.engine, data.store, data.deletions, clock)


async def backup(to: Path, settings: ServerSettings | None, clock: Clock) -> Manifest:
    """Write a backup into a new folder, and return its manifest.

    settings: of a stopped server; None backs up the running server that TESTBED_API names.  What a
    run that fails has written is removed.
    """
    async with _dumps(settings, clock) as dumps:
        with archive.new_folder(to):
            return await _written(to, dumps)


async def _written(to: Path, dumps: DumpSource) -> Manifest:
    """Write the dumps and then the manifest into an empty folder."""
    ledger = await archive.write(to, TABLES, dumps.tables())
    head = archive.tables_head(to, ledger)
    streams, audit_key = await asyncio.to_thread(_contents, to, ledger)
    parts = []
    for space, stream in streams:
        file = f"samples/{space}/{str(stream).replace('/', '.')}.jsonl.gz"
        part = await archive.write(to, file, dumps.samples(space, stream))
        parts.append(_of_stream(part, space, stream))
    manifest = Manifest(
        taken=head["taken"],
        schema=head["schema"],
        tables=ledger,
        streams=tuple(parts),
        audit_key=audit_key,
    )
    return archive.write_manifest(to, manifest)


def _of_stream(part: BackupFile, space: str, stream: StreamAddress) -> BackupFile:
    """The manifest's entry of a file, with the space and stream of its samples."""
    return replace(part, space=space, stream=str(stream))


def _contents(folder: Path, ledger: BackupFile) -> tuple[Sequence[tuple[str, StreamAddress]], str]:
    """The spaces and streams that may have samples, and the key of the newest head of the audit.

    These are the streams whose spec the recorder has stored.
    """
    keys: set[tuple[str, str]] = set()
    newest: tuple[int, str] = (0, "")
    for line in archive.lines(folder, ledger):
        for row in backup_restore.rows_of([line], tables.specs):
            keys.add((row["space"], row["stream"]))
        for row in backup_restore.rows_of([line], tables.anchors):
            newest = max(newest, (row["id"], row["key"]))
    return [(space, StreamAddress.parse(stream)) for space, stream in sorted(keys)], newest[1]


Approve = Callable[[Sequence[BackupRight]], None]
"""Asks whether the rights of a backup are to hold again; raises Refused if not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """The choices of a restore beside its backup and its place.

    sha256: expected of the manifest, None to skip the check.  audit_key: copy of the former
    `audit.key`, to go into the data folder; None for none.  former: data folder of the former
    server, whose registry is taken in place of the backup's; None without one.  ended: rights of
    the backup that are not to hold any more.
    """

    sha256: str | None = None
    audit_key: Path | None = None
    former: Path | None = None
    ended: Collection[RightName] = ()


async def restore(
    folder: Path,
    settings: ServerSettings,
    clock: Clock,
    options: RestoreOptions,
    approve: Approve,
) -> tuple[Manifest, Restored]:
    """Restore a backup into an empty data folder and an empty store.

    settings: name folder, store and registry.  approve: called with the rights that will hold
    again before anything is written, unless the registry is a former server's.
    Raises Corrupt if a hash differs, the manifest's first; Refused if the folder is not empty, the
    key another one, or the rights are not approved.
    """
    manifest = await asyncio.to_thread(archive.verify, folder, options.sha256)
    backup_restore.check_schema(manifest)
    key = options.audit_key
    seed = None if key is None else _checked_key(key, settings, manifest)
    rights = await asyncio.to_thread(backup_rights.rights_in, folder, manifest, clock.now_ns())
    backup_rights.checked(rights, options.ended)
    if options.former is None:
        approve([right for right in rights if right.name not in options.ended])
    else:
        data_folder.check_unlocked(options.former)
        await backup_restore.check_former(folder, manifest, options.former)
    mark = settings.folder / data_folder.RESTORE_MARK
    _make_empty(settings.folder, mark)
    async with persistence.open_exclusive(settings, restoring=True) as data:
        restored = await backup_restore.restore(
            folder,
            manifest,
            RestoreTarget(data.engine, data.store, clock),
            RestoredRights(options.former, options.ended),
        )
        if seed is not None:
            files.replace(settings.folder / journal.KEY, f"{seed}\n".encode())
        await data.registry.audit.append([_restore_event(manifest, restored, options, clock)])
    mark.unlink()
    return manifest, restored


def _restore_event(
    manifest: Manifest, restored: Restored, options: RestoreOptions, clock: Clock
) -> Event:
    """The audit event of a restore: which backup it is of, and which rights hold after it."""
    facts: dict[str, object] = {"taken": manifest.taken, "signed_by": manifest.audit_key}
    facts["rights"] = "of the backup" if options.former is None else "of the former server"
    if restored.events_after:
        facts["events_after_backup"] = restored.events_after
    if options.ended:
        facts["ended"] = sorted(map(str, options.ended))
    return Event(
        time_ns=clock.now_ns(),
        action=audit.OtherAction.RESTORE,
        target=f"backup {manifest.sha256}",
        outcome=AuditOutcome.ALLOWED,
        details=audit.details(facts),
    )


def _checked_key(file: Path, settings: ServerSettings, manifest: Manifest) -> str:
    """The seed in a file, where it is the key that signed the heads of a backup; or Refused."""
    if journal.key_file(settings) is None:
        raise Refused(
            "TESTBED_AUDIT_KEY, or its file, gives the audit's key, and so does --audit-key",
            hint="leave one of them out",
        )
    seed = files.read_secret(file, f"the audit's key {file}")
    key = HeadSigner.from_seed(seed).key
    if manifest.audit_key and key != manifest.audit_key:
        raise Refused(
            f"{file} is not the key of this backup: its heads are signed by {manifest.audit_key},"
            f" and this is {key}",
            hint="name the audit.key of the server that the backup is of; without --audit-key"
            " `testbed up` makes a new one, and `testbed audit verify` names the change",
        )
    return seed


def _make_empty(folder: Path, mark: Path) -> None:
    """Create the data folder, with a mark file that is removed once the restore is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if any(folder.iterdir()):
            raise Refused(f"{folder} is not empty", hint="restore into a new folder")
        mark.touch()
    except OSError as exc:
        raise Unavailable(f"{folder} cannot be written: {exc.strerror}") from exc


def print_rights(rights: Sequence[BackupRight], folder: Path, notes: Console) -> None:
    """Print the rights that hold again after a restore, and what to do about the others."""
    notes.print(f"rights in {folder}, which hold again once it is restored:")
    for right in rights:
        notes.print(f"  {right}")
    notes.print(
        "Of what was revoked, removed or paused after the backup it knows nothing. Name what has"
    )
    notes.print(
        "ended since then with --end; or give the former server's data folder with --former, if"
    )
    notes.print("its registry can be read: then its rights hold, and none of these comes back.")


def print_backup(
    manifest: Manifest, folder: Path, settings: ServerSettings | None, out: Console
) -> None:
    """Print the counts, the time and the SHA-256 of a backup, and what it does not hold.

    settings: of a stopped server, None for a running one, whose data folder is not known here.
    """
    rows = f"{manifest.tables.rows} rows of registry and ledger"
    out.print(f"{folder}: {rows}, {_content(manifest)}")
    out.print(f"  taken   {manifest.taken}")
    out.print(f"  sha256  {manifest.sha256}")
    _print_missing_key(manifest, settings, out)
    place = "the server's data folder" if settings is None else str(settings.folder)
    out.print(f"not in it: secrets.key in {place}, without which secrets of prototypes are lost,")
    out.print("and images of prototypes, which are pushed again.")
    if settings is None:
        out.print(
            "not in it: after `testbed up --tls`, the authority that clients trust, the folder"
        )
        out.print("pki beside audit.key: copy it, too, or clients do not trust a restored server.")
        return
    authority = certificates.development_folder(settings.folder)
    if (authority / certificates.AUTHORITY).exists():
        out.print(f"not in it: the authority that clients trust, the folder {authority}: copy it,")
        out.print("too, or no client trusts a restored server.")


def _content(manifest: Manifest) -> str:
    """The number of samples and streams in a backup."""
    noun = "stream" if len(manifest.streams) == 1 else "streams"
    return f"{manifest.samples} samples of {len(manifest.streams)} {noun}"


def _print_missing_key(manifest: Manifest, settings: ServerSettings | None, out: Console) -> None:
    """Print where the audit's key is, which a backup does not hold, unless nothing is signed."""
    if not manifest.audit_key:
        return
    file = None if settings is None else journal.key_file(settings)
    place = f"audit.key in the server's data folder, or {GIVEN_KEY}"
    if settings is not None:
        place = GIVEN_KEY if file is None else str(file)
    out.print(f"not in it: the key that signs the audit, {place}. Copy it to a safe place, apart")
    out.print("from the backup: without it a restored server goes on with another key.")


def print_restored(
    manifest: Manifest, restored: Restored, settings: ServerSettings, out: Console
) -> None:
    """Print what was restored, what to do about the audit's key, and the spans that are lost."""
    out.print(f"restored: {_content(manifest)}")
    if restored.events_after:
        out.print(f"The registry is the former server's, {restored.events_after} events newer.")
    for line in (*_about_key(manifest, settings), *_about_authority(settings)):
        out.print(line)
    if restored.losses:
        out.print(f"What was recorded after {manifest.taken} is lost but for what the gateways")
        out.print("still have; what they do not send again is a gap, lost-after-backup:")
    for loss in restored.losses:
        span = f"{text_of(loss.from_ns)} to {text_of(loss.to_ns)}"
        out.print(f"  {loss.stream} in {loss.space}: {span}")


def _about_key(manifest: Manifest, settings: ServerSettings) -> Sequence[str]:
    """Say whether the key that will sign is the one that signed the heads of a backup."""
    if not manifest.audit_key:
        return ()
    file = journal.key_file(settings)
    if file is not None and not file.exists():
        return (
            f"The audit of this backup is signed by key {manifest.audit_key}, which is not here.",
            f"Copy the former server's audit.key to {file} before the first start. Without it",
            "`testbed up` makes a new key, and `testbed audit verify` names the change.",
        )
    if journal.signer(settings).key == manifest.audit_key:
        return ("The audit goes on with the key that signed this backup's heads.",)
    return (
        f"The key in {GIVEN_KEY} is not the one that signed the audit of this backup,",
        f"{manifest.audit_key}: `testbed audit verify` names the change at this restore. Give the",
        "former server's key instead before the first start, if you have it.",
    )


def _about_authority(settings: ServerSettings) -> Sequence[str]:
    """Say where the former server's own authority belongs, unless certificates are named."""
    if settings.tls_cert_file is not None:
        return ()
    return (
        "If the former server ran with --tls, copy the folder pki of its data folder to",
        f"{certificates.development_folder(settings.folder)} before the first start. Without it",
        "`testbed up --tls` makes a new authority, which no profile and no gateway trusts.",
    )


def as_json(manifest: Manifest, folder: Path) -> dict[str, object]:
    """A backup with the keys that scripts rely on."""
    return {
        "folder": str(folder),
        "taken": manifest.taken,
        "rows": manifest.tables.rows,
        "samples": manifest.samples,
        "streams": len(manifest.streams),
        "audit_key": manifest.audit_key,
        "sha256": manifest.sha256,
    }
