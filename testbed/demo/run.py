"""`testbed demo`: the whole testbed on one machine, from a rig to a scored prototype, and a
verdict on every sample.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import yaml
from pydantic import SecretStr

from broker import api_client, codec
from broker.clock import Clock, ns_of
from broker.errors import Unavailable, Unknown
from broker.namespace import StreamAddress
from broker.settings import BusSettings, child_environment
from broker.streams import StreamSpec
from gateway.spool import spool
from simulators import ledger
from simulators.ledger import LedgerContent
from simulators.models.pump_rig import SIGNALS
from testbed.demo import report, verdict
from testbed.demo.child_process import Child, child
from testbed.demo.report import Evidence
from testbed.demo.verdict import Counters, Detection
from testbed_sdk import History, PrototypeSettings, connect
from testbed_sdk.connection import Testbed

SPACE = "run-demo"
RIG = StreamAddress("factory", "pump-rig", "rig")
SCORE = StreamAddress("company", "detector", "score")
PERIOD_S = 1.0
ROWS = 800
SPEED = 40.0
FAULT = "valve@520..660"
LONGEST_S = 25.0
PUBLISHING_S = 0.2
PATIENCE_S = 20.0
MAPPING = "mapping.yaml"
ON_LOOPBACK = {
    "TESTBED_HOST": "127.0.0.1",
    "TESTBED_TLS": "",
    "TESTBED_TLS_CERT_FILE": "",
    "TESTBED_TLS_KEY_FILE": "",
    "TESTBED_CA": "",
}
"""The demo stays on this machine, whatever is set for another server."""
EXAMPLES = Path(__file__).parents[2] / "examples"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.  data: a recording to play instead of the model.  folder: for data, logs and
    the report.
    """

    folder: Path
    data: Path | None = None
    speed: float | None = None
    times: str = "original"
    store: str = "duckdb"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came out."""

    samples_offered: int
    samples_stored: int
    counters: Counters
    latency_ms: Mapping[str, float | None]
    detection: Detection
    report: Path

    def as_json(self) -> dict[str, Any]:
        """The keys that scripts rely on."""
        return {
            "samples_offered": self.samples_offered,
            "samples_stored": self.samples_stored,
            "lost": self.counters.lost,
            "duplicated": self.counters.duplicated,
            "wrong": self.counters.wrong,
            "silent": self.counters.silent,
            "latency_ms": self.latency_ms,
            "f1": self.detection.f1,
            "far": self.detection.far,
            "mar": self.detection.mar,
            "report": str(self.report),
        }


@dataclass(slots=True)
class Progress:
    """What has happened so far, for whoever shows it."""

    phase: str = "starting"
    offered: int = 0
    received: int = 0
    scored: int = 0
    latencies_s: list[float] = field(default_factory=list)
    done: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """A demo that runs: where everything is."""

    plan: Plan
    api: str
    broker: str
    owner: str
    credentials: Mapping[str, str]
    machine: str

    @property
    def observer(self) -> str:
        """The credential that reads both streams."""
        return self.credentials["observer"]


@asynccontextmanager
async def staged(
    plan: Plan, clock: Clock, progress: Progress
) -> AsyncIterator[tuple[Stage, Outcome]]:
    """Run the demo to its verdict; what runs stays until this is left."""
    plan = replace(plan, speed=_speed(plan))  # a recording is read once to know how long it is
    async with AsyncExitStack() as stack:
        progress.phase = "starting the server and the machine"
        server = await stack.enter_async_context(_server(plan))
        machine = await stack.enter_async_context(_machine(plan))
        said = await server.told("ready")
        async with api_client.connect(said["api"], said["administrator"]) as door:
            owner, keys = await _parties(said["api"], door)
        url = (await machine.told("ready"))["url"]
        stage = Stage(plan, said["api"], said["broker"], owner, keys, url)
        progress.phase = "starting the prototype"
        detector = await stack.enter_async_context(_detector(stage))
        await detector.told("listening")
        (plan.folder / MAPPING).write_text(_mapping(url, plan))
        async with _observing(stage) as observer:
            async with _gateway(stage):
                progress.phase = "running"
                await _watch(observer, machine, detector, progress, clock)
            progress.phase = "checking every sample"
            outcome = await _judge(stage, observer, progress)
        progress.done = True
        await machine.stop()
        yield stage, outcome


@asynccontextmanager
async def kept(stage: Stage) -> AsyncIterator[None]:
    """Machine, gateway and prototype once more, without end, under the credentials they had."""
    port = stage.machine.rpartition(":")[2]
    what = (
        ["csv", str(stage.plan.data), "--times", "shifted", "--repeat"]
        if stage.plan.data
        else ["pump-rig"]
    )
    machine = child(
        "machine",
        [
            "-m",
            "testbed",
            "simulate",
            *what,
            "--speed",
            str(_speed(stage.plan)),
            "--port",
            port,
            "--json",
        ],
        log=stage.plan.folder / "machine.log",
    )
    async with machine as running:
        await running.told("ready")
        async with _detector(stage) as detector, _gateway(stage), asyncio.TaskGroup() as tasks:
            told = [
                tasks.create_task(_unheard(one), name=f"{one.name}'s output")
                for one in (running, detector)
            ]
            yield
            for one in told:
                one.cancel()


async def _unheard(child: Child) -> None:
    """Read on, so that its pipe never fills."""
    await child.told("the end")


async def _watch(
    observer: Testbed, machine: Child, detector: Child, progress: Progress, clock: Clock
) -> None:
    """Follow the run until the last row has come through, and its score."""
    seen = {"rig": 0, "score": 0}

    async def follow(name: str) -> None:
        async for batch in observer.input(name):
            newest = max(
                (int(one.time_ns[-1]) for _, one in batch.batch.series() if len(one.time_ns)),
                default=0,
            )
            seen[name] = max(seen[name], newest)
            if name == "rig":
                progress.received += len(batch.batch)
                progress.latencies_s.append(batch.latency_s)
            else:
                progress.scored += len(batch.batch) // 2

    def advance(said: Mapping[str, Any]) -> None:
        progress.offered = said.get("rows", progress.offered) * len(SIGNALS)

    async with asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(follow(name), name=f"observer of {name}") for name in seen]
        played = await machine.told("played", on_other=advance)
        progress.offered = played["rows"] * len(SIGNALS)
        try:
            async with asyncio.timeout(PATIENCE_S):
                while min(seen.values()) < played["last_ns"]:
                    await clock.sleep(0.05)
        except TimeoutError:
            pass  # the counters will say what is missing
        for one in following:
            one.cancel()
    await detector.stop()


# --- the parts, each a process of its own ---------------------------------------------------------


def _server(plan: Plan) -> Any:
    command = [
        "-m",
        "testbed",
        "up",
        "--json",
        "--data",
        str(plan.folder / "data"),
        "--port",
        "0",
        "--mqtt-port",
        "0",
    ]
    return child(
        "server",
        [*command, "--store", plan.store],
        log=plan.folder / "server.log",
        environment=os.environ | ON_LOOPBACK,
    )


def _machine(plan: Plan) -> Any:
    what = [
        "pump-rig",
        "--rows",
        str(ROWS),
        "--period",
        str(PERIOD_S),
        "--seed",
        "7",
        "--fault",
        FAULT,
    ]
    if plan.data is not None:
        what = ["csv", str(plan.data), "--times", plan.times]
    command = [
        "-m",
        "testbed",
        "simulate",
        *what,
        "--speed",
        str(_speed(plan)),
        "--port",
        "0",
        "--json",
        "--wait",
    ]
    ledger_file = str(plan.folder / "offered.jsonl")
    return child(
        "machine",
        [*command, "--ledger", ledger_file],
        log=plan.folder / "machine.log",
        environment=child_environment(os.environ),
    )


def _speed(plan: Plan) -> float:
    """As asked for; else so that a recording takes half a minute at the most."""
    if plan.speed is not None:
        return plan.speed
    if plan.data is None:
        return SPEED
    from simulators import replay  # noqa: PLC0415 - read here only to know how long it is

    rows = replay.read(plan.data).content
    return max(1.0, (rows[-1].time_ns - rows[0].time_ns) / 1e9 / LONGEST_S)


def _detector(stage: Stage) -> Any:
    script = EXAMPLES / "detector" / "detector.py"
    if not script.exists():
        raise Unknown(
            f"the example {script} is not there", hint="run the demo from a checkout of the project"
        )
    environment = _environment(stage, "detector") | {
        "TESTBED_INPUTS": f"rig={RIG}",
        "TESTBED_OUTPUTS": f"score={SCORE}",
    }
    return child(
        "prototype", [str(script)], log=stage.plan.folder / "prototype.log", environment=environment
    )


def _gateway(stage: Stage) -> Any:
    environment = _environment(stage, "gateway") | {
        "TESTBED_SPOOL": str(stage.plan.folder / "spool")
    }
    command = ["-m", "testbed", "gateway", "run", str(stage.plan.folder / MAPPING)]
    return child("gateway", command, log=stage.plan.folder / "gateway.log", environment=environment)


def _environment(stage: Stage, principal: str) -> dict[str, str]:
    return (
        child_environment(os.environ)
        | ON_LOOPBACK
        | {
            "TESTBED_API": stage.api,
            "TESTBED_BROKER": stage.broker,
            "TESTBED_CREDENTIAL": stage.credentials[principal],
            "TESTBED_SPACE": SPACE,
        }
    )


def _mapping(url: str, plan: Plan) -> str:
    """The demo machine's mapping, as a factory engineer would write it."""
    signals = {
        one.name: {
            "node": f"nsu=urn:connected-testbed:simulators;s=PumpRig.{one.name}",
            "unit": one.unit,
            "low": one.low,
            "high": one.high,
            "resolution": one.resolution,
            "description": one.description,
        }
        for one in SIGNALS
    }
    stream = {
        "trigger": "timestamp",
        "period_s": PERIOD_S / _speed(plan),
        "publishing_interval_s": PUBLISHING_S,
        "signals": signals,
    }
    return yaml.safe_dump(
        {
            "organisation": RIG.organisation,
            "equipment": RIG.equipment,
            "name": "Pump rig of the demo",
            "kind": "simulated",
            "opcua": {"url": url, "security": "none"},
            "streams": {RIG.stream: stream},
        },
        sort_keys=False,
    )


async def _parties(url: str, door: api_client.Api) -> tuple[str, dict[str, str]]:
    """A factory that grants its rig to a small firm: the credential of the factory's owner, and one
    for each part with exactly the streams it needs.

    door: the administrator's, who makes the two and reads neither's streams.
    """
    rig, score = ({"space": SPACE, "stream": str(one)} for one in (RIG, SCORE))
    factory = await door.create_organisation(RIG.organisation, owner="factory-owner")
    firm = await door.create_organisation(SCORE.organisation, owner="company-owner", kind="company")
    async with api_client.connect(url, factory) as owner:
        granted = {"company": SCORE.organisation, "streams": [rig], "purpose": "find its faults"}
        await owner.request("POST", "/grants", json=granted)
        keys = await _machines(owner, {"gateway": {"writes": [rig]}})
    async with api_client.connect(url, firm) as owner:
        reading = {"detector": {"reads": [rig], "writes": [score]}}
        keys |= await _machines(owner, reading | {"observer": {"reads": [rig, score]}})
    return factory, keys


async def _machines(
    door: api_client.Api, wanted: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Credentials by the names of the machines."""
    made = {}
    for name, holds in wanted.items():
        answer = await door.request("POST", "/credentials", json={"principal": name} | dict(holds))
        made[name] = str(answer["credential"])
    return made


@asynccontextmanager
async def _observing(stage: Stage) -> AsyncIterator[Testbed]:
    settings = PrototypeSettings(
        api=stage.api, space=SPACE, inputs={"rig": RIG, "score": SCORE}, outputs={}
    )
    bus = BusSettings(broker=stage.broker, ca=None, credential=SecretStr(stage.observer))
    async with connect(settings, bus) as observer:
        yield observer


# --- the verdict ----------------------------------------------------------------------------------


async def _judge(stage: Stage, observer: Testbed, progress: Progress) -> Outcome:
    """Hold the source's ledger, the gateway's spool and the store against one another."""
    offered = ledger.read(stage.plan.folder / "offered.jsonl")
    whole = {"from_ns": offered.rows[0].time_ns - 10**9, "to_ns": offered.rows[-1].time_ns + 10**9}
    rig = await observer.history("rig", **whole)
    try:
        score = await observer.history("score", **whole)
    except Unknown:
        raise Unavailable(
            f"the prototype published nothing; its log is {stage.plan.folder / 'prototype.log'}"
        ) from None
    samples = _offered_samples(offered)
    counters = verdict.counters(
        samples,
        rig.series,
        await _spooled(stage.plan.folder / "spool", rig.spec),
        dead=await _dead(stage),
        gaps=rig.gaps,
    )
    truth = {row.time_ns: row.anomaly for row in offered.rows if row.anomaly is not None}
    flags = score["anomaly"]
    detection = verdict.detection(
        truth, dict(zip(flags.time_ns.tolist(), flags.values.tolist(), strict=True))
    )
    outcome = Outcome(
        samples_offered=len(samples),
        samples_stored=sum(len(one.time_ns) for one in rig.series.values()),
        counters=counters,
        latency_ms=_percentiles(progress.latencies_s),
        detection=detection,
        report=stage.plan.folder / "report.html",
    )
    report.write(outcome.report, _evidence(stage.plan, outcome, rig, score, offered))
    return outcome


async def _dead(stage: Stage) -> list[tuple[str, int]]:
    """The samples that the recorder set apart with a reason."""
    async with api_client.connect(stage.api, stage.owner) as door:
        buried = await door.items(f"/streams/{RIG}/dead-letters", space=SPACE, limit=1000)
    return [
        (one["signal"], ns_of(one["time"]))
        for one in buried
        if one["signal"] is not None and one["time"] is not None
    ]


def _offered_samples(offered: LedgerContent) -> dict[tuple[str, int], float]:
    """Every sample by what it is known by; of two at one time the later is 1 ns later, as
    everywhere.
    """
    samples: dict[tuple[str, int], float] = {}
    for row in offered.rows:
        for name, value in zip(offered.signals, row.values, strict=True):
            time_ns = row.time_ns
            while (name, time_ns) in samples:
                time_ns += 1
            samples[name, time_ns] = value
    return samples


async def _spooled(folder: Path, spec: StreamSpec) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for path in await asyncio.to_thread(lambda: sorted(folder.glob("*.sqlite"))):
        async with spool.open(path, epoch="unused") as kept:
            for one in await kept.bodies():
                frames, _ = codec.frames_from_json(orjson.loads(one.body)["frames"], spec)
                for frame in frames:
                    for name, series in frame.series():
                        found += [(name, time_ns) for time_ns in series.time_ns.tolist()]
    return found


def _percentiles(latencies_s: list[float]) -> dict[str, float | None]:
    if not latencies_s:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(np.array(latencies_s) * 1000, [50, 99]).round(2).tolist()
    return {"p50": p50, "p99": p99}


def _evidence(
    plan: Plan, outcome: Outcome, rig: History, score: History, offered: LedgerContent
) -> Evidence:
    spans: list[tuple[int, int]] = []
    for before, row in zip((None, *offered.rows), offered.rows, strict=False):
        if row.anomaly and before is not None and before.anomaly:
            spans[-1] = (spans[-1][0], row.time_ns)
        elif row.anomaly:
            spans.append((row.time_ns, row.time_ns))
    return Evidence(
        title="Testbed demo",
        subtitle=f"{plan.data.name if plan.data else 'pump rig'}, over OPC UA, recorded in {SPACE}",
        signals=rig.series,
        units={one.name: one.unit for one in rig.spec.signals},
        scores={"score": score["score"], "anomaly": score["anomaly"]},
        truth=spans,
        gaps=rig.gaps,
        facts=facts(outcome),
        clean=outcome.counters.clean,
    )


def facts(outcome: Outcome) -> dict[str, str]:
    """The outcome in words and numbers, for a table."""
    told = outcome.as_json()
    rates = {"F1": "f1", "false-alarm rate": "far", "missed-alarm rate": "mar"}
    return {
        "samples offered": f"{told['samples_offered']:,}",
        "samples stored": f"{told['samples_stored']:,}",
        **{name: str(told[name]) for name in ("lost", "duplicated", "wrong", "silent")},
        "latency p50 / p99": " / ".join(
            f"{one:.1f} ms" if one is not None else "-" for one in outcome.latency_ms.values()
        ),
        **{
            name: "no labels" if told[key] is None else f"{told[key]:.3f}"
            for name, key in rates.items()
        },
    }
