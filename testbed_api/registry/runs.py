"""The registry's runs: records that organisations handed over, and that never change."""

import zlib
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, func, insert, select

from broker.errors import Unknown
from testbed_api.domain.runs import HandedRun, RunContent, RunFilter
from testbed_api.registry import tables
from testbed_api.registry.base import Repository

_SUMMARY = tuple(
    column for column in tables.runs.c if column.name not in {"record", "report", "bytes"}
)


class RunRepository(Repository):
    """Runs by number; each is stored once, with its record and its report compressed."""

    async def add(self, run: HandedRun, content: RunContent) -> int:
        """Store a run, and return its number.

        The same record of the same organisation is the run that is there already.
        """
        table = tables.runs
        record = zlib.compress(content.record)
        report = None if content.report is None else zlib.compress(content.report.encode())
        row = {name: getattr(run, name) for name in (c.name for c in _SUMMARY) if name != "id"}
        async with self._session.transaction(write=True) as sql:
            same = select(table.c.id).filter_by(organisation=run.organisation, sha256=run.sha256)
            number = (await sql.execute(same)).scalar_one_or_none()
            if number is None:
                size = len(record) + len(report or b"")
                content_row = {"record": record, "report": report, "bytes": size}
                result = await sql.execute(insert(table).values(**row, **content_row))
                (number,) = result.inserted_primary_key or (0,)
                rows = [{"run": number, "digest": each} for each in sorted(content.digests)]
                if rows:
                    await sql.execute(insert(tables.run_images), rows)
            self._session.note(run=number, scenario=run.scenario, record_sha256=run.sha256)
        return int(number)

    async def get(self, number: int) -> HandedRun:
        """The run of this number; raises Unknown."""
        for row in await self._session.rows(select(*_SUMMARY).where(tables.runs.c.id == number)):
            return _run_of(row)
        raise Unknown(f"there is no run {number}")

    async def record(self, number: int) -> bytes:
        """The record of a run as canonical JSON; raises Unknown."""
        packed = await self._content(number, tables.runs.c.record)
        if packed is None:
            raise Unknown(f"there is no run {number}")
        return zlib.decompress(packed)

    async def report(self, number: int) -> str | None:
        """The report of a run, None if it has none or there is no such run."""
        packed = await self._content(number, tables.runs.c.report)
        return None if packed is None else zlib.decompress(packed).decode()

    async def page(self, wanted: RunFilter, before: int | None, limit: int) -> list[HandedRun]:
        """Runs of an organisation, the newest first.

        before: number that all of them are below, None for the newest.
        """
        table = tables.runs
        conditions: list[ColumnElement[bool]] = [table.c.organisation == wanted.organisation]
        if wanted.scenario is not None:
            conditions.append(table.c.scenario == wanted.scenario)
        if wanted.passed is not None:
            conditions.append(table.c.passed.is_(wanted.passed))
        if wanted.since_ns is not None:
            conditions.append(table.c.began_ns >= wanted.since_ns)
        if before is not None:
            conditions.append(table.c.id < before)
        query = select(*_SUMMARY).where(*conditions).order_by(table.c.id.desc()).limit(limit)
        return [_run_of(row) for row in await self._session.rows(query)]

    async def newest_passed(self, organisation: str, digest: str) -> HandedRun | None:
        """The newest run of an organisation that passed and tried an image, None without one."""
        table, images = tables.runs, tables.run_images
        query = (
            select(*_SUMMARY)
            .join(images, images.c.run == table.c.id)
            .where(
                table.c.organisation == organisation,
                table.c.passed.is_(True),
                images.c.digest == digest,
            )
            .order_by(table.c.id.desc())
            .limit(1)
        )
        rows = await self._session.rows(query)
        return _run_of(rows[0]) if rows else None

    async def delete(self, run: HandedRun) -> None:
        """Delete a run with its record and report; the audit keeps the record's SHA-256."""
        async with self._session.transaction(write=True) as sql:
            await sql.execute(delete(tables.run_images).filter_by(run=run.id))
            await sql.execute(delete(tables.runs).where(tables.runs.c.id == run.id))
            self._session.note(run=run.id, scenario=run.scenario, record_sha256=run.sha256)

    async def stored_bytes(self, organisation: str) -> int:
        """The bytes that the runs of an organisation take, compressed."""
        total = func.coalesce(func.sum(tables.runs.c.bytes), 0)
        (row,) = await self._session.rows(select(total).filter_by(organisation=organisation))
        return int(row[0])

    async def _content(self, number: int, column: ColumnElement[Any]) -> bytes | None:
        rows = await self._session.rows(select(column).where(tables.runs.c.id == number))
        return rows[0][0] if rows else None


def _run_of(row: Row[Any]) -> HandedRun:
    return HandedRun(**{column.name: getattr(row, column.name) for column in _SUMMARY})
