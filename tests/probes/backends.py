"""The server to be probed, over each broker that it runs on.

A backend is one more entry of BACKENDS: a context manager from a data folder, in which `cast.made`
has written already, to where the server is.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.clock import WallClock
from broker.settings import Address
from testbed_api import service
from testbed_api.settings import ServerSettings


@dataclass(frozen=True, slots=True)
class Running:
    """Where it is."""

    api: str
    broker: Address


@asynccontextmanager
async def nats(folder: Path) -> AsyncIterator[Running]:
    """The embedded one: its broker asks the registry at each knock."""
    told = ServerSettings(folder=folder, api_port=0, mqtt_port=0)
    async with service.serve(told, WallClock()) as server:
        yield Running(server.api_url, server.broker)


BACKENDS: Mapping[str, Callable[[Path], AbstractAsyncContextManager[Running]]] = {"nats": nats}
