"""Make a recording: read streams through the API, as any reader does, into an immutable folder."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

from broker import api_client
from broker.batch import Gap, Source, source_of
from broker.clock import NS_PER_S, Clock, ns_of, text_of
from broker.errors import Forbidden, Invalid, Unavailable
from broker.history_query import HistoryQuery
from broker.namespace import LIVE, StreamAddress, checked_space
from broker.recordings import bundle, layout, splits
from broker.recordings.bundle import OpenRecording, RecordingFacts, RecordingWriter
from broker.recordings.manifest import CoveringGrant, DataSplit, LabelSignal, RecordingCreator
from broker.responses.credentials import MeResponse
from broker.responses.equipment import EquipmentResponse
from broker.responses.grants import GrantPage, GrantResponse
from broker.responses.streams import GapPage
from broker.rights import GrantState
from broker.streams import StreamSpec
from testbed.client import api, history
from testbed.terminal.screen import announce
from testbed_sdk import History
from testbed_sdk import history as sdk_history

TIMEOUT_S = 60.0
SAMPLES_AT_ONCE = 200_000
"""Samples of one request, about, an array's elements each one: bounds the memory, whatever the
span."""
FIRST_WINDOW_NS = 60 * NS_PER_S
LEAST_WINDOW_NS = NS_PER_S // 1_000
MOST_GROWTH = 8
"""Most times that a request's window is as wide as the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRequest:
    """Streams and span of a recording to make.

    labels: signals, as organisation/equipment/stream/signal; their streams are recorded too.
    licence, url: for the card.
    """

    streams: tuple[StreamAddress, ...]
    labels: tuple[LabelSignal, ...]
    space: str
    from_ns: int
    to_ns: int
    splits: tuple[DataSplit, ...]
    description: str
    licence: str
    url: str

    def facts(self, name: str, me: MeResponse, created_ns: int) -> RecordingFacts:
        """The facts of the recording."""
        return RecordingFacts(
            name=name,
            space=self.space,
            from_ns=self.from_ns,
            to_ns=self.to_ns,
            created_ns=created_ns,
            creator=RecordingCreator(principal=me.principal, organisation=me.organisation),
            software={
                "connected-testbed": version("connected-testbed"),
                "duckdb": version("duckdb"),
            },
            description=self.description,
            licence=self.licence,
            url=self.url,
            labels=self.labels,
            splits=self.splits,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingOptions:
    """A recording to make as options name it, as text.

    begin, end: instants; an hour up to now by default.
    """

    streams: Sequence[str]
    labels: Sequence[str] = ()
    space: str = LIVE
    begin: str | None = None
    end: str | None = None
    split: str | None = None
    description: str = ""
    licence: str = ""
    url: str = ""

    def instants(self) -> dict[str, str]:
        """The ends that are given, for the API: the server has its own now for one that is not."""
        ends = {"from": self.begin, "to": self.end}
        return {name: text_of(ns_of(text)) for name, text in ends.items() if text is not None}

    def checked(self, clock: Clock) -> RecordingRequest:
        """The request that the options are; raises Invalid."""
        from_ns, to_ns = history.ends(clock, self.begin, self.end)
        if from_ns >= to_ns:
            raise Invalid("the span has no length", hint="--from is before --to")
        labels = tuple(map(_label, self.labels))
        named = [*map(StreamAddress.parse, self.streams)]
        named += [StreamAddress.parse(label.stream) for label in labels]
        if not named:
            raise Invalid("no stream is named", hint="--stream organisation/equipment/stream")
        parts = () if self.split is None else splits.parse(self.split, from_ns, to_ns)
        return RecordingRequest(
            streams=tuple(dict.fromkeys(named)),
            labels=labels,
            space=checked_space(self.space),
            from_ns=from_ns,
            to_ns=to_ns,
            splits=parts,
            description=self.description,
            licence=self.licence or bundle.RESTRICTED,
            url=self.url,
        )


def _label(text: str) -> LabelSignal:
    """A label that an option names; raises Invalid."""
    stream, slash, signal = text.rpartition("/")
    if not slash or not signal:
        raise Invalid(
            f"label {text[:130]!r} is no signal",
            hint="write organisation/equipment/stream/signal",
        )
    return LabelSignal(stream=str(StreamAddress.parse(stream)), signal=signal)


async def create(path: Path, options: RecordingOptions, clock: Clock) -> OpenRecording:
    """Make a recording as the person or machine of the environment; see `record`."""
    layout.checked_name(path.name)
    wanted = options.checked(clock)
    async with api.connect(TIMEOUT_S) as connection:
        return await record(connection, path, wanted, clock)


async def record(
    connection: api_client.Api, path: Path, wanted: RecordingRequest, clock: Clock
) -> OpenRecording:
    """Read the streams and write the recording; nothing is left of one that is not whole.

    Raises Taken, Unavailable, and what the API answers: a stream that the caller may not read is
    refused as by `testbed history`.
    """
    me = await connection.get("/me", MeResponse)
    query = HistoryQuery(wanted.space, wanted.from_ns, wanted.to_ns, is_recording=True)
    streams = [await _described(connection, address, query) for address in wanted.streams]
    specs = {stream.spec.address: stream.spec for stream in streams}
    for label in wanted.labels:
        if specs[StreamAddress.parse(label.stream)].signal(label.signal).shape:
            raise Invalid(
                f"label {label.stream}/{label.signal} is an array",
                hint="a label is one number, truth value or text; record the stream with --stream",
            )
    now_ns = clock.now_ns()
    grants = await _grants(connection, me, wanted, now_ns)
    with bundle.create(path, wanted.facts(path.name, me, now_ns)) as writer:
        for stream in streams:
            announce(f"reading {stream.spec.address}")
            own = None if grants is None else grants.get(stream.spec.address, [])
            await _record(connection, writer, stream, query, own)
    return bundle.peek(path)


@dataclass(frozen=True, slots=True)
class _DescribedStream:
    """A stream that is about to be read, with its gaps in the span."""

    spec: StreamSpec
    source: Source
    gaps: tuple[Gap, ...]


async def _described(
    connection: api_client.Api, address: StreamAddress, query: HistoryQuery
) -> _DescribedStream:
    """The spec, source and gaps of a stream.

    The gaps come first: that answer says why a stream may not be read, such as an ended grant.
    """
    page = await connection.whole(f"/streams/{address}/gaps", GapPage, query.span_params())
    equipment = await connection.get(f"/equipment/{address.owner}", EquipmentResponse)
    spec = await connection.spec(address)
    gaps = tuple(each.gap() for each in page.items)
    return _DescribedStream(spec, source_of(equipment.kind, query.space), gaps)


async def _record(
    connection: api_client.Api,
    writer: RecordingWriter,
    stream: _DescribedStream,
    query: HistoryQuery,
    grants: list[CoveringGrant] | None,
) -> None:
    """Read the samples of one stream into the recording."""
    spec = stream.spec
    with writer.stream(spec, stream.source, grants=grants, gaps=stream.gaps) as table:
        async for fetched in windows(connection, spec.address, query):
            if fetched.spec.version != spec.version:
                raise Unavailable(
                    f"the spec of {spec.address} changed while it was read", hint="record it again"
                )
            table.append(fetched.series)


async def windows(
    connection: api_client.Api, address: StreamAddress, query: HistoryQuery
) -> AsyncIterator[History]:
    """Yield a history in pieces, one after another, of about SAMPLES_AT_ONCE each."""
    begin_ns, width_ns = query.from_ns, FIRST_WINDOW_NS
    while begin_ns < query.to_ns:
        end_ns = min(begin_ns + width_ns, query.to_ns)
        piece = replace(query, from_ns=begin_ns, to_ns=end_ns)
        fetched = await sdk_history.fetch(connection, address, piece)
        yield fetched
        begin_ns = end_ns
        samples = sum(series.values.size for series in fetched.series.values())
        growth = min(MOST_GROWTH, SAMPLES_AT_ONCE / max(samples, 1))
        width_ns = max(LEAST_WINDOW_NS, round(width_ns * growth))


async def _grants(
    connection: api_client.Api, me: MeResponse, wanted: RecordingRequest, now_ns: int
) -> Mapping[StreamAddress, list[CoveringGrant]] | None:
    """The grants under which each stream of another organisation is read now.

    None where the caller may not list its organisation's grants, as a machine may not.
    """
    others = [each for each in wanted.streams if each.organisation != me.organisation]
    if not others:
        return {}
    try:
        page = await connection.whole("/grants", GrantPage)
    except Forbidden:
        return None
    covering: dict[StreamAddress, list[CoveringGrant]] = {}
    for grant in page.items:
        if (grant.company, grant.space) == (me.organisation, wanted.space) and _counts(
            grant, now_ns
        ):
            covering.setdefault(StreamAddress.parse(grant.stream), []).append(_covering(grant))
    return covering


def _counts(grant: GrantResponse, now_ns: int) -> bool:
    """Whether a grant is given, not paused, and not over."""
    is_given = grant.state is GrantState.GRANTED and not grant.paused and grant.from_ is not None
    return is_given and (grant.until is None or ns_of(grant.until) > now_ns)


def _covering(grant: GrantResponse) -> CoveringGrant:
    return CoveringGrant(
        id=grant.id,
        purpose=grant.purpose,
        decided_by=grant.decided_by,
        from_=grant.from_,
        until=grant.until,
    )
