"""The chain as real processes that can be killed, stopped, cut off and started again."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml
from pydantic import SecretStr

from broker import api_client, codec
from broker.batch import GOOD, UNCERTAIN, Gap, Series
from broker.clock import NS_PER_S, WallClock, ns_of
from broker.errors import BedError
from broker.history_query import HistoryQuery
from broker.messages import Health
from broker.namespace import StreamAddress
from broker.process import parent_death
from broker.settings import BusSettings
from gateway.spool import file, spool
from simulators import ledger
from testbed.demo.verdict import Counters
from testbed_sdk import history
from testbed_sdk.connection import Testbed, connect
from testbed_sdk.history import History
from testbed_sdk.settings import PrototypeSettings
from tests.faults import checker, mqtt_source
from tests.faults.checker import Evidence
from tests.faults.proxy import Wire, wire
from tests.services import disk, free_port, mosquitto
from tests.services import influxd as influxd_product
from tests.services.clock_offset import OffsetClock

ORGANISATION, EQUIPMENT = "factory", "source"
START_S = 40.0
SETTLE_S = 150.0
"""A batch on the way when its reader died comes again after the broker's 60 s.  For each 10,000
batches that wait, SETTLE_MORE_S more: a backlog of minutes is not brought up in seconds.
"""
SETTLE_MORE_S = 10.0
SOON_NS = 600 * NS_PER_S
"""A sample that is stored that far ahead was not offered since."""
CLOCK = WallClock()


@dataclass(frozen=True)
class Load:
    """signals: one stream each.  hz: samples a second of each.  age_s: of a batch.  publishing_s:
    time between two publishes of the machine.  stalled_s: so long its clock may stand unnoticed.
    """

    signals: int = 20
    hz: float = 10.0
    age_s: float = 0.0
    publishing_s: float = 0.2
    stalled_s: float = 10.0


class Process:
    """One of our commands, started again as often as wanted."""

    def __init__(self, name: str, command: Sequence[str], folder: Path, **more: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self.out = folder / f"{name}.out"
        self._command = [sys.executable, *command]
        self.environment = os.environ | more
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.log.open("ab") as log, self.out.open("wb") as out:
            self._process = subprocess.Popen(  # noqa: S603 - our own commands
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                env=self.environment,
                start_new_session=True,
                preexec_fn=parent_death.end_with_parent(os.getpid()),  # noqa: PLW1509 - as the broker's
            )

    def kill(self) -> None:
        """End it without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self, patience_s: float = 30.0) -> None:
        """End it in order; a stopped one goes on first."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.kill()

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def said(self, event: str) -> dict[str, object]:
        """The line of JSON with that event since its last start; empty until it comes."""
        for line in self.out.read_text().splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                event_fields: dict[str, object] = json.loads(line)
                if event_fields.get("event") == event:
                    return event_fields
        return {}

    def told(self) -> list[dict[str, Any]]:
        """All its lines of JSON since its last start."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]


class Store:
    """An influxd that can be killed."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._port = free_port()
        self._stack = ExitStack()
        self.running = self._stack.enter_context(influxd_product.serve(folder, port=self._port))

    def kill(self) -> None:
        self.running.product.process.kill()
        self.running.product.process.wait()
        self._stack.close()

    def start(self) -> None:
        serving = influxd_product.serve(self._folder, port=self._port)
        self.running = self._stack.enter_context(serving)

    def close(self) -> None:
        self._stack.close()


@dataclass
class Rig:
    """Everything that runs for one fault test."""

    folder: Path
    load: Load
    random: random.Random
    source: Process
    server: Process
    gateway: Process
    wires: dict[str, Wire]
    api_url: str
    source_port: int
    administrator: str = ""
    owner: str = ""
    observer: str = ""
    key: str = ""
    store: "Store | None" = None
    clocks: Mapping[str, OffsetClock] = field(default_factory=dict)
    """The wall clocks of `server` and `gateway`, where the test sets them."""
    began_ns: int = 0
    books: list[Path] = field(default_factory=list)

    # --- what can be done to it -------------------------------------------------------------------

    def broker_pid(self) -> int:
        """The embedded broker: a child of the server."""
        return self._child_of_server("nats-server")

    def recorder_pid(self) -> int:
        """The recorder where it is a process of its own."""
        return self._child_of_server("recorder")

    async def ended(self, pid: int) -> None:
        """Wait until a process that is no child of ours has gone."""
        await self._until(lambda: _has_ended(pid), 5.0, f"{pid} has ended")

    def _child_of_server(self, word: str) -> int:
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            for pid in children(self.server.pid):
                with contextlib.suppress(OSError):
                    if word in Path(f"/proc/{pid}/cmdline").read_text():
                        return pid
            time.sleep(0.05)  # noqa: TID251 - a process needs real time to start
        pytest.fail(f"the server has no child {word}")

    async def sleep(self, least_s: float, most_s: float | None = None) -> None:
        """A while, or a random one."""
        await CLOCK.sleep(least_s if most_s is None else self.random.uniform(least_s, most_s))

    async def recovered(self, patience_s: float = 60.0) -> float:
        """Wait for the first sample stored that was offered from now on; how long it took, in s."""
        since_ns, since_s = CLOCK.now_ns(), time.monotonic()
        while time.monotonic() - since_s < patience_s:
            with contextlib.suppress(BedError):
                async with self.observing(0) as bed:
                    while time.monotonic() - since_s < patience_s:
                        history = await bed.history(
                            "in", from_ns=since_ns, to_ns=since_ns + SOON_NS
                        )
                        if len(history["s0"].time_ns):
                            return time.monotonic() - since_s
                        await CLOCK.sleep(0.1)
            await CLOCK.sleep(0.1)
        pytest.fail(f"no fresh sample was stored within {patience_s} s\n{self.last_words()}")

    async def noticed(self, words: str, times: int, patience_s: float) -> float:
        """Wait until the gateway's log has said that so often; how long it took, in s."""
        since_s = time.monotonic()
        await self._until(
            lambda: self.gateway.log.read_text().count(words) >= times, patience_s, words
        )
        return time.monotonic() - since_s

    def another_gateway(self, name: str, spool_folder: str, *options: str) -> Process:
        """A process of the gateway, with its credential and a folder for its state."""
        mapping = str(self.folder / "mapping.yaml")
        return Process(
            name,
            ["-m", "testbed", "gateway", "run", mapping, *options],
            self.folder,
            TESTBED_API=f"http://127.0.0.1:{self.wires['api'].port}",
            TESTBED_BROKER=f"mqtt://127.0.0.1:{self.wires['broker'].port}",
            TESTBED_CREDENTIAL=self.key,
            TESTBED_SPOOL=str(self.folder / spool_folder),
            TESTBED_SOURCE_PASSWORD=mosquitto.PASSWORDS["ada"],
        )

    @property
    def spool_file(self) -> Path:
        """The file of the gateway's spool."""
        return self.folder / "spool" / f"{ORGANISATION}.{EQUIPMENT}.live.sqlite"

    def restart_source(self, *options: str, signals: int | None = None) -> None:
        """Kill the machine and start it again, with a ledger of its own."""
        self.source.kill()
        self.books.append(self.folder / f"offered-{len(self.books)}.jsonl")
        count = self.load.signals if signals is None else signals
        self.source = _source(
            self.folder, self.books[-1], self.source_port, count, *options, hz=self.load.hz
        )
        self.source.start()

    async def told(self, at: int) -> Health:
        """What is said about the freshness of a signal's stream."""
        async with self.observing(at) as bed:
            return await bed.freshness("in")

    def restart_store(self) -> None:
        """End InfluxDB without a word, and start it again on its port and data."""
        assert self.store is not None
        self.store.kill()
        self.store.start()

    # --- the verdict ------------------------------------------------------------------------------

    async def settled(self) -> None:
        """No more samples, everything marked, the gateway ended in order."""
        (self.folder / "stop").touch()
        await CLOCK.sleep(1.0)
        more_s = SETTLE_MORE_S * self.unmarked() / 10_000
        await self._until(lambda: self.unmarked() == 0, SETTLE_S + more_s, "everything is marked")
        await CLOCK.sleep(1.0)  # a gateway that was held up has not read the last rows before
        await self._until(lambda: self.unmarked() == 0, SETTLE_S, "the last rows are marked")
        await asyncio.to_thread(self.gateway.stop)

    def unmarked(self) -> int:
        """Batches in the spool that wait for their mark."""
        return file.unmarked(self.spool_file)

    async def judged(self, *, as_good: bool = False) -> tuple[Counters, int, list[Gap]]:
        """The four counters, how many samples were offered, and the gaps of one stream.

        as_good: take uncertain samples as good ones, as their time stamps were far from the
        gateway's clock.
        """
        offered = [ledger.read(book) for book in self.books]
        spooled = await self.spooled()
        down = [
            (before.rows[-1].time_ns + 1, after.rows[0].time_ns - 1)
            for before, after in pairwise(offered)
        ]
        names = offered[0].signals
        stored = await self.stored(len(names))
        dead = await self.dead(len(names))
        evidence = [
            Evidence(
                offered={
                    (name, row.time_ns): row.values[at]
                    for book in offered
                    for row in (book.rows if at < len(book.signals) else ())
                },
                stored={
                    signal: _as_good(series) if as_good else series
                    for signal, series in stored[at].series.items()
                },
                spooled=spooled.get(name, []),
                dead=dead[at],
                gaps=stored[at].gaps,
                period_ns=round(1e9 / self.load.hz),
                down=[
                    *down,
                    *((book.rows[0].time_ns, 2**62) for book in offered if at >= len(book.signals)),
                ],
            )
            for at, name in enumerate(names)
        ]
        counters = await asyncio.to_thread(checker.judge, evidence)
        if not counters.clean:
            sys.stdout.write("\n".join(checker.not_stored(names, evidence)) + "\n")
        samples = sum(len(stream.offered) for stream in evidence)
        return counters, samples, list(evidence[0].gaps)

    async def stored(self, streams: int) -> list[History]:
        """The history of so many streams, over one connection: each new one costs the server."""
        query = HistoryQuery("live", self.began_ns, 2**62)
        async with api_client.connect(self.api_url, self.observer) as api:
            return [await history.fetch(api, address(at), query) for at in range(streams)]

    async def dead(self, streams: int) -> list[list[tuple[str, int]]]:
        """Signal and time of the dead letters of so many streams."""
        params = {"space": "live", "limit": 1000}
        async with api_client.connect(self.api_url, self.owner) as api:
            pages = [
                await api.request("GET", f"/streams/{address(at)}/dead-letters", params=params)
                for at in range(streams)
            ]
        return [
            [
                (letter["signal"], ns_of(letter["time"]))
                for letter in page["items"]
                if letter["signal"] is not None
            ]
            for page in pages
        ]

    async def spooled(self) -> dict[str, list[tuple[str, int]]]:
        """What the gateway had committed, by signal."""
        samples: dict[str, list[tuple[str, int]]] = {}
        async with spool.open(self.spool_file, epoch="unused") as opened:
            bodies = await opened.bodies()
        for batch in bodies:
            name = batch.stream.rpartition("/")[2]
            document = codec.parse(codec.stamped(batch.body, 0))
            for frame in document.frames:
                since_ns = ns_of(frame["t0"])
                samples.setdefault(name, []).extend((name, since_ns + dt) for dt in frame["dt"])
        return samples

    async def spooled_values(self) -> dict[str, list[float]]:
        """The values that the gateway had committed, by signal."""
        values: dict[str, list[float]] = {}
        async with spool.open(self.spool_file, epoch="unused") as opened:
            bodies = await opened.bodies()
        for batch in bodies:
            name = batch.stream.rpartition("/")[2]
            for frame in codec.parse(codec.stamped(batch.body, 0)).frames:
                values.setdefault(name, []).extend(
                    frame["value"] if "value" in frame else frame["values"][name]
                )
        return values

    # --- how --------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def observing(self, at: int) -> AsyncIterator[Testbed]:
        """A prototype with one signal's stream as its input `in`."""
        settings = PrototypeSettings(
            api=self.api_url, space="live", inputs={"in": address(at)}, outputs={}
        )
        broker = f"mqtt://127.0.0.1:{self.wires['broker'].port}"
        bus = BusSettings(broker=broker, credential=SecretStr(self.observer))
        async with connect(settings, bus) as bed:
            yield bed

    async def _until(self, is_so: Callable[[], bool], patience_s: float, what: str) -> None:
        deadline_s = time.monotonic() + patience_s
        while not is_so():
            if time.monotonic() > deadline_s:
                pytest.fail(f"not within {patience_s:g} s: {what}\n{self.last_words()}")
            await CLOCK.sleep(0.1)

    def last_words(self) -> str:
        """The end of every log."""
        parts = (self.source, self.server, self.gateway)
        return "\n".join(
            f"--- {each.name}\n{each.log.read_text(errors='replace')[-1500:]}"
            for each in parts
            if each.log.exists()
        )


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    pids: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            pids += map(int, (task / "children").read_text().split())
    return pids


def _as_good(series: Series) -> Series:
    """The same samples, good where they are uncertain."""
    quality = np.where(series.quality == UNCERTAIN, GOOD, series.quality)
    return series._replace(quality=quality.astype(np.uint8))


def address(at: int) -> StreamAddress:
    """The stream of a signal."""
    return StreamAddress(ORGANISATION, EQUIPMENT, f"s{at}")


def _sensors(url: str, load: Load) -> str:
    """A mapping over MQTT: one document a row, in which each stream has its field."""
    where = {"topic": mqtt_source.TOPIC, "time": "/ts", "time_format": "ns"}
    streams = {
        f"s{at}": {"period_s": 1 / load.hz, "signals": {f"s{at}": where | {"value": f"/s{at}"}}}
        for at in range(load.signals)
    }
    mqtt = {"url": url, "user": "ada", "keepalive_s": 2}
    return yaml.safe_dump(_head(load) | {"mqtt": mqtt, "streams": streams})


def _head(load: Load) -> dict[str, Any]:
    return {
        "organisation": ORGANISATION,
        "equipment": EQUIPMENT,
        "kind": "real",
        "time_stamps": {"stalled_s": load.stalled_s},
    }


def _mapping(url: str, load: Load) -> str:
    streams = {
        f"s{at}": {
            "trigger": "timestamp",
            "period_s": 1 / load.hz,
            "publishing_interval_s": load.publishing_s,
            "batch": {"age_s": load.age_s},
            "signals": {f"s{at}": {"node": f"nsu=urn:connected-testbed:simulators;s=Source.s{at}"}},
        }
        for at in range(load.signals)
    }
    opcua = {"url": url, "security": "none"}
    return yaml.safe_dump(_head(load) | {"opcua": opcua, "streams": streams})


@contextlib.asynccontextmanager
async def running(  # noqa: PLR0913 - each by its name
    folder: Path,
    seed: int,
    *,
    load: Load | None = None,
    influxdb: bool = False,
    source: Sequence[str] = (),
    sensors: bool = False,
    clocks: bool = False,
    disks: Mapping[str, int] | None = None,
) -> AsyncIterator[Rig]:
    """The whole chain, samples flowing.

    source: options of the machine.  sensors: it publishes to a Mosquitto of its own instead, with
    these arguments.
    clocks: server and gateway have wall clocks of their own.  disks: bytes of a small disk for
    `data`, `spool` or `influxd`.
    """
    load = load or Load()
    with ExitStack() as stack:
        for name, size in (disks or {}).items():
            stack.enter_context(disk.small(folder / name, size))
        rig = _made(folder, seed, load, stack, *source, influxdb=influxdb)
        if sensors:
            _let_sensors_publish(rig, stack, source)
        if clocks:
            _give_clocks(rig)
        try:
            await _started(rig)
            yield rig
        except BaseException:
            sys.stdout.write(f"seed {seed}\n{rig.last_words()}\n")
            raise
        finally:
            for part in (rig.gateway, rig.server, rig.source):
                await asyncio.to_thread(part.stop)


def _made(
    folder: Path, seed: int, load: Load, stack: ExitStack, *options: str, influxdb: bool
) -> Rig:
    source_port, api_port, mqtt_port = free_port(), free_port(), free_port()
    wires = {
        "source": stack.enter_context(wire(source_port)),
        "broker": stack.enter_context(wire(mqtt_port)),
        "api": stack.enter_context(wire(api_port)),
    }
    up = ["-m", "testbed", "up", "--no-runner", "--json", "--data", str(folder / "data")]
    if influxdb:
        wires["recorder"] = stack.enter_context(wire(mqtt_port))
        up[1:2] = ["tests.faults.server", str(wires["recorder"].port)]
    up += ["--port", str(api_port), "--mqtt-port", str(mqtt_port)]
    more: dict[str, str] = {}
    store: Store | None = None
    if influxdb:
        store = stack.enter_context(contextlib.closing(Store(folder / "influxd")))
        database = store.running
        wires["store"] = stack.enter_context(wire(int(database.url.rpartition(":")[2])))
        where = f"127.0.0.1:{wires['store'].port}/{database.organisation}/{database.bucket}"
        up += ["--store", f"influxdb://{where}"]
        more = {"TESTBED_STORE_TOKEN": database.token}
    book = folder / "offered.jsonl"
    (folder / "mapping.yaml").write_text(
        _mapping(f"opc.tcp://127.0.0.1:{wires['source'].port}", load)
    )
    return Rig(
        folder,
        load,
        random.Random(seed),  # noqa: S311 - no secret
        source=_source(folder, book, source_port, load.signals, *options, hz=load.hz),
        server=Process("server", up, folder, **more),
        gateway=Process("gateway", [], folder),
        wires=wires,
        api_url=f"http://127.0.0.1:{api_port}",
        source_port=source_port,
        store=store,
        books=[book],
    )


def _let_sensors_publish(rig: Rig, stack: ExitStack, more: Sequence[str]) -> None:
    """Put sensors and their broker in the place of the OPC UA server."""
    folder = rig.folder / "mosquitto"
    folder.mkdir()
    stack.enter_context(mosquitto.serve(folder, port=rig.source_port))
    url = f"mqtt://127.0.0.1:{rig.wires['source'].port}"
    (rig.folder / "mapping.yaml").write_text(_sensors(url, rig.load))
    size = [str(rig.load.signals), str(rig.load.hz), str(rig.folder / "stop")]
    command = ["-m", "tests.faults.mqtt_source", str(rig.source_port), str(rig.books[0]), *size]
    command += more
    rig.source = Process("source", command, rig.folder)


def _give_clocks(rig: Rig) -> None:
    """Start server and gateway with wall clocks of their own."""
    rig.clocks = {name: OffsetClock(rig.folder, name) for name in ("server", "gateway")}
    rig.server.environment |= rig.clocks["server"].environment


def _source(folder: Path, book: Path, port: int, signals: int, *options: str, hz: float) -> Process:
    command = ["-m", "tests.faults.source", str(port), str(book), str(signals), str(hz)]
    return Process("source", [*command, str(folder / "stop"), *options], folder)


async def _started(rig: Rig) -> None:
    rig.source.start()
    rig.server.start()
    await rig._until(lambda: bool(rig.server.said("ready")), START_S, "the server is ready")
    rig.administrator = str(rig.server.said("ready")["administrator"])
    streams = [{"space": "live", "stream": str(address(at))} for at in range(rig.load.signals)]
    async with api_client.connect(rig.api_url, rig.administrator) as door:
        rig.owner = await door.create_organisation(ORGANISATION, owner="owner", kind="partner")
    async with api_client.connect(rig.api_url, rig.owner) as door:
        credentials = {}
        for name, holds in {"gateway": {"writes": streams}, "observer": {"reads": streams}}.items():
            body = {"principal": name} | holds
            credentials[name] = (await door.request("POST", "/credentials", json=body))[
                "credential"
            ]
    rig.observer = credentials["observer"]
    rig.key = credentials["gateway"]
    rig.gateway = rig.another_gateway("gateway", "spool")
    if rig.clocks:
        rig.gateway.environment |= rig.clocks["gateway"].environment
    rig.began_ns = CLOCK.now_ns()
    rig.gateway.start()
    reads = '"connects": 1'
    await rig._until(lambda: reads in rig.gateway.log.read_text(), START_S, "the gateway reads")
    (rig.folder / "go").touch()
    book = rig.folder / "offered.jsonl"
    await rig._until(lambda: book.exists() and book.stat().st_size > 2_000, START_S, "samples flow")


def _has_ended(pid: int) -> bool:
    """Whether a process runs no more; an orphan that nobody has waited for yet does not run."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
