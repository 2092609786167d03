"""The registry's recordings: who took which streams over which span, and what became of it."""

from collections.abc import Collection, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, and_, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broker.errors import Unknown
from broker.namespace import EquipmentAddress, StreamAddress
from broker.recordings.server_states import RecordingState
from broker.rights import Entry
from testbed_api.domain.recordings import HeldStream, ServerRecording
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

_TABLE, _STREAMS = tables.recordings, tables.recording_streams
_PRESENT = (RecordingState.MAKING, RecordingState.COMPLETE)
_MOST_REASON = 400


class RecordingRepository(Repository):
    """Recordings; none is ever removed, so that it stays known who took what."""

    async def add(self, recording: ServerRecording) -> int:
        """Insert a recording that is about to be made; returns its number."""
        row = {
            "name": recording.name,
            "note": recording.note,
            "organisation": recording.organisation,
            "made_by": recording.made_by,
            "maker": recording.maker,
            "space": recording.space,
            "from_ns": recording.from_ns,
            "to_ns": recording.to_ns,
            "state": recording.state,
            "reason": recording.reason,
            "created_ns": recording.created_ns,
            "size_bytes": recording.size_bytes,
        }
        async with self._session.transaction(write=True) as sql:
            inserted = insert(_TABLE).values(**row).returning(_TABLE.c.id)
            number = int((await sql.execute(inserted)).scalar_one())
            streams = [
                _stream_row(number, place, each) for place, each in enumerate(recording.streams)
            ]
            await sql.execute(insert(_STREAMS), streams)
        self._session.note(recording=number)
        return number

    async def get(self, number: int) -> ServerRecording:
        """A recording by its number; raises Unknown."""
        recordings = await self._select(_TABLE.c.id == number)
        if not recordings:
            raise Unknown(f"there is no recording {number}")
        return recordings[0]

    async def page(
        self, organisation: str, after: int, limit: int, *, deleted: bool
    ) -> Sequence[ServerRecording]:
        """The recordings of an organisation and those that hold streams of it, by number.

        deleted: also those whose files are gone.
        """
        theirs = select(_STREAMS.c.recording).where(
            _STREAMS.c.stream.startswith(f"{organisation}/", autoescape=True)
        )
        concerns = or_(_TABLE.c.organisation == organisation, _TABLE.c.id.in_(theirs))
        wanted = [concerns, _TABLE.c.id > after]
        if not deleted:
            wanted.append(_TABLE.c.state != RecordingState.DELETED)
        return await self._select(and_(*wanted), limit)

    async def in_state(self, *states: RecordingState) -> Sequence[ServerRecording]:
        """All recordings that are in one of these states, by number."""
        return await self._select(_TABLE.c.state.in_(states))

    async def used_bytes(self, organisation: str) -> int:
        """The bytes of the complete recordings of an organisation."""
        query = select(func.sum(_TABLE.c.size_bytes)).where(
            _TABLE.c.organisation == organisation, _TABLE.c.state == RecordingState.COMPLETE
        )
        return int((await self._session.rows(query))[0][0] or 0)

    async def being_made(self, organisation: str) -> int:
        """The number of recordings of an organisation that are being made or wait for that."""
        query = select(func.count()).where(
            _TABLE.c.organisation == organisation, _TABLE.c.state == RecordingState.MAKING
        )
        return int((await self._session.rows(query))[0][0])

    async def holding(
        self, entry: Entry, from_ns: int, to_ns: int, *, others: bool = False
    ) -> Sequence[ServerRecording]:
        """The recordings that hold samples of a stream from `from_ns` to before `to_ns`.

        One that is being made counts with its whole span.  others: only those of other
        organisations than the stream's.
        """
        holders = select(_STREAMS.c.recording).where(_STREAMS.c.stream == str(entry.address))
        samples = (_STREAMS.c.first_ns < to_ns, _STREAMS.c.last_ns >= from_ns)
        is_making = and_(
            _TABLE.c.state == RecordingState.MAKING,
            _TABLE.c.from_ns < to_ns,
            _TABLE.c.to_ns > from_ns,
            _TABLE.c.id.in_(holders),
        )
        is_complete = and_(
            _TABLE.c.state == RecordingState.COMPLETE, _TABLE.c.id.in_(holders.where(*samples))
        )
        wanted = [_TABLE.c.space == entry.space, or_(is_making, is_complete)]
        if others:
            wanted.append(_TABLE.c.organisation != entry.address.organisation)
        return await self._select(and_(*wanted))

    async def of_equipment(
        self, equipment: EquipmentAddress, from_ns: int, to_ns: int
    ) -> Sequence[ServerRecording]:
        """The recordings with streams of an equipment that were there at any moment of a span."""
        holders = select(_STREAMS.c.recording).where(
            _STREAMS.c.stream.startswith(f"{equipment}/", autoescape=True)
        )
        is_there = or_(_TABLE.c.deleted_ns.is_(None), _TABLE.c.deleted_ns > from_ns)
        wanted = (_TABLE.c.id.in_(holders), _TABLE.c.created_ns < to_ns, is_there)
        return await self._select(and_(*wanted))

    async def complete(
        self,
        number: int,
        *,
        sha256: str,
        size_bytes: int,
        streams: Sequence[HeldStream],
        at_ns: int,
    ) -> bool:
        """Note that a recording is whole; False if it is not being made any more."""
        values = {"sha256": sha256, "size_bytes": size_bytes, "done_ns": at_ns}
        async with self._session.transaction(write=True) as sql:
            making = [RecordingState.MAKING]
            if not await _change(sql, number, making, state=RecordingState.COMPLETE, **values):
                return False
            for each in streams:
                key = {"recording": number, "stream": str(each.stream)}
                counts: dict[str, Any] = {"rows": each.rows, "samples": each.samples}
                counts |= {"first_ns": each.first_ns, "last_ns": each.last_ns}
                await sql.execute(update(_STREAMS).filter_by(**key).values(**counts))
        return True

    async def fail(self, number: int, reason: str, at_ns: int) -> bool:
        """Note that a recording could not be made; False if it was not being made any more."""
        values = {"reason": reason[:_MOST_REASON], "done_ns": at_ns}
        async with self._session.transaction(write=True) as sql:
            making = [RecordingState.MAKING]
            return await _change(sql, number, making, state=RecordingState.FAILED, **values)

    async def delete(self, number: int, *, by: str | None, reason: str, at_ns: int) -> bool:
        """Note that a recording is deleted; False if it was before."""
        values = {"deleted_by": by, "reason": reason[:_MOST_REASON], "deleted_ns": at_ns}
        present = [*_PRESENT, RecordingState.FAILED]
        async with self._session.transaction(write=True) as sql:
            return await _change(sql, number, present, state=RecordingState.DELETED, **values)

    async def _select(self, wanted: Any, limit: int | None = None) -> Sequence[ServerRecording]:
        query = select(_TABLE).where(wanted).order_by(_TABLE.c.id).limit(limit)
        async with self._session.transaction() as sql:
            rows = (await sql.execute(query)).all()
            streams = await _streams_of(sql, [row.id for row in rows])
        return [_recording_from_row(row, streams[row.id]) for row in rows]


async def _change(
    sql: AsyncConnection, number: int, states: Collection[RecordingState], **values: Any
) -> bool:
    """Change a recording that is in one of these states; whether it was."""
    mine = update(_TABLE).where(_TABLE.c.id == number, _TABLE.c.state.in_(states))
    return bool((await sql.execute(mine.values(**values))).rowcount)


async def _streams_of(sql: AsyncConnection, numbers: Sequence[int]) -> dict[int, list[HeldStream]]:
    """The streams of recordings, in the order in which they were named."""
    streams: dict[int, list[HeldStream]] = {number: [] for number in numbers}
    for at in range(0, len(numbers), 500):
        here = _STREAMS.c.recording.in_(numbers[at : at + 500])
        query = select(_STREAMS).where(here).order_by(_STREAMS.c.recording, _STREAMS.c.place)
        for row in await sql.execute(query):
            held = HeldStream(
                stream=StreamAddress.parse(row.stream),
                grants=tuple(orjson.loads(row.grants)),
                rows=row.rows,
                samples=row.samples,
                first_ns=row.first_ns,
                last_ns=row.last_ns,
            )
            streams[row.recording].append(held)
    return streams


def _stream_row(number: int, place: int, stream: HeldStream) -> dict[str, Any]:
    return {
        "recording": number,
        "stream": str(stream.stream),
        "place": place,
        "grants": orjson.dumps(stream.grants).decode(),
        "rows": stream.rows,
        "samples": stream.samples,
    }


def _recording_from_row(row: Row[Any], streams: Sequence[HeldStream]) -> ServerRecording:
    return ServerRecording(
        id=row.id,
        name=row.name,
        note=row.note,
        organisation=row.organisation,
        made_by=row.made_by,
        maker=row.maker,
        space=row.space,
        from_ns=row.from_ns,
        to_ns=row.to_ns,
        created_ns=row.created_ns,
        streams=tuple(streams),
        state=RecordingState(row.state),
        reason=row.reason,
        done_ns=row.done_ns,
        sha256=row.sha256,
        size_bytes=row.size_bytes,
        deleted_ns=row.deleted_ns,
        deleted_by=row.deleted_by,
    )
