"""Formats history as JSON or CSV, frame by frame.

A frame of 10,000 samples takes milliseconds to write, so it is written on a thread.
"""

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import orjson

from broker import codec
from broker.aggregation import Aggregation
from broker.batch import BAD, Gap, Long, elements_of
from broker.clock import text_of
from testbed_api.limits.quotas import Quotas
from testbed_api.stores.port import Window

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMeter:
    """Counts samples as read by an organisation, for its quota and for the audit.

    facts: of the audit entry of the request.
    """

    organisation: str
    quotas: Quotas
    facts: dict[str, Any]

    def count(self, samples: int, values: int) -> None:
        """Add samples that are about to be sent.  values: for the quota, with each element."""
        self.quotas.read(self.organisation, values)
        self.facts["samples"] = self.facts.get("samples", 0) + samples


async def counted(frames: AsyncIterator[Long], meter: ReadMeter) -> AsyncIterator[Long]:
    """Yield frames unchanged, and count each before it is sent."""
    meter.count(0, 0)
    async with aclosing(cast("AsyncGenerator[Long]", frames)):
        async for frame in frames:
            meter.count(len(frame), elements_of(frame))
            yield frame


async def as_json(
    window: Window,
    frames: AsyncIterator[Long],
    gaps: Sequence[Gap],
    aggregation: Aggregation | None = None,
) -> AsyncIterator[bytes]:
    """Yield a history as one JSON object, in chunks; the first chunk holds the first frame.

    aggregation: of the samples, None if they are as they were stored.
    """
    head: dict[str, Any] = {
        "stream": str(window.spec.address),
        "space": window.space,
        "spec": window.spec.version,
    }
    if aggregation is not None:
        head |= {"every": aggregation.every, "how": aggregation.how}
    text = codec.dumps(head)[:-1] + b',"frames":['
    between = b""
    async with aclosing(cast("AsyncGenerator[Long]", frames)):
        async for frame in frames:
            yield text + between + await asyncio.to_thread(_frame, frame)
            text, between = b"", b","
    yield text + b'],"gaps":' + codec.dumps([codec.gap_to_json(gap) for gap in gaps]) + b"}"


async def as_csv(window: Window, frames: AsyncIterator[Long]) -> AsyncIterator[bytes]:
    """Yield a history as CSV: a row per time stamp, a column per signal, empty without a value.

    An array is a JSON list in one cell.
    """
    table = _CsvTable(window)
    async with aclosing(cast("AsyncGenerator[Long]", frames)):
        async for frame in frames:
            await asyncio.to_thread(table.add, frame)
            if text := table.taken():
                yield text
    table.end_row()
    yield table.taken()


def _frame(frame: Long) -> bytes:
    return codec.dumps(codec.frame_to_json(frame))


class _CsvTable:
    """Joins samples of equal time to rows of CSV, across the borders of frames too."""

    def __init__(self, window: Window) -> None:
        names = [name for name in window.spec.names if name in window.signals]
        self._text = io.StringIO()
        self._rows = csv.writer(self._text)
        self._place = {window.spec.names.index(name): at for at, name in enumerate(names)}
        self._time_ns: int | None = None
        self._cells: list[Any] = []
        self._rows.writerow(["time", *names])

    def add(self, frame: Long) -> None:
        """Add one frame; a row is written once a later time stamp comes."""
        columns = (frame.time_ns, frame.signal, frame.values, frame.quality)
        for time_ns, signal, value, quality in zip(
            *(column.tolist() for column in columns), strict=True
        ):
            if time_ns != self._time_ns:
                self.end_row()
                self._time_ns, self._cells = time_ns, [""] * len(self._place)
            if quality != BAD:
                self._cells[self._place[signal]] = _cell(value)

    def end_row(self) -> None:
        """Write the current row."""
        if self._time_ns is not None:
            self._rows.writerow([text_of(self._time_ns), *self._cells])
        self._time_ns = None

    def taken(self) -> bytes:
        """Return the text so far, and clear it."""
        text = self._text.getvalue()
        self._text.seek(0)
        self._text.truncate()
        return text.encode()


def _cell(value: object) -> object:
    if isinstance(value, tuple):
        return orjson.dumps(value).decode()
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
