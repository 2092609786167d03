"""The whole chain on one machine: load source, gateways, server with recorder apart, influxd."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks import meter
from benchmarks.load import NAMESPACE, Load, node_name, signal_name, stream_name
from broker import api_client
from broker.namespace import LIVE, StreamAddress
from testbed.processes.child_process import ChildProcess, start_child
from tests.services import influxd as influxd_product

ORGANISATION = "bench"
MOST_STREAMS = 1_000
"""Of one gateway: a credential names no more."""
PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Setup:
    """What to run.  now: the source's time stamps are its moments of sending.  kept_s: how long the
    source keeps what nobody fetches.
    """

    load: Load
    interval_s: float
    folder: Path
    now: bool = False
    kept_s: float = 30.0
    gateway: Sequence[str] = ("-m", "testbed", "gateway", "run")

    @property
    def gateways(self) -> int:
        """As few as may carry the streams."""
        return -(-self.load.streams // MOST_STREAMS)

    def address(self, stream: int) -> StreamAddress:
        """Where a stream of the load is found in the testbed."""
        machine = f"machine-{stream // MOST_STREAMS}"
        return StreamAddress(ORGANISATION, machine, stream_name(stream))


@dataclass(slots=True)
class Rig:
    """A chain that runs.  first_seq, next_seq: by the first item of each gateway, what the source
    began with, and what came after the last.  first_flow_s: from the first start of the gateways,
    which register all streams, until samples of all of them come.
    """

    setup: Setup
    influxd: influxd_product.Influxd
    api: str
    broker: str
    administrator: str
    owner: str
    source: ChildProcess
    first_seq: dict[int, int] = field(default_factory=dict)
    next_seq: dict[int, int] = field(default_factory=dict)
    offered: int = 0
    dropped: int = 0
    first_flow_s: float = 0.0

    async def flowing(self) -> None:
        """Return when every gateway has subscribed and samples come."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.first_seq) < self.setup.gateways:
                said = await self.source.wait_for("publishing")
                self.first_seq[said["item"]] = said["first_seq"]

    async def pause(self) -> None:
        """End the samples, and learn what was offered in all."""
        end_samples()
        async with asyncio.timeout(PATIENCE_S):
            while len(self.next_seq) < self.setup.gateways:
                said = await self.source.wait_for("paused")
                self.next_seq[said["item"]] = said["next_seq"]
                self.offered += said["values"]
                self.dropped += said["dropped"]

    def span(self, stream: int) -> tuple[int, int]:
        """The sequence numbers that a stream was offered: the first, and the one after the last."""
        machine = stream // MOST_STREAMS * MOST_STREAMS * self.setup.load.signals
        return self.first_seq[machine], self.next_seq[machine]


@asynccontextmanager
async def running(setup: Setup) -> AsyncIterator[Rig]:
    """Start everything in the setup's folder; it is flowing when this is entered."""
    setup.folder.mkdir(parents=True, exist_ok=True)
    async with AsyncExitStack() as stack:
        store = stack.enter_context(influxd_product.serve(setup.folder))
        server = await stack.enter_async_context(_server(setup.folder, store))
        source = await stack.enter_async_context(source_of(setup))
        said = await server.wait_for("ready")
        url = (await source.wait_for("ready"))["url"]
        async with api_client.connect(said["api"], said["administrator"]) as door:
            owner = await door.create_organisation(
                ORGANISATION, owner="bench-owner", kind="partner"
            )
        known = (said["api"], said["broker"], said["administrator"], owner)
        rig = Rig(setup, store, *known, source)
        async with api_client.connect(rig.api, rig.owner) as door:
            keys = [await _credential(door, setup, each) for each in range(setup.gateways)]
        loop = asyncio.get_running_loop()
        begin_s = loop.time()
        for number, key in enumerate(keys):
            await stack.enter_async_context(_gateway(rig, number, url, key))
        await rig.flowing()
        rig.first_flow_s = loop.time() - begin_s
        yield rig


def end_samples() -> None:
    """Let the load source take no more samples; it tells then what it has offered."""
    for pid in meter.pids("source"):
        os.kill(pid, signal.SIGUSR1)


def source_of(setup: Setup) -> Any:
    """The load source, as a process."""
    load = setup.load
    command = ["-m", "benchmarks.source", "--streams", str(load.streams)]
    command += ["--signals", str(load.signals), "--rate-hz", str(load.rate_hz)]
    command += ["--kept-s", str(setup.kept_s)]
    command += ["--seed", str(load.seed), *(["--own"] if load.own else [])]
    command += ["--now"] if setup.now else []
    return start_child("source", command, log=setup.folder / "source.log")


def _server(folder: Path, store: influxd_product.Influxd) -> Any:
    address = store.url.removeprefix("http://")
    command = ["-m", "testbed", "up", "--json", "--data", str(folder / "data"), "--port", "0"]
    command += ["--mqtt-port", "0"]
    command += ["--store", f"influxdb://{address}/{store.organisation}/{store.bucket}"]
    environment = os.environ | {"TESTBED_STORE_TOKEN": store.token}
    return start_child("server", command, log=folder / "server.log", environment=environment)


async def _credential(door: api_client.Api, setup: Setup, number: int) -> str:
    streams = _streams(setup, number)
    writes = [{"space": LIVE, "stream": str(setup.address(each))} for each in streams]
    body = {"principal": f"gateway-{number}", "writes": writes}
    created = await door.request("POST", "/credentials", json=body)
    return str(created["credential"])


def _streams(setup: Setup, number: int) -> range:
    """The streams of one gateway."""
    return range(number * MOST_STREAMS, min((number + 1) * MOST_STREAMS, setup.load.streams))


@asynccontextmanager
async def _gateway(rig: Rig, number: int, url: str, key: str) -> AsyncIterator[None]:
    folder = rig.setup.folder
    path = folder / f"mapping-{number}.yaml"
    document = await asyncio.to_thread(mapping, rig.setup, number, url)
    path.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False))
    environment = os.environ | {
        "TESTBED_API": rig.api,
        "TESTBED_BROKER": rig.broker,
        "TESTBED_CREDENTIAL": key,
        "TESTBED_SPOOL": str(folder / f"spool-{number}"),
    }
    command = [*rig.setup.gateway, str(path)]
    log = folder / f"gateway-{number}.log"
    async with start_child("gateway", command, log=log, environment=environment):
        yield


def mapping(setup: Setup, number: int, url: str) -> Mapping[str, Any]:
    """The mapping of one gateway."""
    load = setup.load
    streams = {
        stream_name(stream): {
            "trigger": "timestamp",
            "period_s": 1 / load.rate_hz,
            "publishing_interval_s": setup.interval_s,
            "signals": {
                signal_name(each): {
                    "node": f"nsu={NAMESPACE};s={node_name(stream * load.signals + each)}"
                }
                for each in range(load.signals)
            },
        }
        for stream in _streams(setup, number)
    }
    return {
        "organisation": ORGANISATION,
        "equipment": f"machine-{number}",
        "kind": "simulated",
        "opcua": {"url": url, "security": "none", "items_per_s": 10 * load.values_per_s},
        "streams": streams,
    }
