"""Which bucket an organisation's samples lie in: found, or made when it is first needed.

The bucket of the settings holds no samples, only the mark of the layout.  Beside it each
organisation has `<bucket>-<organisation>`, marked as this testbed's: two testbeds in one InfluxDB
may come to the same name (`lab` with `two-a`, `lab-two` with `a`), and none reads the other's.
"""

import asyncio
from typing import NamedTuple

from broker.errors import Forbidden, Invalid, Refused, Unknown
from testbed_api.stores import influxdb_http

LAYOUT = 1
"""How samples stand in buckets; a point of the measurement `layout` says which one it is."""
_RIGHTS = (
    "give TESTBED_STORE_TOKEN the right to read and write all buckets, or make the bucket yourself"
)


class Mark(NamedTuple):
    """What a bucket says of itself.

    version: of its layout, None where it is not marked.  base: the bucket of the settings that an
    organisation's belongs to.
    """

    version: int | None = None
    base: str | None = None


class Buckets:
    """The buckets of one testbed."""

    def __init__(self, server: influxdb_http.Server, base: str) -> None:
        """base: the bucket of the settings."""
        self._server = server
        self._known: set[str] = set()
        self._one_at_a_time = asyncio.Lock()
        self.base = base

    def name_of(self, organisation: str) -> str:
        """How an organisation's bucket is called."""
        return f"{self.base}-{organisation}"

    async def of(self, organisation: str) -> str | None:
        """An organisation's bucket, None where it has none; raises Refused if it is not ours."""
        name = self.name_of(organisation)
        if name not in self._known:
            async with self._one_at_a_time:
                if name not in self._known and not await self._find(name):
                    return None
        return name

    async def made(self, organisation: str) -> str:
        """The same, made where there is none; raises Forbidden if the token may not."""
        name = self.name_of(organisation)
        if name in self._known:
            return name
        async with self._one_at_a_time:
            if name not in self._known and not await self._find(name):
                await self.make(name)
                await self._find(name)
        return name

    def forget(self, organisation: str) -> None:
        """Look again whether it is there: somebody dropped it."""
        self._known.discard(self.name_of(organisation))

    async def make(self, name: str) -> None:
        """Make a bucket where nobody else does meanwhile; raises Unknown, Forbidden."""
        owners = await self._organisation_ids()
        if self._server.organisation not in owners:
            raise Unknown(
                f"there is no bucket {name}, and the token sees no organisation"
                f" {self._server.organisation!r} in InfluxDB to make it in",
                hint=f"it sees {', '.join(owners) or 'none'}; {_RIGHTS}",
            )
        body = {"orgID": owners[self._server.organisation], "name": name, "retentionRules": []}
        try:
            await self._server.ask("POST", "/api/v2/buckets", json=body)
        except (Forbidden, Invalid) as exc:
            if await self.is_there(name):  # another process was quicker
                return
            raise Forbidden(
                f"the token may not make the bucket {name}, or not see it: {exc.message}",
                hint=_RIGHTS,
            ) from exc

    async def is_there(self, name: str) -> bool:
        """Whether the token sees such a bucket; one of another organisation of InfluxDB is none."""
        found = await self._server.listed("buckets", name=name)
        mine = (await self._organisation_ids()).get(self._server.organisation) if found else None
        return any(mine in {None, one["orgID"]} for one in found)

    async def mark_of(self, name: str) -> Mark:
        """What a bucket says of itself."""
        query = 'SELECT last("version"), last("base") FROM "layout"'
        for _, version, base in await self._server.select(name, query):
            return Mark(version, base)
        return Mark()

    async def is_empty(self, name: str) -> bool:
        """Whether nothing was ever written to it."""
        return not await self._server.select(name, "SHOW MEASUREMENTS LIMIT 1")

    async def mark(self) -> None:
        """Mark the bucket of the settings.  Where that fails, the store takes nothing at all."""
        await self._server.write(self.base, f"layout version={LAYOUT}i".encode())

    async def _find(self, name: str) -> bool:
        """Look for an organisation's bucket, and whose it is."""
        if not await self.is_there(name):
            return False
        if await self.is_empty(name):  # the mark is the first that is ever written to one of ours
            base = self.base.replace("\\", "\\\\").replace('"', '\\"')
            line = f'layout version={LAYOUT}i,base="{base}"'
            await self._server.write(name, line.encode())
        elif await self.mark_of(name) != (LAYOUT, self.base):
            raise Refused(
                f"the bucket {name} is there already and not of the testbed in {self.base}",
                hint="name another bucket in TESTBED_STORE, or another organisation",
            )
        self._known.add(name)
        return True

    async def _organisation_ids(self) -> dict[str, str]:
        return {one["name"]: one["id"] for one in await self._server.listed("orgs")}
