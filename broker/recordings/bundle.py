"""Writes a recording as a folder, whole or not at all, and opens one that is as it was written."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from broker.batch import Gap, Source
from broker.clock import text_of
from broker.errors import BedError, Corrupt, Invalid, Taken, Unknown
from broker.namespace import StreamAddress
from broker.recordings import checksums, croissant, layout, manifest, parquet
from broker.recordings.checksums import FileDifference
from broker.recordings.manifest import (
    CoveringGrant,
    DataSplit,
    LabelSignal,
    RecordedRun,
    RecordedStream,
    RecordingCreator,
    RecordingManifest,
)
from broker.recordings.parquet import StreamTable
from broker.streams import StreamSpec

RESTRICTED = "only as the grants in manifest.json allow; no publication without the owner's consent"
"""Licence of a recording unless another one is named: data of a machine are nobody else's."""
_READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingFacts:
    """Facts of a recording that its samples do not say.

    from_ns, to_ns: its span, the first included and the second not.  software: versions of the
    programs that write it.  url: address of the dataset for its card; empty for the name of the
    recording.
    """

    name: str
    space: str
    from_ns: int
    to_ns: int
    created_ns: int
    creator: RecordingCreator
    software: dict[str, str]
    description: str = ""
    licence: str = RESTRICTED
    url: str = ""
    labels: tuple[LabelSignal, ...] = ()
    splits: tuple[DataSplit, ...] = ()
    run: RecordedRun | None = None


@dataclass(frozen=True, slots=True)
class OpenRecording:
    """A recording on this computer.  sha256: its one hash over all."""

    path: Path
    manifest: RecordingManifest
    sha256: str


@dataclass(slots=True)
class RecordingWriter:
    """A recording that is being written into a folder beside its place."""

    folder: Path
    facts: RecordingFacts
    streams: list[RecordedStream] = field(default_factory=list)
    gaps: list[tuple[StreamAddress, Gap]] = field(default_factory=list)

    @contextmanager
    def stream(
        self,
        spec: StreamSpec,
        source: Source,
        *,
        grants: Sequence[CoveringGrant] | None = (),
        gaps: Sequence[Gap] = (),
    ) -> Iterator[StreamTable]:
        """The table of one stream, for its samples in the order of time; one at a time.

        grants: under which it was read, None if they are not known.
        """
        with parquet.stream_table(self.folder, spec, self.facts.splits) as table:
            yield table
            self.streams.append(table.recorded(source, grants))
        self.gaps += [(spec.address, gap) for gap in gaps]

    def finish(self) -> None:
        """Write gaps, manifest, card and hashes; raises Invalid if facts and streams do not fit."""
        content = self._manifest()
        try:
            manifest.check(content)
        except BedError as exc:
            raise Invalid(f"{self.facts.name} is no recording: {exc.message}") from exc
        parquet.write_gaps(self.folder, self.gaps)
        (self.folder / layout.MANIFEST).write_bytes(manifest.to_json(content))
        tables = [stream.file for stream in self.streams] + [layout.GAPS]
        sizes = {
            path: ((self.folder / path).stat().st_size, file_hash(self.folder / path))
            for path in tables
        }
        url = self.facts.url or f"urn:connected-testbed:recording:{self.facts.name}"
        (self.folder / layout.CARD).write_bytes(croissant.to_json(content, sizes, url=url))
        hashes = {path: sha256 for path, (_, sha256) in sizes.items()}
        for path in (layout.MANIFEST, layout.CARD):
            hashes[path] = file_hash(self.folder / path)
        (self.folder / layout.CHECKSUMS).write_bytes(checksums.text_of(hashes))

    def _manifest(self) -> RecordingManifest:
        facts = self.facts
        return RecordingManifest(
            name=facts.name,
            description=facts.description,
            licence=facts.licence,
            created=text_of(facts.created_ns),
            creator=facts.creator,
            software=facts.software,
            space=facts.space,
            from_=text_of(facts.from_ns),
            to=text_of(facts.to_ns),
            streams=self.streams,
            gaps=len(self.gaps),
            labels=list(facts.labels),
            splits=list(facts.splits),
            run=facts.run,
        )


@contextmanager
def create(path: Path, facts: RecordingFacts) -> Iterator[RecordingWriter]:
    """Write a recording; its folder gets its name once all of it is on the disk.

    Raises Taken if there is something of that name, Unknown if the folder above is not there,
    Invalid for a label of no recorded stream or if there is no stream, Unavailable if it cannot be
    written, as on a full disk; then nothing is left of it.
    """
    if path.exists() or path.is_symlink():
        raise Taken(f"{path} is there already", hint="name a new folder")
    with new_folder(path) as folder:
        (folder / layout.STREAMS).mkdir()
        writer = RecordingWriter(folder, facts)
        yield writer
        writer.finish()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` that gets its name once it is whole and on the disk.

    An error leaves nothing of it.  Raises Unknown if the folder above is not there, Unavailable if
    it cannot be written.
    """
    if not path.parent.is_dir():
        raise Unknown(f"there is no folder {path.parent}", hint="make it, or name another one")
    folder = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        folder.mkdir()
        yield folder
        _sync(folder)
        folder.rename(path)
        _sync_folder(path.parent)
    except OSError as exc:
        raise parquet.unwritten(folder, exc) from exc
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def verify(path: Path) -> list[FileDifference]:
    """Compare every file with its recorded hash; the files that differ, none if all are the same.

    Raises Unknown if there is no such folder, Invalid if it is no recording.
    """
    listing = _listing(path)
    try:
        listed = checksums.parse(listing)
    except Corrupt as exc:
        return [FileDifference(layout.CHECKSUMS, exc.message)]
    present: dict[str, str] = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_symlink() or not (file.is_file() or file.is_dir()):
            present[name] = "none, as it is no regular file"
        elif file.is_file() and name != layout.CHECKSUMS:
            present[name] = _hash_or_reason(file) if name in listed else ""
    return checksums.differences(listed, present) or _unfitting(path, frozenset(listed))


def _hash_or_reason(file: Path) -> str:
    try:
        return file_hash(file)
    except OSError as exc:
        return f"not known, as it cannot be read ({exc.strerror})"


def _unfitting(path: Path, listed: frozenset[str]) -> list[FileDifference]:
    """The manifest, if it is none or not that of the files that are listed."""
    try:
        content = manifest.from_json((path / layout.MANIFEST).read_bytes())
    except Corrupt as exc:
        return [FileDifference(layout.MANIFEST, exc.message)]
    own = {layout.MANIFEST, layout.CARD, layout.GAPS}
    if listed == own | {stream.file for stream in content.streams}:
        return []
    return [FileDifference(layout.MANIFEST, "its streams are not the files of this recording")]


def open_recording(path: Path) -> OpenRecording:
    """Open a recording whose every file is as it was recorded.

    Raises Unknown if there is no such folder, Invalid if it is no recording or was changed.
    """
    changed = verify(path)
    if changed:
        raise Invalid(
            f"the recording {path} is not as it was recorded: {changed[0]}",
            hint="take it from where you got it again; `testbed recording verify` lists every file",
        )
    return peek(path)


def peek(path: Path) -> OpenRecording:
    """Open a recording by its manifest alone, without looking at its tables.

    Raises Unknown if there is no such folder, Invalid if it is no recording.
    """
    listing = _listing(path)
    try:
        content = manifest.from_json((path / layout.MANIFEST).read_bytes())
    except OSError as exc:
        raise Invalid(f"{path} is no recording: {layout.MANIFEST} is missing") from exc
    except BedError as exc:
        raise Invalid(f"{path} is no recording: {exc.message}", hint=exc.hint) from exc
    return OpenRecording(path, content, checksums.recording_hash(listing))


def is_recording(path: Path) -> bool:
    """Whether a folder looks like a recording."""
    return (path / layout.MANIFEST).is_file() and (path / layout.CHECKSUMS).is_file()


def file_hash(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; it is read in pieces.  Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _listing(path: Path) -> bytes:
    """The content of the list of hashes; raises Unknown or Invalid."""
    if not path.is_dir():
        raise Unknown(f"there is no recording {path}", hint="name the folder of a recording")
    try:
        return (path / layout.CHECKSUMS).read_bytes()
    except OSError as exc:
        raise Invalid(
            f"{path} is no recording: {layout.CHECKSUMS} cannot be read: {exc.strerror}",
            hint="name the folder that has manifest.json in it",
        ) from exc


def _sync(folder: Path) -> None:
    """Have the disk hold every file of a folder, and the folders themselves."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
