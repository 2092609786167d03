"""Makes recordings of stored samples, some at a time, in the order in which they were asked for.

A recording is read in portions, so that memory does not grow with its span; before each portion
the rights, the quota and the disk are looked at again.  Of one that cannot be finished nothing is
left but its row in the registry, with the reason.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, cast

import structlog

from broker.batch import Long, Source, elements_of
from broker.clock import Clock, ns_of
from broker.errors import BedError, Taken, Unavailable
from broker.recordings.manifest import (
    CoveringGrant,
    DataSplit,
    LabelSignal,
    RecordingCreator,
)
from broker.recordings.server_states import RecordingState
from broker.streams import StreamSpec
from testbed_api.domain.audit import AuditContext, AuditEntry, AuditOutcome
from testbed_api.domain.recordings import HeldStream, ServerRecording
from testbed_api.limits.quotas import Quotas
from testbed_api.recorder.ledger import Ledger
from testbed_api.recordings import threads
from testbed_api.recordings.portions import portions
from testbed_api.recordings.shelf import RecordingShelf
from testbed_api.registry.registry import Registry
from testbed_api.stores.port import SeriesStore, Window

if TYPE_CHECKING:
    from broker.recordings.bundle import RecordingFacts, RecordingWriter

AT_ONCE = 2
"""Recordings that are made at once."""
MEMORY_MIB = 192
"""Memory of DuckDB for each of them; more goes to the disk."""
MOST_WAITING = 100
"""Recordings that wait for their turn; more are refused."""
AGAIN_S = 5.0
"""The pause before a failure is noted again while the registry is away."""
SAMPLES_AT_ONCE = 200_000
"""Samples of a portion, about, an array's elements each one."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamToRecord:
    """A stream of a recording that is to be made; grants: under which it is read."""

    spec: StreamSpec
    source: Source
    grants: tuple[CoveringGrant, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingOrder:
    """A recording that is to be made, with its number.

    labels, splits, licence, url: for its manifest and card.  check_rights: raises a Refused once
    its caller may not read all of it any more.  context: of the request that asked for it.
    """

    recording: ServerRecording
    streams: Sequence[StreamToRecord]
    check_rights: Callable[[], Awaitable[None]]
    context: AuditContext
    labels: tuple[LabelSignal, ...] = ()
    splits: tuple[DataSplit, ...] = ()
    licence: str = ""
    url: str = ""


@dataclass(slots=True, kw_only=True)
class RecordingMaker:
    """Makes the recordings that are ordered, until cancelled.

    registry: makes changes with an audit entry alone.  tell: writes an audit event that belongs to
    no change.
    """

    registry: Registry
    ledger: Ledger
    store: SeriesStore
    shelf: RecordingShelf
    quotas: Quotas
    clock: Clock
    tell: Callable[..., Awaitable[None]]
    samples_at_once: int = SAMPLES_AT_ONCE
    _orders: asyncio.Queue[RecordingOrder] = field(
        default_factory=lambda: asyncio.Queue(MOST_WAITING)
    )
    _turns: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _alone: dict[str, asyncio.Lock] = field(default_factory=dict)

    def check_waiting(self) -> None:
        """Raise Unavailable if too many recordings wait already."""
        if self._orders.full():
            raise Unavailable(
                f"{MOST_WAITING} recordings wait already to be made", hint="ask again later"
            )

    async def order(self, order: RecordingOrder) -> None:
        """Have a recording made after those before it."""
        await self._orders.put(order)

    async def run(self) -> None:
        """Make what is ordered, until cancelled; then what is under way is removed."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                order = await self._orders.get()
                name = f"recording {order.recording.id}"
                tasks.create_task(self._make(order), name=name)

    async def _make(self, order: RecordingOrder) -> None:
        organisation = order.recording.organisation
        own_turn = self._alone.setdefault(organisation, asyncio.Lock())
        async with own_turn, self._turns:  # one of an organisation leaves the other to the others
            try:
                await self._complete(order)
            except BedError as exc:
                await self._fail(order, await asyncio.to_thread(self._reason, exc))

    async def _complete(self, order: RecordingOrder) -> None:
        """Write a recording and note that it is whole, unless it was deleted meanwhile."""
        number = order.recording.id
        recording = await self._written(order)
        size_bytes = await asyncio.to_thread(self.shelf.size, number)
        await self._check_quota(order, size_bytes)
        context = _same_act(order.context)
        async with self.registry.change(context, self.clock) as change:
            is_whole = await change.recordings.complete(
                number,
                sha256=recording.sha256 or "",
                size_bytes=size_bytes,
                streams=recording.streams,
                at_ns=self.clock.now_ns(),
            )
        if not is_whole:
            await self.shelf.remove(number)
            return
        log.info(
            "recording was made",
            recording=number,
            organisation=recording.organisation,
            samples=recording.samples,
            bytes=size_bytes,
            sha256=recording.sha256,
        )
        await self._tell_owners(order, replace(recording, size_bytes=size_bytes))

    async def _tell_owners(self, order: RecordingOrder, recording: ServerRecording) -> None:
        """An event in the audit of each owner, of what was taken of its own."""
        for owner in recording.owners:
            own = [each for each in recording.streams if each.stream.organisation == owner]
            facts: dict[str, object] = {
                "recording": recording.id,
                "sha256": recording.sha256,
                "bytes": recording.size_bytes,
                "streams": [str(each.stream) for each in own],
                "samples": sum(each.samples for each in own),
            }
            await self._event(order, owner, facts)

    def _reason(self, exc: BedError) -> str:
        """The reason of a failure for whoever asked: of a full disk without names of folders."""
        try:
            self.shelf.check_room()
        except Unavailable as full:
            return str(full)
        return str(exc).replace(str(self.shelf.root), "the folder of recordings")

    async def _fail(self, order: RecordingOrder, reason: str) -> None:
        """Remove what there is of a recording and note the reason, once the registry answers."""
        number = order.recording.id
        await self.shelf.remove(number)
        while True:
            try:
                async with self.registry.change(_same_act(order.context), self.clock) as change:
                    await change.recordings.fail(number, reason, self.clock.now_ns())
            except Unavailable as exc:
                log.warning("failure of a recording was not noted yet", reason=str(exc))
                await self.clock.sleep(AGAIN_S)
            else:
                break
        log.warning("recording was not made", recording=number, reason=reason)
        await self._event(order, order.recording.owners[0], {"recording": number}, reason)

    async def _event(
        self, order: RecordingOrder, owner: str, facts: dict[str, object], failure: str = ""
    ) -> None:
        context = replace(
            order.context,
            target=f"recording {order.recording.id}",
            owner=owner,
            entry=AuditEntry(dict(facts)),
        )
        outcome = AuditOutcome.FAILED if failure else AuditOutcome.ALLOWED
        await self.tell(context.event(self.clock.now_ns(), outcome, failure))

    async def _written(self, order: RecordingOrder) -> ServerRecording:
        """Write the files of a recording; the recording with the counts of what it holds."""
        from broker.recordings import bundle  # noqa: PLC0415 - loads DuckDB, which others need not

        await self._check(order)
        path = self.shelf.path(order.recording.id)
        async with threads.entered(bundle.create(path, _facts(order))) as writer:
            for stream in order.streams:
                await self._write_stream(order, writer, stream)
        whole = await asyncio.to_thread(bundle.peek, path)
        grants = {each.stream: each.grants for each in order.recording.streams}
        streams = tuple(
            HeldStream(
                stream=each.address,
                grants=grants[each.address],
                rows=each.rows,
                samples=each.samples,
                first_ns=None if each.first is None else ns_of(each.first),
                last_ns=None if each.last is None else ns_of(each.last),
            )
            for each in whole.manifest.streams
        )
        return replace(order.recording, sha256=whole.sha256, streams=streams)

    async def _write_stream(
        self, order: RecordingOrder, writer: "RecordingWriter", stream: StreamToRecord
    ) -> None:
        spec, recording = stream.spec, order.recording
        span = (recording.from_ns, recording.to_ns)
        gaps = await self.ledger.gaps(recording.space, spec.address, *span)
        table_of = writer.stream(spec, stream.source, grants=stream.grants, gaps=gaps)
        frames = self.store.read(Window(recording.space, spec, spec.names, *span))
        async with (
            threads.entered(table_of) as table,
            aclosing(cast("AsyncGenerator[Long]", frames)) as samples,
        ):
            await threads.completed(table.bound_memory, MEMORY_MIB)
            async for portion in portions(samples, self.samples_at_once):
                await self._check(order)
                self.quotas.read(recording.organisation, elements_of(portion))
                await threads.completed(table.append, dict(portion.series()))
        await self._check(order)

    async def _check(self, order: RecordingOrder) -> None:
        """Raise a BedError if a recording may not be gone on with: rights, quota or disk."""
        await order.check_rights()
        await asyncio.to_thread(self.shelf.check_room)
        number = order.recording.id
        await self._check_quota(order, await asyncio.to_thread(self.shelf.bytes_written, number))
        if (await self.registry.recordings.get(number)).state is not RecordingState.MAKING:
            raise Taken(f"recording {number} was deleted while it was being made")

    async def _check_quota(self, order: RecordingOrder, size_bytes: int) -> None:
        """Raise TooMany if an organisation has more bytes with so many of this recording."""
        organisation = order.recording.organisation
        used = await self.registry.recordings.used_bytes(organisation)
        self.quotas.recording(organisation, used + size_bytes)


def _facts(order: RecordingOrder) -> "RecordingFacts":
    """The facts of a recording for its manifest."""
    from broker.recordings import bundle  # noqa: PLC0415 - loads DuckDB, which others need not

    recording = order.recording
    return bundle.RecordingFacts(
        name=recording.name,
        space=recording.space,
        from_ns=recording.from_ns,
        to_ns=recording.to_ns,
        created_ns=recording.created_ns,
        creator=RecordingCreator(principal=recording.made_by, organisation=recording.organisation),
        software={
            "connected-testbed": version("connected-testbed"),
            "duckdb": version("duckdb"),
        },
        description=recording.note,
        licence=order.licence or bundle.RESTRICTED,
        url=order.url,
        labels=order.labels,
        splits=order.splits,
    )


def _same_act(context: AuditContext) -> AuditContext:
    """The context of a change that an act makes later, whose own entry is in the chain already."""
    return replace(context, entry=AuditEntry(is_written=True))
