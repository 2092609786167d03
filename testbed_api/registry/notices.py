"""The registry's queue of notices: what waits for its delivery, over restarts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Row, delete, func, insert, select, update

from testbed_api.domain.notices import Channel, QueuedNotice
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

MOST_WAITING = 10_000
"""Notices that wait; beyond them no new ones are queued, and the audit entry of the act says so."""
AT_ONCE = 20
MOST_REASON = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelBacklog:
    """The notices that wait on a channel.  reason: why the last failed attempt failed, or empty."""

    channel: Channel
    waiting: int
    failed: int
    oldest_ns: int
    reason: str


class NoticeRepository(Repository):
    """Notices in the order of their making; one that is delivered or given up is removed."""

    async def add(self, notices: Sequence[QueuedNotice]) -> None:
        """Queue notices in the transaction of the change that they are about."""
        if not notices:
            return
        table = tables.notices
        async with self._session.transaction(write=True) as sql:
            waiting = (await sql.execute(select(func.count()).select_from(table))).scalar_one()
            queued = notices[: max(0, MOST_WAITING - waiting)]
            if queued:
                await sql.execute(insert(table), list(map(_row_of, queued)))
            if len(queued) < len(notices):
                self._session.note(notices_left_out=len(notices) - len(queued))

    async def claim(self, now_ns: int, until_ns: int) -> list[QueuedNotice]:
        """Some that are due, the oldest first; nobody else gets them before `until_ns`."""
        table = tables.notices
        due = select(table).where(table.c.next_ns <= now_ns).order_by(table.c.id).limit(AT_ONCE)
        if not await self._session.rows(due):  # no lock where nothing waits
            return []
        async with self._session.separate_transaction() as sql:
            rows = (await sql.execute(due)).all()
            claimed = update(table).where(table.c.id.in_([row.id for row in rows]))
            await sql.execute(claimed.values(next_ns=until_ns))
        return [_queued(row) for row in rows]

    async def remove(self, notice: QueuedNotice) -> None:
        """Forget a notice that is delivered or given up."""
        async with self._session.separate_transaction() as sql:
            await sql.execute(delete(tables.notices).filter_by(id=notice.id))

    async def put_off(self, notice: QueuedNotice, next_ns: int, reason: str) -> None:
        """Count a failed attempt; the next is not before `next_ns`."""
        row = {"attempts": notice.attempts + 1, "next_ns": next_ns, "reason": reason[:MOST_REASON]}
        async with self._session.separate_transaction() as sql:
            await sql.execute(update(tables.notices).filter_by(id=notice.id).values(**row))

    async def backlog(self) -> list[ChannelBacklog]:
        """The backlog of each channel on which something waits."""
        table = tables.notices
        failed = func.count().filter(table.c.attempts > 0)
        query = select(
            table.c.channel,
            func.count().label("waiting"),
            failed.label("failed"),
            func.min(table.c.queued_ns).label("oldest_ns"),
            func.max(table.c.reason).label("reason"),
        ).group_by(table.c.channel)
        return [
            ChannelBacklog(
                channel=Channel(row.channel),
                waiting=row.waiting,
                failed=row.failed,
                oldest_ns=row.oldest_ns,
                reason=row.reason,
            )
            for row in await self._session.rows(query.order_by(table.c.channel))
        ]


def _row_of(notice: QueuedNotice) -> dict[str, Any]:
    return {
        "channel": notice.channel,
        "organisation": notice.organisation,
        "person": notice.person,
        "content": orjson.dumps(dict(notice.content)).decode(),
        "queued_ns": notice.queued_ns,
        "attempts": notice.attempts,
        "next_ns": notice.queued_ns,
        "reason": "",
    }


def _queued(row: Row[Any]) -> QueuedNotice:
    return QueuedNotice(
        channel=Channel(row.channel),
        organisation=row.organisation,
        person=row.person,
        content=orjson.loads(row.content),
        queued_ns=row.queued_ns,
        id=row.id,
        attempts=row.attempts,
    )
