"""Acts on recordings: have one made on the server, look at it, take it away, delete it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from broker.batch import source_of
from broker.clock import Clock, text_of
from broker.errors import Corrupt, Forbidden, Invalid, Taken, Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.recordings import layout, tar_stream
from broker.recordings.manifest import CoveringGrant, DataSplit, LabelSignal
from broker.recordings.server_states import RecordingState
from broker.rights import Action, Entry, Span
from broker.streams import StreamSpec
from testbed_api.actions import caller as callers
from testbed_api.actions import reading
from testbed_api.actions.caller import Caller
from testbed_api.domain.audit import AuditContext, AuditEntry
from testbed_api.domain.grants import GrantRequest
from testbed_api.domain.recordings import HeldStream, ServerRecording
from testbed_api.limits.quotas import Quotas
from testbed_api.recordings import threads
from testbed_api.recordings.maker import RecordingMaker, RecordingOrder, StreamToRecord
from testbed_api.registry.registry import Registry

if TYPE_CHECKING:
    from broker.recordings.bundle import OpenRecording
    from broker.recordings.checksums import FileDifference

MADE, TAKEN = "recording", "bundle"
"""Ways of a read in the access report: a recording that is made, and one that is taken away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRecording:
    """A recording that is asked for: streams of one space over a span, the end not included.

    labels: signals of these streams that a model shall learn.
    """

    name: str
    note: str
    space: str
    from_ns: int
    to_ns: int
    streams: tuple[StreamAddress, ...]
    labels: tuple[LabelSignal, ...] = ()
    splits: tuple[DataSplit, ...] = ()
    licence: str = ""
    url: str = ""

    @property
    def entries(self) -> list[Entry]:
        """Its streams, in its space."""
        return [Entry(self.space, each) for each in self.streams]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingActions:
    """Has recordings made and hands them out, and writes the audit entry of each act.

    note: counts a read of a stream by a principal, with its way, before it is answered.  Raises
    Unknown for a recording that is not there, or that the caller does not see.
    """

    registry: Registry
    maker: RecordingMaker
    quotas: Quotas
    clock: Clock
    note: Callable[[str, Entry, str], Awaitable[None]]

    async def create(
        self, context: AuditContext, caller: Caller, wanted: WantedRecording
    ) -> ServerRecording:
        """Order a recording of streams that the caller may read; it is made after others.

        Raises what a history of each stream raises, Invalid for a span that ends in the future or
        a label that fits none of the streams, TooMany for a quota, Unavailable on a full disk.
        """
        now_ns = self.clock.now_ns()
        if wanted.to_ns > now_ns:
            raise Invalid(
                f"to = {text_of(wanted.to_ns)} lies in the future",
                hint="only what has been can be recorded; leave `to` out for now",
            )
        await self._must_read(caller, wanted.entries)
        streams = [await self._described(caller, entry) for entry in wanted.entries]
        _check_labels(wanted.labels, [each.spec for each in streams])
        await self._check_limits(caller.organisation)
        for entry in wanted.entries:
            await self.note(caller.id, entry, MADE)
        recording = self._new(caller, wanted, streams)
        context.entry.owner = recording.owners[0]
        context.entry.facts |= _facts(recording)
        async with self.registry.change(context, self.clock) as change:
            number = await change.recordings.add(recording)
        recording = replace(recording, id=number)
        order = RecordingOrder(
            recording=recording,
            streams=streams,
            check_rights=lambda: self._check_rights(caller, wanted.entries),
            context=context,
            labels=wanted.labels,
            splits=wanted.splits,
            licence=wanted.licence,
            url=wanted.url,
        )
        await self.maker.order(order)
        return recording

    async def get(self, caller: Caller, number: int) -> ServerRecording:
        """A recording that the caller sees, in whatever state."""
        recording = await self.registry.recordings.get(number)
        if not self.sees(caller, recording):
            raise Unknown(f"there is no recording {number}")
        return recording

    async def page(
        self, caller: Caller, after: int, limit: int, *, deleted: bool
    ) -> Sequence[ServerRecording]:
        """The recordings that the caller sees among some that concern its organisation."""
        return await self.registry.recordings.page(
            caller.organisation, after, limit, deleted=deleted
        )

    async def refusal(self, caller: Caller, recording: ServerRecording) -> str | None:
        """The reason why the caller may not read a recording now, None if it may."""
        try:
            await self._must_read_recording(caller, recording)
        except Forbidden as exc:
            return exc.message
        return None

    async def manifest(self, recording: ServerRecording) -> str | None:
        """The text of the manifest of a complete recording, None if its files are not here."""
        path = self.maker.shelf.path(recording.id) / layout.MANIFEST
        if recording.state is not RecordingState.COMPLETE:
            return None
        try:
            return (await asyncio.to_thread(path.read_bytes)).decode()
        except (OSError, UnicodeDecodeError):  # `verify` says what is wrong with it
            return None

    async def take(
        self, context: AuditContext, caller: Caller, number: int
    ) -> tuple[ServerRecording, AsyncIterator[bytes]]:
        """A recording, and its files as a tar stream; counted as a read of each stream.

        Raises NotGranted or Paused, with the number of the grant, for a recording under a grant
        that does not count now; Taken while it is being made, Unknown if its files are gone.
        """
        recording = await self.get(caller, number)
        await self._must_read_recording(caller, recording)
        opened = await self._open(recording)
        self.quotas.reading(caller.organisation)
        for entry in recording.entries:
            await self.note(caller.id, entry, TAKEN)
        self.quotas.read(caller.organisation, recording.samples)
        context.entry.owner, *others = recording.owners
        context.entry.facts |= _facts(recording) | {"samples": recording.samples}
        for owner in others:
            theirs = replace(context, entry=AuditEntry(context.entry.facts, owner))
            await self.maker.tell(theirs.event(self.clock.now_ns()))
        return recording, _sent(opened)

    async def verify(self, caller: Caller, number: int) -> tuple[str, "Sequence[FileDifference]"]:
        """The hash of a recording, and the files that are not as they were recorded."""
        from broker.recordings import bundle  # noqa: PLC0415 - loads DuckDB, which others need not

        recording = await self.get(caller, number)
        opened = await self._open(recording)
        differences = await threads.completed(bundle.verify, opened.path)
        return opened.sha256, differences

    async def delete(self, context: AuditContext, caller: Caller, number: int) -> None:
        """Delete a recording for good; what it held stays known.

        Raises Forbidden for a caller who is not its maker and may share neither what its
        organisation has nor a stream that it holds.
        """
        recording = await self.get(caller, number)
        if not self._may_delete(caller, recording):
            raise Forbidden(
                f"{caller.id} may not delete recording {number}",
                hint="its maker may, and owners and engineers of its organisation and of those"
                " whose streams it holds",
            )
        is_theirs = caller.organisation != recording.organisation
        context.entry.owner = recording.organisation if is_theirs else recording.owners[0]
        context.entry.facts |= _facts(recording)
        reason = f"by {caller.id} of {caller.organisation}"
        async with self.registry.change(context, self.clock) as change:
            await change.recordings.delete(
                number, by=caller.id, reason=reason, at_ns=self.clock.now_ns()
            )
        await self.maker.shelf.remove(number)

    # --- rights -----------------------------------------------------------------------------------

    def sees(self, caller: Caller, recording: ServerRecording) -> bool:
        """Whether a recording is of the caller's organisation, or holds a stream of it, and it
        watches over one of these; a machine also if it made it, or may read all of it.
        """
        if caller.organisation not in {recording.organisation, *recording.owners}:
            return False
        entries = list(recording.entries)
        return (
            caller.id == recording.made_by
            or caller.may(Action.WATCH, recording.organisation)
            or any(caller.may(Action.WATCH, entry) for entry in entries)
            or all(caller.may_read(entry.space, entry.address) for entry in entries)
        )

    def _may_delete(self, caller: Caller, recording: ServerRecording) -> bool:
        is_maker = caller.id == recording.made_by
        streams = [each.stream for each in recording.streams]
        return (
            is_maker
            or caller.may(Action.SHARE, recording.organisation)
            or any(caller.may(Action.SHARE, stream) for stream in streams)
        )

    async def _must_read(self, caller: Caller, entries: Iterable[Entry]) -> None:
        for entry in entries:
            await reading.must_read(self.registry, caller, entry.space, entry.address)

    async def _must_read_recording(self, caller: Caller, recording: ServerRecording) -> None:
        """Raise a Forbidden that names the grant, or the stream that the caller may not read."""
        for entry in recording.entries:
            try:
                await reading.must_read(self.registry, caller, entry.space, entry.address)
            except Unknown:
                raise Forbidden(
                    f"recording {recording.id} holds stream {entry.address} in space"
                    f" {entry.space}, which {caller.id} may not read",
                    hint=caller.narrowed or "`testbed whoami` says what you are (GET /me)",
                ) from None

    async def _check_rights(self, caller: Caller, entries: Iterable[Entry]) -> None:
        """Raise a Refused if the caller may not read all of these now."""
        now_ns = self.clock.now_ns()
        again = await callers.find(self.registry, caller.id, caller.token.secret_hash, now_ns)
        if again is None:
            raise Forbidden(
                f"the credential of {caller.id}, with which the recording was asked for, does not"
                " count any more",
                hint="ask for it once more with another one",
            )
        await self._must_read(again, entries)

    # --- what is recorded -------------------------------------------------------------------------

    async def _check_limits(self, organisation: str) -> None:
        """Raise TooMany for a full quota, Unavailable for a full disk or too many that wait."""
        self.quotas.reading(organisation)
        self.quotas.recording(organisation, await self.registry.recordings.used_bytes(organisation))
        self.quotas.ordering(organisation, await self.registry.recordings.being_made(organisation))
        self.maker.check_waiting()
        await asyncio.to_thread(self.maker.shelf.check_room)

    async def _described(self, caller: Caller, entry: Entry) -> StreamToRecord:
        spec = await self.registry.streams.get(entry.address)
        equipment = await self.registry.equipment.get(entry.address.owner)
        grants: list[GrantRequest] = []
        if entry.address.organisation != caller.organisation:
            grants = await self.registry.grants.of_stream(caller.organisation, entry)
        return StreamToRecord(
            spec=spec,
            source=source_of(equipment.kind, entry.space),
            grants=tuple(
                _covering(each, each.grant.span)
                for each in grants
                if each.grant is not None and each.grant.span.covers(caller.at_ns)
            ),
        )

    def _new(
        self, caller: Caller, wanted: WantedRecording, streams: Sequence[StreamToRecord]
    ) -> ServerRecording:
        return ServerRecording(
            name=layout.checked_name(wanted.name),
            note=wanted.note,
            organisation=caller.organisation,
            made_by=caller.id,
            space=wanted.space,
            from_ns=wanted.from_ns,
            to_ns=wanted.to_ns,
            created_ns=self.clock.now_ns(),
            streams=tuple(
                HeldStream(
                    stream=each.spec.address, grants=tuple(grant.id for grant in each.grants)
                )
                for each in streams
            ),
            maker=self.maker.shelf.maker,
        )

    async def _open(self, recording: ServerRecording) -> "OpenRecording":
        """The files of a complete recording; raises Taken, Unknown or Unavailable."""
        from broker.recordings import bundle  # noqa: PLC0415 - loads DuckDB, which others need not

        _must_be_complete(recording)
        path = self.maker.shelf.path(recording.id)
        try:
            return await asyncio.to_thread(bundle.peek, path)
        except Unknown as exc:
            raise Unavailable(
                f"the files of recording {recording.id} are not on this server",
                hint="a backup does not hold them: ask the operator of the testbed where they are",
            ) from exc
        except Invalid as exc:
            message = exc.message.replace(str(path), f"recording {recording.id}")
            raise Corrupt(message) from exc


def _must_be_complete(recording: ServerRecording) -> None:
    """Raise Taken while a recording is being made, Unknown if there is nothing of it."""
    number = recording.id
    match recording.state:
        case RecordingState.COMPLETE:
            return
        case RecordingState.MAKING:
            raise Taken(f"recording {number} is being made", hint="ask again once it is complete")
        case RecordingState.FAILED:
            raise Unknown(f"recording {number} was not made: {recording.reason}")
        case RecordingState.DELETED:
            at = text_of(recording.deleted_ns or 0)
            raise Unknown(f"recording {number} was deleted at {at}: {recording.reason}")


def _check_labels(labels: Iterable[LabelSignal], specs: Sequence[StreamSpec]) -> None:
    """Raise Invalid for a label that is no single value of one of the streams."""
    known = {str(spec.address): spec for spec in specs}
    for label in labels:
        spec = known.get(label.stream)
        if spec is None:
            raise Invalid(
                f"label {label.stream}/{label.signal} is of no stream of the recording",
                hint="name its stream among `streams`",
            )
        if spec.signal(label.signal).shape:
            raise Invalid(
                f"label {label.stream}/{label.signal} is an array",
                hint="a label is one number, truth value or text",
            )


def _covering(grant: GrantRequest, span: Span) -> CoveringGrant:
    return CoveringGrant(
        id=grant.id,
        purpose=grant.purpose,
        decided_by=grant.decided_by,
        from_=text_of(span.from_ns),
        until=None if span.until_ns is None else text_of(span.until_ns),
    )


def _facts(recording: ServerRecording) -> dict[str, Any]:
    """A recording as the audit notes it."""
    facts: dict[str, Any] = {
        "name": recording.name,
        "space": recording.space,
        "from": text_of(recording.from_ns),
        "to": text_of(recording.to_ns),
        "streams": [str(each.stream) for each in recording.streams],
    }
    if recording.id:
        facts |= {"recording": recording.id, "sha256": recording.sha256}
    return facts


async def _sent(recording: "OpenRecording") -> AsyncIterator[bytes]:
    """The tar stream of a recording, until its end or until it is deleted."""
    pieces = tar_stream.pieces(recording)
    try:
        while piece := await threads.completed(_next, pieces):
            if not recording.path.exists():
                raise Forbidden("the recording was deleted while it was being sent")
            yield piece
    except OSError as exc:
        raise Unavailable("the files of the recording cannot be read", hint="ask again") from exc
    finally:
        pieces.close()


def _next(pieces: Any) -> bytes:
    for piece in pieces:
        if piece:  # no padding, where a file fills its last block
            return bytes(piece)
    return b""
