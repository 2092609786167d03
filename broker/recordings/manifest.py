"""The manifest of a recording: how it came about, and the meaning of its tables.  Pure."""

from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from broker import messages, pydantic_checks
from broker.batch import Source
from broker.clock import ns_of, text_of
from broker.errors import BedError, Corrupt
from broker.namespace import StreamAddress
from broker.recordings import layout
from broker.streams import StreamSpec

FORMAT: Literal["testbed-recording"] = "testbed-recording"
VERSION: Literal[1] = 1

Instant = Annotated[str, Field(description="RFC 3339 in UTC, with nanoseconds")]


class ManifestPart(BaseModel):
    """Base of the parts of a manifest: immutable, and without keys that are not known."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True
    )


class DataSplit(ManifestPart):
    """A part of the span that is for training, validation or test."""

    name: Literal["train", "validation", "test"]
    from_: Annotated[Instant, Field(alias="from", description="included")]
    to: Annotated[Instant, Field(description="not included")]

    @classmethod
    def of(cls, name: Any, from_ns: int, to_ns: int) -> Self:
        """A part from one instant to before another."""
        return cls(name=name, from_=text_of(from_ns), to=text_of(to_ns))

    @property
    def to_ns(self) -> int:
        """The end of the part, ns since 1970 UTC."""
        return ns_of(self.to)


class CoveringGrant(ManifestPart):
    """A grant under which a stream of another organisation was read."""

    id: int
    purpose: str
    decided_by: str | None
    from_: Annotated[Instant | None, Field(alias="from")]
    until: Annotated[Instant | None, Field(description="null is for ever")]


class RecordedSignal(ManifestPart):
    """A signal of a recorded stream, with its columns in the table."""

    name: str
    column: str
    quality: Annotated[
        str | None, Field(description="column of the quality; null where every sample is good")
    ]
    samples: int


class RecordedStream(ManifestPart):
    """A stream of a recording.

    A row of its table is an instant at which at least one signal has a sample.  grants: empty for a
    stream of the recording organisation's own, None where they could not be listed.
    """

    spec: dict[str, Any]
    file: str
    source: Source
    rows: int
    first: Instant | None
    last: Instant | None
    signals: list[RecordedSignal]
    grants: list[CoveringGrant] | None

    @property
    def address(self) -> StreamAddress:
        """The address of the stream; raises Invalid."""
        return StreamAddress.parse(str(self.spec.get("stream")))

    def stream_spec(self) -> StreamSpec:
        """The spec of the stream; raises Corrupt."""
        return messages.spec_from_json(self.spec)

    @property
    def samples(self) -> int:
        """The number of samples of all signals."""
        return sum(signal.samples for signal in self.signals)


class LabelSignal(ManifestPart):
    """A signal that is the answer which a model shall learn, never an input."""

    stream: str
    signal: str


class RecordedRun(ManifestPart):
    """The run whose streams were recorded: its scenario, seed and the hash of its samples."""

    scenario: str
    seed: int
    sample_hash: str


class RecordingCreator(ManifestPart):
    """The principal that made a recording."""

    principal: str
    organisation: str


class RecordingManifest(ManifestPart):
    """The content of manifest.json.

    from_, to: the span that was asked for, the first included and the second not.  software:
    versions of the programs that wrote the recording.
    """

    format: Literal["testbed-recording"] = FORMAT
    version: Literal[1] = VERSION
    name: str
    description: str
    licence: str
    created: Instant
    creator: RecordingCreator
    software: dict[str, str]
    space: str
    from_: Annotated[Instant, Field(alias="from")]
    to: Instant
    streams: list[RecordedStream]
    gaps: int
    labels: list[LabelSignal]
    splits: list[DataSplit]
    run: RecordedRun | None

    @property
    def source(self) -> str:
        """The origins of the streams' values, such as `live` or `live, simulated`."""
        return ", ".join(sorted({stream.source.value for stream in self.streams}))

    @property
    def rows(self) -> int:
        """The number of rows of all tables."""
        return sum(stream.rows for stream in self.streams)

    def stream(self, address: StreamAddress) -> RecordedStream | None:
        """A stream of the recording, None if it has none of this address."""
        return next((each for each in self.streams if each.address == address), None)

    def label_names(self, address: StreamAddress) -> frozenset[str]:
        """The signals of a stream that are labels."""
        return frozenset(each.signal for each in self.labels if each.stream == str(address))

    def ended_grants(self, now_ns: int) -> list[tuple[str, int]]:
        """Streams that no grant covers any more, with the number of the grant that ended last.

        Judged by the end that each grant had when the stream was recorded: a grant that its owner
        ended since is known to the testbed alone.
        """
        ended: list[tuple[str, int]] = []
        for stream in self.streams:
            ends = [(ns_of(grant.until), grant.id) for grant in stream.grants or () if grant.until]
            if ends and len(ends) == len(stream.grants or ()) and max(ends)[0] <= now_ns:
                ended.append((str(stream.address), max(ends)[1]))
        return ended


def to_json(manifest: RecordingManifest) -> bytes:
    """The content of manifest.json."""
    document = manifest.model_dump(mode="json", by_alias=True)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n"


def from_json(content: bytes) -> RecordingManifest:
    """Read a manifest; raises Corrupt with the field that is wrong, or that it is of a later
    version.
    """
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        raise Corrupt(f"{layout.MANIFEST} is no JSON: {exc}") from exc
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise Corrupt(f"{layout.MANIFEST} is not the manifest of a recording")
    if document.get("version") != VERSION:
        raise Corrupt(
            f"the recording has version {document.get('version')!r}, this program reads {VERSION}",
            hint="use the version of the testbed that wrote it",
        )
    try:
        manifest = RecordingManifest.model_validate(document)
        check(manifest)
    except ValidationError as exc:
        error = exc.errors()[0]
        field = ".".join(map(str, error["loc"]))
        raise Corrupt(f"{layout.MANIFEST}: {field}: {pydantic_checks.sentence(error)}") from exc
    except BedError as exc:
        raise Corrupt(f"{layout.MANIFEST}: {exc.message}") from exc
    return manifest


def check(manifest: RecordingManifest) -> None:
    """Raise a BedError where the parts of a manifest do not fit together."""
    if not manifest.streams:
        raise Corrupt("there is no stream in it")
    for text in (manifest.from_, manifest.to, *(split.to for split in manifest.splits)):
        ns_of(text)
    for stream in manifest.streams:
        spec = stream.stream_spec()
        if stream.file != layout.stream_file(spec.address):
            raise Corrupt(f"{spec.address} is in {stream.file[:80]!r}")
        if tuple(signal.name for signal in stream.signals) != spec.names:
            raise Corrupt(f"the signals of {spec.address} are not those of its spec")
    if len({stream.file for stream in manifest.streams}) != len(manifest.streams):
        raise Corrupt("a stream stands in it twice")
    for label in manifest.labels:
        stream_of_label = manifest.stream(StreamAddress.parse(label.stream))
        if stream_of_label is None:
            raise Corrupt(f"label {label.stream}/{label.signal} is of a stream that is not in it")
        if stream_of_label.stream_spec().signal(label.signal).shape:
            raise Corrupt(f"label {label.stream}/{label.signal} is an array, not one value")
