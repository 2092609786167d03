"""Opens the product that runs the programs of a site."""

import asyncio
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from broker import tls
from broker.clock import Clock
from broker.errors import Invalid
from broker.server_addresses import ServerAddresses, server_of
from broker.settings import TLS_SCHEME, Address, address_of
from broker.tls import Trust
from testbed_runner.doors import Doors
from testbed_runner.port import Engine, EngineAway, ProductName, Upstream
from testbed_runner.settings import AUTO

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductParts:
    """The parts that a product is opened with.

    folder: of the runner, below which a product may keep its files.  docker: URL of the socket of
    Docker's engine.  tasks: of the process.
    """

    folder: Path
    addresses: ServerAddresses
    docker: str
    clock: Clock
    tasks: asyncio.TaskGroup


async def opened(name: str, parts: ProductParts) -> Engine:
    """Open a product by its name, or for AUTO the best one that is here.

    Raises Invalid for an address of the testbed that is none, EngineAway for a folder that cannot
    be used, Unavailable where secrets have no place in memory.
    """
    if name == ProductName.DOCKER:
        return _docker(parts)
    if name == AUTO and has_docker(parts.docker):
        engine = _docker(parts)
        try:
            await engine.containers()
        except EngineAway as exc:
            log.info("plain processes take the place of Docker", reason=str(exc))
            await engine.close()
        else:
            return engine
    return _process(parts)


def has_docker(url: str) -> bool:
    """Whether Docker's engine may be used: its socket and its library are here, and this is root.

    Only root may listen in the network of a container.
    """
    is_here = Path(url.removeprefix("unix://")).is_socket()
    return is_here and os.geteuid() == 0 and importlib.util.find_spec("docker") is not None


def _process(parts: ProductParts) -> Engine:
    """Plain processes."""
    from testbed_runner.process.engine import ProcessEngine  # noqa: PLC0415 - one of several

    return ProcessEngine(parts.folder / ProductName.PROCESS, doors(parts), parts.clock)


def _docker(parts: ProductParts) -> Engine:
    """Containers of Docker's engine."""
    from testbed_runner.docker.engine import DockerEngine  # noqa: PLC0415 - one of several

    folder = parts.folder / ProductName.DOCKER
    tasks, url = parts.tasks, parts.docker
    return DockerEngine(folder, doors(parts), parts.clock, tasks=tasks, url=url)


def doors(parts: ProductParts) -> Doors:
    """The listeners of the programs, which lead to the testbed; raises Invalid."""
    addresses = parts.addresses
    upstream = upstream_of(addresses)
    trust = None
    if upstream.api_tls or upstream.broker_tls:
        trust = Trust(tls.client_context(addresses.ca), addresses.broker_name)
    return Doors(upstream, trust=trust, clock=parts.clock, tasks=parts.tasks)


def upstream_of(addresses: ServerAddresses) -> Upstream:
    """The listeners of the testbed behind its URLs; raises Invalid."""
    api, broker = urlsplit(server_of(addresses.api)), urlsplit(addresses.broker)
    if api.path:
        raise Invalid(
            f"{addresses.api} has a path, and programs reach the API by its address alone",
            hint="let the API be reached at a host and a port of its own",
        )
    try:
        broker_address = address_of(addresses.broker)
    except ValueError as exc:
        raise Invalid(str(exc), hint="set TESTBED_BROKER") from exc
    return Upstream(
        api=Address(api.hostname or "", api.port or 0),
        broker=broker_address,
        api_tls=api.scheme == "https",
        broker_tls=broker.scheme == TLS_SCHEME,
    )
