"""The registry's logs of deployments: lines in chunks, the oldest of which go when it is full."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from testbed_api.domain.deployments import PrintedLine
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

_TABLE = tables.log_chunks
MOST_CHUNK = 32 * 1024
"""Bytes of a chunk, at most; a single line is always whole."""
_CHUNKS_OF_A_LOG = 8
"""A small log has chunks of such a part of it, so that little goes with the oldest."""


class DeploymentLogRepository(Repository):
    """The newest lines of each deployment, as many as its manifest keeps."""

    async def add(self, deployment: int, lines: Sequence[PrintedLine], most_bytes: int) -> None:
        """Store further lines, in their order; the oldest chunks beyond `most_bytes` are deleted.

        Lines that are stored already are skipped.
        """
        most_chunk = min(MOST_CHUNK, most_bytes // _CHUNKS_OF_A_LOG)
        async with self._session.transaction(write=True) as sql:
            newest = await _newest(sql, deployment)
            last = 0 if newest is None else int(newest.last)
            rows = [(line.number, _packed(line)) for line in lines if line.number > last]
            if not rows:
                return
            for chunk in _chunks(rows, most_chunk, newest):
                await _store(sql, deployment, chunk)
            await _cut(sql, deployment, most_bytes)

    async def page(self, deployment: int, after: int, limit: int) -> list[PrintedLine]:
        """The lines after a number, in their order; the first one may have a greater number."""
        lines: list[PrintedLine] = []
        while len(lines) < limit:
            query = (
                select(_TABLE.c.lines)
                .where(_TABLE.c.deployment == deployment, _TABLE.c.last > after)
                .order_by(_TABLE.c.first)
                .limit(1)
            )
            rows = await self._session.rows(query)
            if not rows:
                break
            lines += [line for line in _lines_in(rows[0].lines) if line.number > after]
            after = lines[-1].number
        return lines[:limit]

    async def newest(self, deployment: int, limit: int) -> list[PrintedLine]:
        """The last lines, in their order."""
        lines: list[PrintedLine] = []
        query = select(_TABLE.c.first, _TABLE.c.lines).filter_by(deployment=deployment)
        query = query.order_by(_TABLE.c.first.desc()).limit(1)
        rows = await self._session.rows(query)
        while rows and len(lines) < limit:
            lines = [*_lines_in(rows[0].lines), *lines]
            rows = await self._session.rows(query.where(_TABLE.c.first < rows[0].first))
        return lines[-limit:]


@dataclass(slots=True)
class _Chunk:
    """Lines that become a row, or go on with one."""

    first: int
    last: int
    packed: bytes
    is_new: bool = True


def _chunks(rows: Sequence[tuple[int, bytes]], most: int, newest: Any | None) -> Iterator[_Chunk]:
    """Cut packed lines into chunks; the first goes on with the newest row while it has room."""
    chunk: _Chunk | None = None
    if newest is not None:
        chunk = _Chunk(int(newest.first), int(newest.last), newest.lines, is_new=False)
    for number, packed in rows:
        if chunk is None or len(chunk.packed) + len(packed) > most:
            if chunk is not None:
                yield chunk
            chunk = _Chunk(number, number, packed)
        else:
            chunk.packed += packed
            chunk.last = number
    if chunk is not None:
        yield chunk


async def _newest(sql: AsyncConnection, deployment: int) -> Any | None:
    query = select(_TABLE).filter_by(deployment=deployment).order_by(_TABLE.c.first.desc())
    return (await sql.execute(query.limit(1))).first()


async def _store(sql: AsyncConnection, deployment: int, chunk: _Chunk) -> None:
    key = {"deployment": deployment, "first": chunk.first}
    row = {"last": chunk.last, "lines": chunk.packed, "bytes": len(chunk.packed)}
    if chunk.is_new:
        await sql.execute(insert(_TABLE).values(**key, **row))
    else:
        await sql.execute(update(_TABLE).filter_by(**key).values(**row))


async def _cut(sql: AsyncConnection, deployment: int, most_bytes: int) -> None:
    """Delete the oldest chunks of a log that is too great; the newest one stays."""
    total = select(func.sum(_TABLE.c.bytes)).filter_by(deployment=deployment)
    excess = int((await sql.execute(total)).scalar() or 0) - most_bytes
    if excess <= 0:
        return
    query = select(_TABLE.c.first, _TABLE.c.bytes).filter_by(deployment=deployment)
    for row in (await sql.execute(query.order_by(_TABLE.c.first))).all()[:-1]:
        if excess <= 0:
            break
        await sql.execute(delete(_TABLE).filter_by(deployment=deployment, first=row.first))
        excess -= int(row.bytes)


def _packed(line: PrintedLine) -> bytes:
    return orjson.dumps([line.number, line.at_ns, line.text]) + b"\n"


def _lines_in(packed: bytes) -> list[PrintedLine]:
    return [PrintedLine(*orjson.loads(line)) for line in packed.splitlines()]
