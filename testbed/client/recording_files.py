"""List recordings on this computer, print them, and write them in other forms."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from broker.errors import BedError, Invalid, Unknown
from broker.namespace import StreamAddress
from broker.recordings import archive, bundle, joined_table, layout
from broker.recordings.bundle import OpenRecording
from broker.recordings.checksums import FileDifference
from broker.recordings.manifest import RecordedStream
from testbed.terminal import tables
from testbed.terminal.screen import Screen
from testbed.terminal.tables import TableColumn

ENDINGS = (".zip", ".parquet", ".csv")
SHORT_HASH = 12


@dataclass(frozen=True, slots=True)
class ListedRecording:
    """A folder that is a recording, or that looks like one.

    recording: None where it cannot be read.  problem: the reason for that.
    """

    path: Path
    recording: OpenRecording | None
    problem: str = ""

    def as_json(self) -> dict[str, Any]:
        """The recording for scripts."""
        if self.recording is None:
            return {"path": str(self.path), "where": "here", "problem": self.problem}
        return {**summary(self.recording), "where": "here", "problem": None}

    @property
    def cells(self) -> tuple[str, ...]:
        """Its name, streams, span, rows and hash, as text."""
        if self.recording is None:
            return (str(self.path), self.problem, *[tables.NOTHING] * 4)
        manifest = self.recording.manifest
        streams = "\n".join(str(stream.address) for stream in manifest.streams)
        span = (tables.instant(manifest.from_), tables.instant(manifest.to))
        short = self.recording.sha256[:SHORT_HASH]
        return (str(self.path), streams, *span, f"{manifest.rows:,}", short)


def _grants(stream: RecordedStream) -> str:
    """The grants of a stream, a line each."""
    if stream.grants is None:
        return "not known"
    lines = [
        f"grant {grant.id}, {f'until {tables.instant(grant.until)}' if grant.until else 'no end'}"
        for grant in stream.grants
    ]
    return "\n".join(lines) or "an own stream"


_STREAM: list[TableColumn[RecordedStream]] = [
    TableColumn(heading="stream", cell=lambda stream: str(stream.address)),
    TableColumn(heading="source", cell=lambda stream: stream.source.value),
    TableColumn(heading="rows", cell=lambda stream: f"{stream.rows:,}"),
    TableColumn(heading="samples", cell=lambda stream: f"{stream.samples:,}"),
    TableColumn(heading="first", cell=lambda stream: tables.text(stream.first or "")),
    TableColumn(heading="last", cell=lambda stream: tables.text(stream.last or "")),
    TableColumn(heading="read under", cell=_grants),
]


def summary(recording: OpenRecording) -> dict[str, Any]:
    """The manifest of a recording as JSON, with its folder and hash."""
    manifest = recording.manifest.model_dump(mode="json", by_alias=True)
    return {"path": str(recording.path), "sha256": recording.sha256, **manifest}


def listed(folder: Path) -> list[ListedRecording]:
    """The recordings in a folder, by name; raises Unknown if there is no such folder."""
    if not folder.is_dir():
        raise Unknown(f"there is no folder {folder}", hint="name one with recordings in it")
    recordings: list[ListedRecording] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not bundle.is_recording(path):
            continue
        try:
            recordings.append(ListedRecording(path, bundle.peek(path)))
        except BedError as exc:
            recordings.append(ListedRecording(path, None, exc.message))
    return recordings


def print_recording(recording: OpenRecording, out: Screen) -> None:
    """Print the facts of a recording and its streams."""
    manifest = recording.manifest
    span = f"{tables.instant(manifest.from_)} to {tables.instant(manifest.to)}"
    out.print(f"{recording.path}: {span} in the space {manifest.space}", style="bold")
    if manifest.description:
        out.print(manifest.description)
    creator, created = manifest.creator, tables.instant(manifest.created)
    out.print(f"recorded by {creator.principal} of {creator.organisation} at {created}")
    out.print(f"licence: {manifest.licence}")
    out.print(f"sha256: {recording.sha256}")
    out.print(f"gaps: {manifest.gaps}")
    for label in manifest.labels:
        out.print(f"label: {label.stream}/{label.signal}")
    for part in manifest.splits:
        out.print(f"{part.name}: {tables.instant(part.from_)} to {tables.instant(part.to)}")
    if manifest.run is not None:
        out.print(f"run: scenario {manifest.run.scenario}, seed {manifest.run.seed}")
    tables.print_rows(manifest.streams, _STREAM, out)


def verified(path: Path, sha256: str | None) -> list[FileDifference]:
    """The files of a recording that are not as recorded; also if it is not that of a known hash.

    sha256: hash that the recording must have, None for any.
    """
    differences = bundle.verify(path)
    return differences or another_hash(bundle.peek(path).sha256, sha256)


def another_hash(own: str, sha256: str | None) -> list[FileDifference]:
    """The list of hashes as a file that differs, if it is not the one of a known hash."""
    if sha256 is None or own == sha256.lower():
        return []
    problem = f"its hash, that of the recording, is {own}; {sha256} was expected"
    return [FileDifference(layout.CHECKSUMS, problem)]


def export(path: Path, output: Path, streams: Sequence[str]) -> None:
    """Write a recording as one file; its ending names the form.

    streams: addresses of those that a table has, empty for all.  Raises Invalid for another ending,
    Unknown for a stream that is not in it, Taken if the file is there, Unavailable if it cannot be
    written.
    """
    if output.suffix not in ENDINGS:
        raise Invalid(f"{output} has no known ending", hint=f"end it with {', '.join(ENDINGS)}")
    recording = bundle.open_recording(path)
    if output.suffix == ".zip":
        if streams:
            raise Invalid("a zip file has all streams", hint="leave --stream out")
        archive.pack(recording, output)
        return
    chosen = [_stream(recording, StreamAddress.parse(text)) for text in streams]
    with archive.new_file(output) as part:
        joined_table.write(
            recording, chosen or recording.manifest.streams, Path(part.name), output.suffix
        )


def _stream(recording: OpenRecording, address: StreamAddress) -> RecordedStream:
    """A stream of a recording; raises Unknown."""
    stream = recording.manifest.stream(address)
    if stream is None:
        names = ", ".join(str(each.address) for each in recording.manifest.streams)
        raise Unknown(f"{recording.path} has no stream {address}", hint=f"it has {names}")
    return stream
