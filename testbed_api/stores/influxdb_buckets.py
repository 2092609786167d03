"""Finds or creates the InfluxDB bucket with the samples of an organisation.

The bucket named in the settings, the base, contains no samples, only a mark with the layout
version.  Each organisation has its own bucket `<base>-<organisation>`, with a mark that names the
base: two testbeds in one InfluxDB may derive the same name (`lab` with `two-a`, `lab-two` with
`a`), and neither reads the samples of the other.
"""

import asyncio
from typing import NamedTuple

from broker.clock import NS_PER_S
from broker.errors import Forbidden, Invalid, Refused, Unknown
from testbed_api.stores import influxdb_http
from testbed_api.stores.port import Position

LAYOUT = 1
"""Version of the layout of samples in buckets; stored in the measurement `layout`."""
POSITION_EVERY_NS = 600 * NS_PER_S
"""The time of a position is rounded down to this, so that a bucket has 144 points of them a day."""
_RIGHTS_HINT = (
    "give TESTBED_STORE_TOKEN the right to read and write all buckets, or make the bucket yourself"
)


class BucketMark(NamedTuple):
    """The mark of a bucket.

    version: of its layout, None if the bucket has no mark.  base: for an organisation's bucket the
    base bucket that it belongs to.
    """

    version: int | None = None
    base: str | None = None


class Buckets:
    """The InfluxDB buckets of one testbed, one per organisation."""

    def __init__(self, client: influxdb_http.InfluxDbClient, base: str) -> None:
        """base: the bucket named in the settings."""
        self._client = client
        self._known: set[str] = set()
        self._lock = asyncio.Lock()
        self.base = base

    def name_of(self, organisation: str) -> str:
        """Name of an organisation's bucket."""
        return f"{self.base}-{organisation}"

    async def find(self, organisation: str) -> str | None:
        """Find an organisation's bucket, None if it has none.

        Raises Refused if the bucket belongs to another testbed.
        """
        name = self.name_of(organisation)
        if name not in self._known:
            async with self._lock:
                if name not in self._known and not await self._claim(name):
                    return None
        return name

    async def get_or_create(self, organisation: str) -> str:
        """Find an organisation's bucket, or create it.

        Raises Refused as `find`, Forbidden if the token may not create buckets.
        """
        name = self.name_of(organisation)
        if name in self._known:
            return name
        async with self._lock:
            if name not in self._known and not await self._claim(name):
                await self.create(name)
                await self._claim(name)
        return name

    def forget(self, organisation: str) -> None:
        """Drop an organisation's bucket from the cache, because it may have been deleted."""
        self._known.discard(self.name_of(organisation))

    async def create(self, name: str) -> None:
        """Create a bucket unless another process just has.

        Raises Unknown if InfluxDB's organisation is not visible, Forbidden if the token may not.
        """
        organisation_ids = await self._organisation_ids()
        if self._client.organisation not in organisation_ids:
            raise Unknown(
                f"there is no bucket {name}, and the token sees no organisation"
                f" {self._client.organisation!r} in InfluxDB to make it in",
                hint=f"it sees {', '.join(organisation_ids) or 'none'}; {_RIGHTS_HINT}",
            )
        body = {
            "orgID": organisation_ids[self._client.organisation],
            "name": name,
            "retentionRules": [],
        }
        try:
            await self._client.request("POST", "/api/v2/buckets", json=body)
        except (Forbidden, Invalid) as exc:
            if await self.exists(name):  # another process was quicker
                return
            raise Forbidden(
                f"the token may not make the bucket {name}, or not see it: {exc.message}",
                hint=_RIGHTS_HINT,
            ) from exc

    async def exists(self, name: str) -> bool:
        """Whether the token sees a bucket of this name in the organisation of InfluxDB."""
        buckets = await self._client.list_resources("buckets", name=name)
        organisation_id = (
            (await self._organisation_ids()).get(self._client.organisation) if buckets else None
        )
        return any(organisation_id in {None, bucket["orgID"]} for bucket in buckets)

    async def read_mark(self, name: str) -> BucketMark:
        """Read the mark of a bucket."""
        query = 'SELECT last("version"), last("base") FROM "layout"'
        for _, version, base in await self._client.select(name, query):
            return BucketMark(version, base)
        return BucketMark()

    async def is_empty(self, name: str) -> bool:
        """Whether a bucket contains no measurement."""
        return not await self._client.select(name, "SHOW MEASUREMENTS LIMIT 1")

    async def write_mark(self) -> None:
        """Write the mark of the base bucket.  If that fails, the whole store is unavailable."""
        await self._client.write(self.base, f"layout version={LAYOUT}i".encode())

    async def position(self, organisation: str) -> Position | None:
        """The greatest position that was written to an organisation's bucket; None without one.

        Raises Refused if the bucket belongs to another testbed.
        """
        bucket = await self.find(organisation)
        query = 'SELECT max("flush"), "ledger", "time_ns" FROM "position"'
        try:
            rows = [] if bucket is None else await self._client.select(bucket, query)
        except Unknown:  # the bucket was deleted
            self.forget(organisation)
            return None
        for _, flush, ledger, time_ns in rows:
            return Position(ledger, flush, time_ns)
        return None

    async def _claim(self, name: str) -> bool:
        """Check whether a bucket exists and belongs to this testbed; mark it if it is empty.

        Raises Refused if it belongs to another testbed.
        """
        if not await self.exists(name):
            return False
        if await self.is_empty(name):  # the mark is always the first point written to a bucket
            base = self.base.replace("\\", "\\\\").replace('"', '\\"')
            line = f'layout version={LAYOUT}i,base="{base}"'
            await self._client.write(name, line.encode())
        elif await self.read_mark(name) != (LAYOUT, self.base):
            raise Refused(
                f"the bucket {name} is there already and not of the testbed in {self.base}",
                hint="name another bucket in TESTBED_STORE, or another organisation",
            )
        self._known.add(name)
        return True

    async def _organisation_ids(self) -> dict[str, str]:
        return {
            bucket["name"]: bucket["id"] for bucket in await self._client.list_resources("orgs")
        }


def position_line(position: Position) -> bytes:
    """The line that sets the position in a bucket, with the line feed before it.

    One that is written apart is a point of its own: it replaces no greater one.
    """
    at_ns = position.time_ns // POSITION_EVERY_NS * POSITION_EVERY_NS + position.is_apart
    fields = f'ledger="{position.ledger}",flush={position.flush}i,time_ns={position.time_ns}i'
    return f"\nposition {fields} {at_ns}".encode()
