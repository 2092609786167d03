"""A publisher that never rests, and its readers, at a server that users could run."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import orjson

from broker import api_client
from broker.api_client import Api
from broker.batch import EquipmentKind
from broker.clock import WallClock, ns_of, text_of
from broker.settings import Address
from broker.streams import Signal, StreamSpec
from tests.owners import founded
from tests.probes import wire
from tests.probes.backends import Processes
from tests.probes.cast import RIG

CLOCK = WallClock()
DATA = f"tb1/live/data/{RIG}"
EVERY_S = 0.005
START_S = 60.0
GUESTS = tuple(f"guest-{at}" for at in range(4))


def batch() -> bytes:
    """One without samples, that says when it was said."""
    now = text_of(CLOCK.now_ns()).encode()
    return b'{"v":1,"spec":1,"pub":"' + now + b'","source":"simulated","frames":[]}'


def said_ns(payload: bytes) -> int:
    """When that was."""
    return ns_of(orjson.loads(payload)["pub"])


@dataclass
class Live:
    """A server, the owner's client, and what its guests' machines show."""

    server: Processes
    owner: Api
    readers: dict[str, str]

    @property
    def broker(self) -> Address:
        """Where they hear."""
        return self.server.broker

    async def grant(self, company: str, **until: float) -> int:
        """The rig, to a company."""
        body = {"company": company, "streams": [{"stream": str(RIG)}]} | until
        (given,) = (await self.owner.request("POST", "/grants", json=body))["items"]
        return int(given["id"])

    async def revoke(self, number: int) -> None:
        """Once more in vain: no more of it."""
        await self.owner.request("DELETE", f"/grants/{number}")


@asynccontextmanager
async def playing(server: Processes) -> AsyncIterator[Live]:
    """A rig, and a publisher that says something of it every few ms."""
    everybody = ("factory", *GUESTS)
    async with founded(server.url, server.administrator, everybody) as owners:
        gateway = await _registered(server.url, owners.doors["factory"])
        readers = {}
        for guest in GUESTS:
            body = {"principal": f"{guest}-reader", "reads": [{"stream": str(RIG)}]}
            created = await owners.doors[guest].request("POST", "/credentials", json=body)
            readers[guest] = created["credential"]
        async with _speaking(server.broker, gateway):
            yield Live(server, owners.doors["factory"], readers)


async def _registered(url: str, owner: Api) -> str:
    body = {"principal": "gateway", "equipment": str(RIG.owner)}
    created = await owner.request("POST", "/credentials", json=body)
    async with api_client.connect(url, created["credential"]) as door:
        await door.register_equipment(RIG.owner, name="rig", kind=EquipmentKind.SIMULATED)
        await door.register_spec(StreamSpec(RIG, (Signal("p"),)))
    return str(created["credential"])


@asynccontextmanager
async def _speaking(broker: Address, gateway: str) -> AsyncIterator[None]:
    """Whatever becomes of the broker, there is something to be heard."""

    async def speak() -> None:
        while True:
            with contextlib.suppress(wire.Closed, TimeoutError, OSError):
                async with wire.opened(broker, gateway) as line:
                    while True:
                        await line.publish([(DATA, batch(), False)])
                        await CLOCK.sleep(EVERY_S)
            await CLOCK.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        speaking = tasks.create_task(speak(), name="publisher")
        try:
            yield
        finally:
            speaking.cancel()


def percentiles(found_ms: list[float]) -> dict[str, float]:
    """The middle and the worst of a hundred."""
    ordered = sorted(found_ms)
    at = {"p50": 0.5, "p99": 0.99}
    last = len(ordered) - 1
    return {name: round(ordered[round(last * share)], 1) for name, share in at.items()}


def now_s() -> float:
    """For time that passes."""
    return time.monotonic()


async def heard(live: Live, credential: str, client_id: str = "") -> None:
    """Return once a reader hears something."""
    async with asyncio.timeout(START_S):
        while True:
            with contextlib.suppress(wire.Closed, OSError):
                async with wire.opened(live.broker, credential, client_id) as line:
                    if await line.subscribe([DATA], 0) == [True]:
                        while not line.heard:
                            await line.next()
                        return
            await CLOCK.sleep(0.02)
