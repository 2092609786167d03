"""From layout 1, one bucket for all, to layout 2: each organisation's samples into its own bucket.

InfluxDB copies them itself, a slice of time after the other, and how far it has come stands in the
bucket of the settings: whoever is stopped goes on there.  What was copied is counted before the old
samples go.  Each step may be done twice, also by two processes at once: a point written again is
the same point, and what is compared may only become more in the new bucket and less in the old.
The last nanosecond that InfluxDB knows, in the year 2262, is not moved: Flux cannot read it.
"""

import csv
from collections.abc import Sequence

import structlog

from broker.errors import Unavailable
from testbed_api.stores import influxdb_http
from testbed_api.stores.influxdb_buckets import Buckets
from testbed_api.stores.influxdb_http import EARLIEST_NS, LATEST_NS, quoted

SHORTEST_NS, LONGEST_NS = 60 * 10**9, 86_400 * 10**9
"""Of time that is copied at once; a minute of 100,000 values a second takes half of one."""
ENOUGH = 1_000_000
"""Points of a slice beyond which the next is shorter; below a quarter of it, longer."""
WAIT_S = 600.0
"""The longest that InfluxDB may take for a slice, or to delete a stream."""

log = structlog.get_logger()


class Mover:
    """Moves what lies in the bucket of the settings still."""

    def __init__(self, server: influxdb_http.Server, buckets: Buckets) -> None:
        """buckets: the base already marked as layout 2, so that no older version writes to it."""
        self._server = server
        self._buckets = buckets

    async def run(self) -> None:
        """Move everything, organisation by organisation; raises Unavailable and may be repeated."""
        base = self._buckets.base
        for organisation, streams in (await self._streams()).items():
            bucket = await self._buckets.made(organisation)
            log.info("moving began", organisation=organisation, streams=len(streams), bucket=bucket)
            copied = await self._copy(organisation, bucket)
            await self._compare(organisation, streams, bucket)
            for stream in streams:
                await self._server.delete(base, f'_measurement="{stream}"', wait_s=WAIT_S)
            log.info("moving ended", organisation=organisation, points=copied)
        await self._buckets.mark()

    async def _streams(self) -> dict[str, list[str]]:
        """The measurements of streams by organisation."""
        found: dict[str, list[str]] = {}
        for (name,) in await self._server.select(self._buckets.base, "SHOW MEASUREMENTS"):
            if "/" in name:
                found.setdefault(name.split("/")[0], []).append(name)
        return found

    async def _copy(self, organisation: str, bucket: str) -> int:
        """Copy in slices, each from the first point that is not copied; how many points it were."""
        at, width, points = await self._reached(organisation), SHORTEST_NS, 0
        while (first := await self._first(organisation, at)) is not None:
            end = min(first + width, LATEST_NS)
            try:
                count = await self._copy_slice(organisation, bucket, first, end)
            except Unavailable:
                if width == SHORTEST_NS:
                    raise
                width = SHORTEST_NS  # it may have been too much at once
                continue
            at, points = end, points + count
            await self._note(organisation, at)
            log.info("samples were copied", organisation=organisation, points=points, until_ns=at)
            if count > ENOUGH:
                width = max(width // 2, SHORTEST_NS)
            elif count < ENOUGH // 4:
                width = min(width * 2, LONGEST_NS)
        return points

    async def _note(self, organisation: str, copied_ns: int) -> None:
        """One point, written over and over."""
        line = f"layout,organisation={organisation} copied_ns={copied_ns}i 0"
        await self._server.write(self._buckets.base, line.encode())

    async def _reached(self, organisation: str) -> int:
        """Before this everything is copied."""
        query = f"SELECT copied_ns FROM \"layout\" WHERE organisation = '{organisation}'"  # noqa: S608
        for _, copied_ns in await self._server.select(self._buckets.base, query):
            return int(copied_ns)
        return EARLIEST_NS

    async def _first(self, organisation: str, from_ns: int) -> int | None:
        """When the first point is from then on."""
        if from_ns >= LATEST_NS:
            return None
        source = self._source(organisation, from_ns, LATEST_NS)
        query = (
            f"{source} |> first() |> map(fn: (r) => ({{_value: int(v: r._time)}})) |> group()"
            " |> min()"
        )
        found = _numbers(await self._server.flux(query, wait_s=WAIT_S))
        return min(found, default=None)

    async def _copy_slice(self, organisation: str, bucket: str, from_ns: int, to_ns: int) -> int:
        query = (
            f"{self._source(organisation, from_ns, to_ns)}"
            f" |> to(bucket: {quoted(bucket)}, org: {quoted(self._server.organisation)},"
            ' tagColumns: ["space"])'
            " |> count() |> group() |> sum()"
        )
        return sum(_numbers(await self._server.flux(query, wait_s=WAIT_S)))

    def _source(self, organisation: str, from_ns: int, to_ns: int) -> str:
        return (
            f"from(bucket: {quoted(self._buckets.base)})"
            f" |> range(start: time(v: {from_ns}), stop: time(v: {to_ns}))"
            f" |> filter(fn: (r) => r._measurement =~ /^{organisation}\\//)"
        )

    async def _compare(self, organisation: str, streams: Sequence[str], bucket: str) -> None:
        """Raise Unavailable if the new bucket has fewer points than the old one."""
        old, new = [await self._counts(one, streams) for one in (self._buckets.base, bucket)]
        fewer = [stream for stream in streams if new[stream] < old[stream]]
        if fewer:
            await self._note(organisation, EARLIEST_NS)
            raise Unavailable(
                f"{len(fewer)} streams of {organisation} have fewer points in {bucket} than in"
                f" {self._buckets.base}: {fewer[0]} {new[fewer[0]]} of {old[fewer[0]]}",
                hint="nothing was deleted; start again, it is copied anew",
            )

    async def _counts(self, bucket: str, streams: Sequence[str]) -> dict[str, int]:
        """Points of each stream; the old bucket is asked first, so that it has what it had."""
        found: dict[str, int] = {}
        for stream in streams:
            query = f'SELECT count(*) FROM "{stream}" WHERE time < {LATEST_NS}'  # noqa: S608
            rows = await self._server.select(bucket, query, wait_s=WAIT_S)
            found[stream] = sum(sum(counts) for _, *counts in rows)
        return found


def _numbers(text: str) -> Sequence[int]:
    """The column `_value` of Flux's CSV, of all tables."""
    found: list[int] = []
    place = 0
    for row in csv.reader(text.splitlines()):
        if row[1:3] == ["result", "table"]:
            place = row.index("_value")
        elif row:
            found.append(int(row[place]))
    return found
