"""Have recordings made on the server, list and delete them there, and fetch them from it."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from broker import api_client
from broker.clock import Clock
from broker.errors import BedError, Corrupt, Invalid, Refused
from broker.process import files
from broker.recordings import archive, bundle, layout
from broker.recordings.bundle import OpenRecording
from broker.recordings.checksums import FileDifference
from broker.recordings.server_states import RecordingState
from broker.responses.recordings import (
    RecordingDetailResponse,
    RecordingPage,
    RecordingResponse,
    StreamOfRecordingResponse,
    VerifiedRecordingResponse,
)
from testbed.client import api, recording_files
from testbed.client.api import ApiSettings
from testbed.client.recordings import RecordingOptions
from testbed.terminal import tables
from testbed.terminal.screen import Screen, announce, notes, print_json
from testbed.terminal.tables import TableColumn

PREFIX = "server:"
"""Before the number of a recording on the server, where a folder could stand as well."""
TIMEOUT_S = 600.0
"""The longest silence of the server: it hashes a whole recording before it answers."""
LOOK_EVERY_S = 0.5


def number_of(recording: str | Path) -> int | None:
    """The number in `server:12`; None for a folder.  Raises Invalid for another text behind it."""
    text = str(recording)
    if not text.startswith(PREFIX):
        return None
    digits = text.removeprefix(PREFIX)
    if not (digits.isascii() and digits.isdigit() and len(digits) < 16):
        raise Invalid(
            f"{text[:60]!r} is no recording on the server",
            hint=f"write {PREFIX}NUMBER, as `testbed recording list` shows it",
        )
    return int(digits)


def on_the_server(recording: str | Path) -> int:
    """The number in `server:12`; raises Invalid for a folder."""
    number = number_of(recording)
    if number is None:
        raise Invalid(
            f"{recording} is a folder on this computer",
            hint=f"remove it as any folder, or name one on the server, {PREFIX}NUMBER",
        )
    return number


async def create(path: Path, options: RecordingOptions, clock: Clock) -> RecordingResponse:
    """Have a recording made on the server, and wait until it is complete.

    path: its name, which is no folder here.
    Raises Refused with the reason if it could not be made, and what the API answers.
    """
    name = layout.checked_name(str(path))
    wanted = options.checked(clock)
    body: dict[str, Any] = {
        "name": name,
        "streams": [{"stream": str(each)} for each in wanted.streams],
        "space": wanted.space,
        "note": options.description,
        "labels": [{"stream": each.stream, "signal": each.signal} for each in wanted.labels],
        "split": options.split,
        "licence": options.licence,
        "web_page": options.url,
        **options.instants(),
    }
    async with api.connect() as connection:
        ordered = await connection.send("POST", "/recordings", RecordingResponse, body)
        announce(f"{PREFIX}{ordered.id} is being made on the server")
        return await _made(connection, ordered, clock)


async def _made(
    connection: api_client.Api, recording: RecordingResponse, clock: Clock
) -> RecordingResponse:
    """Wait for a recording; raises Refused if it is not made."""
    path = f"/recordings/{recording.id}"
    while recording.state is RecordingState.MAKING:
        await clock.sleep(LOOK_EVERY_S)
        recording = await connection.get(path, RecordingResponse)
    if recording.state is not RecordingState.COMPLETE:
        raise Refused(
            f"{PREFIX}{recording.id} was not made: {recording.reason}",
            hint="nothing of it is left on the server",
        )
    return recording


async def listed(*, required: bool) -> Sequence[RecordingResponse]:
    """The recordings on the server that concern who is signed in.

    required: raise what is in the way; else, without a sign-in or a server, there are none, and
    standard error says why.
    """
    try:
        if not required and not ApiSettings.from_environment(os.environ).credential:
            return []
        return list((await api.whole("/recordings", RecordingPage)).items)
    except BedError as exc:
        if required:
            raise
        notes.print(f"the server's recordings are not listed: {exc.message}")
        return []


async def shown(number: int) -> RecordingDetailResponse:
    """A recording on the server, with its manifest."""
    return await api.get(f"/recordings/{number}", RecordingDetailResponse)


@dataclass(frozen=True, slots=True)
class VerifiedRecording:
    """A recording whose every file was compared with its hash.

    recording: as it was named.  differences: the files that are not as they were recorded.
    """

    recording: str
    sha256: str | None
    differences: Sequence[FileDifference]

    def print(self, out: Screen, *, as_json: bool) -> None:
        """Print the outcome, for scripts or for people."""
        if as_json:
            files = [{"path": each.path, "problem": each.problem} for each in self.differences]
            sha256 = None if files else self.sha256
            print_json({"path": self.recording, "sha256": sha256, "differences": files})
            return
        for each in self.differences:
            out.print(f"{self.recording}: {each}")
        if not self.differences:
            out.print(f"{self.recording} is as it was recorded: sha256 {self.sha256}")


async def verify(recording: Path, sha256: str | None) -> VerifiedRecording:
    """Compare every file of a recording with its hash, where it lies.

    sha256: hash that the recording must have, None for any.
    """
    number = number_of(recording)
    if number is None:
        return _verified_here(recording, sha256)
    async with api.connect(TIMEOUT_S) as connection:
        path = f"/recordings/{number}/verify"
        outcome = await connection.send("POST", path, VerifiedRecordingResponse)
    changed = [FileDifference(each.path, each.problem) for each in outcome.differences]
    if not changed:
        changed = recording_files.another_hash(outcome.sha256, sha256)
    return VerifiedRecording(str(recording), outcome.sha256, changed)


def _verified_here(recording: Path, sha256: str | None) -> VerifiedRecording:
    changed = recording_files.verified(recording, sha256)
    own = None if changed else bundle.peek(recording).sha256
    return VerifiedRecording(str(recording), own, changed)


async def delete(number: int, *, confirmed: bool) -> None:
    """Delete a recording on the server for good; raises Invalid if it is not confirmed."""
    if not confirmed:
        raise Invalid(
            f"{PREFIX}{number} would be deleted for good, for everybody",
            hint="say --yes if that is what you want",
        )
    await api.request("DELETE", f"/recordings/{number}")


async def fetch(number: int, folder: Path) -> OpenRecording:
    """Take a recording from the server into a new folder, and verify it.

    Nothing is left of one that does not come whole.  Raises Taken or Unknown for the folder,
    Corrupt if what came is not as it was recorded, and what the API answers.
    """
    archive.check_new_folder(folder)
    announce(f"fetching {PREFIX}{number}")
    with _part(folder) as part:
        async with (
            api.connect(TIMEOUT_S) as connection,
            connection.stream(f"/recordings/{number}/bundle") as answer,
        ):
            with part.open("wb") as file:
                async for piece in answer.aiter_bytes():
                    file.write(piece)
        try:
            return archive.unpack_tar(part, folder)
        except Invalid as exc:
            raise Corrupt(
                f"{PREFIX}{number} did not come as it was recorded: {exc.message}",
                hint=f"`testbed recording verify {PREFIX}{number}` says whether it is whole there",
            ) from exc


@contextmanager
def _part(folder: Path) -> Iterator[Path]:
    """A place beside a folder for what is being fetched; raises Unavailable."""
    part = folder.with_name(f".{folder.name}.tar.part")
    try:
        yield part
    except OSError as exc:
        raise files.unwritable(folder.parent, "the folder", exc, "another path") from exc
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def temporary(beside: Path | None = None) -> Iterator[Path]:
    """A folder for recordings that are fetched for one command; raises Unavailable.

    beside: a folder on whose disk it shall be, None for the system's own for temporary files.
    """
    try:
        new_folder = tempfile.mkdtemp(prefix=".testbed-recording-", dir=beside)
    except OSError as exc:
        place = beside or Path(tempfile.gettempdir())
        raise files.unwritable(place, "the folder", exc, "another path") from exc
    try:
        yield Path(new_folder)
    finally:
        shutil.rmtree(new_folder, ignore_errors=True)


async def all_here(recordings: Sequence[Path], temporary_folder: Path) -> list[Path]:
    """The folders of recordings on this computer; those of the server are fetched."""
    folders = []
    for recording in recordings:
        number = number_of(recording)
        folder = recording if number is None else temporary_folder / f"server-{number}"
        if number is not None and not folder.exists():
            await fetch(number, folder)
        folders.append(folder)
    return folders


async def export(recording: Path, output: Path, streams: Sequence[str]) -> None:
    """Write a recording as one file, or one of the server as a new folder; see the local export."""
    number = number_of(recording)
    if number is None:
        recording_files.export(recording, output, streams)
        return
    if output.suffix not in recording_files.ENDINGS:
        if streams:
            raise Invalid("a folder has all streams", hint="leave --stream out")
        await fetch(number, output)
        return
    with temporary(output.parent) as folder:
        fetched = await fetch(number, folder / f"server-{number}")
        recording_files.export(fetched.path, output, streams)


@dataclass(frozen=True, slots=True)
class RecordingRow:
    """A recording as a row of a list, wherever it lies."""

    cells: tuple[str, ...]

    @classmethod
    def local(cls, recording: recording_files.ListedRecording) -> Self:
        """The row of a recording on this computer."""
        name, *others = recording.cells
        return cls((name, "here", *others))

    @classmethod
    def server(cls, recording: RecordingResponse) -> Self:
        """The row of a recording on the server."""
        state = "" if recording.state is RecordingState.COMPLETE else f", {recording.state}"
        streams = "\n".join(each.stream for each in recording.streams)
        span = (tables.instant(recording.from_), tables.instant(recording.to))
        rows = f"{sum(each.rows for each in recording.streams):,}"
        short = (recording.sha256 or tables.NOTHING)[: recording_files.SHORT_HASH]
        where = f"server, of {recording.organisation}{state}"
        name = f"{PREFIX}{recording.id} ({recording.name})"
        return cls((name, where, streams, *span, rows, short))


def _column(at: int, heading: str) -> TableColumn[RecordingRow]:
    return TableColumn(heading=heading, cell=lambda row: row.cells[at])


_ROWS = [
    _column(at, heading)
    for at, heading in enumerate(("recording", "where", "streams", "from", "to", "rows", "sha256"))
]
_STREAMS = tables.fields(StreamOfRecordingResponse, "stream", "rows", "samples", "grants")


def document(recording: RecordingResponse) -> dict[str, Any]:
    """A recording on the server for scripts, with where it lies."""
    return {"recording": f"{PREFIX}{recording.id}", "where": "server", **recording.as_json()}


def print_rows(rows: Sequence[RecordingRow], out: Screen) -> None:
    """Print recordings, a row each."""
    tables.print_rows(rows, _ROWS, out)


def print_one(recording: RecordingResponse | OpenRecording, out: Screen, *, as_json: bool) -> None:
    """Print a recording, wherever it lies, for scripts or for people."""
    if isinstance(recording, OpenRecording):
        if as_json:
            print_json(recording_files.summary(recording))
        else:
            recording_files.print_recording(recording, out)
    elif as_json:
        print_json(document(recording))
    else:
        _print_facts(recording, out)


def _print_facts(recording: RecordingResponse, out: Screen) -> None:
    span = f"{tables.instant(recording.from_)} to {tables.instant(recording.to)}"
    title = f"{PREFIX}{recording.id} ({recording.name}): {span} in the space {recording.space}"
    out.print(title, style="bold")
    if recording.note:
        out.print(recording.note)
    by = f"{recording.made_by} of {recording.organisation}"
    out.print(f"recorded by {by} at {tables.instant(recording.created)}")
    reason = f": {recording.reason}" if recording.reason else ""
    out.print(f"on the server, {recording.state}{reason}")
    if recording.state is RecordingState.COMPLETE:
        out.print(f"sha256: {recording.sha256}")
        out.print(f"bytes: {recording.bytes:,}")
    if recording.refusal:
        out.print(f"you may not read it now: {recording.refusal}")
    tables.print_rows(recording.streams, _STREAMS, out)
