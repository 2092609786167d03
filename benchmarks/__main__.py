"""`make bench`: measure the data path, part by part, and write the results.

make bench                                  all of it, about 45 minutes on two idle cores
make bench ARGS="--quick"                   all of it in small; into testbed-data/
make bench ARGS="--part latency"            one part again; the others' results stay

The parts of COMPARISONS hold libraries against our own code; their results are `libraries.json`.
Those of `crowds`, clients and readers that come all at once, are `crowds.json`; those of
`simulation`, scenarios in virtual time, are `simulation.json`.
"""

import argparse
import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from benchmarks import (
    chain,
    comparison,
    crowds,
    history,
    latency,
    library_table,
    machine,
    meter,
    metrics_servers,
    peers,
    profiling,
    simulation,
    table,
)
from benchmarks.chain import Run, say, shown
from benchmarks.load import Load
from benchmarks.rig import Setup
from broker.clock import Clock, WallClock, text_of
from tests.services import telegraf as telegraf_product

RESULTS = machine.ROOT / "benchmarks" / "results" / "data-path.json"
DATA = machine.ROOT / "testbed-data" / "bench"
STAMPS = {"own": True, "shared": False}
DOCUMENTS = {"ten": 1.0, "one": 0.1}
"""Publishing interval in seconds, by how many values of a signal a document then holds."""
COST_STREAMS, STREAM_SIGNALS = 50, 100
MANY_SIGNALS = 5
TUTORIAL_STREAMS = 5
COMPARISONS = frozenset({"influxdb-client", "mqtt-clients", "metrics-server"})
"""Parts that hold a library against our own code, and have no goals."""
LIBRARIES = "libraries"
"""Their results, beside the others'."""
CROWDS = "crowds"
"""The part of crowds of clients and readers, whose results are in a file of that name."""
SIMULATION = "simulation"
"""The part of scenarios in virtual time, likewise."""
SCRAPES = 100
"""For each read of history that a plan has."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how much."""

    warm_s: float
    window_s: float
    held_s: float
    attempts: int
    latency_s: float
    reads: int
    held_from: Mapping[str, int]
    folder: Path

    def fresh(self, name: str) -> Path:
        """An empty folder for one run."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        return folder


def full(folder: Path, held_from: Mapping[str, int]) -> Plan:
    """What is published."""
    return Plan(10.0, 30.0, 60.0, 5, 60.0, 10, held_from, folder)


def quick(folder: Path, held_from: Mapping[str, int]) -> Plan:
    """Enough to see that it works, and about where it stands."""
    return Plan(4.0, 6.0, 6.0, 1, 8.0, 2, held_from, folder)


# --- the parts ------------------------------------------------------------------------------------


async def cost(plan: Plan, clock: Clock) -> dict[str, Any]:
    """CPU-seconds per million values at 50,000 values/s, in the four ways to stamp and publish."""
    ours: dict[str, dict[str, Any]] = {}
    runs: dict[str, dict[str, Any]] = {}
    for stamps, own in STAMPS.items():
        ours[stamps], runs[stamps] = {}, {}
        for documents, interval_s in DOCUMENTS.items():
            load = Load(COST_STREAMS, STREAM_SIGNALS, own=own)
            setup = Setup(load, interval_s, plan.fresh("cost"))
            run = await chain.run(setup, plan.window_s, clock, warm_s=plan.warm_s)
            say(shown(run))
            ours[stamps][documents] = _costs(run.per_million, ("api", "source"))
            runs[stamps][documents] = chain.facts(run)
    return {"ours": ours, "cost_runs": runs}


async def tutorial(plan: Plan, clock: Clock) -> dict[str, Any]:
    """The plain chain, at a rate that it carries."""
    load = Load(TUTORIAL_STREAMS, STREAM_SIGNALS, own=True)
    setup = Setup(load, DOCUMENTS["ten"], plan.fresh("tutorial"))
    result = await comparison.run(setup, plan.window_s, clock, warm_s=plan.warm_s)
    costs = _costs(result.per_million, ("source",))
    say(f"tutorial: {result.stored:,} stored of {result.offered:,.0f} offered, {costs}")
    volume = {"offered": round(result.offered), "stored": result.stored}
    return {"tutorial": costs | volume}


async def telegraf(plan: Plan, clock: Clock) -> dict[str, Any]:
    """Ours and two Telegrafs in turn at 50,000 values/s, in the four ways to stamp and publish.

    Where a goal is missed, also a profile of our gateway and recorder.
    """
    try:
        command = telegraf_product.build()
    except subprocess.CalledProcessError:
        say("not compared with Telegraf: it could not be built")
        return {}
    runs: dict[str, dict[str, Any]] = {stamps: {} for stamps in STAMPS}
    for stamps, documents, goal in table.TELEGRAF_GOALS:
        load = Load(COST_STREAMS, STREAM_SIGNALS, own=STAMPS[stamps])
        setup = Setup(load, DOCUMENTS[documents], plan.fresh("telegraf"))
        costs = await peers.in_turn(command, setup, plan.window_s, clock, warm_s=plan.warm_s)
        ratio = peers.ratio(costs)
        say(f"{stamps}, {documents}: {ratio} times cheaper than Telegraf, the goal is {goal:g}")
        if ratio.get("chain", 0.0) < goal:
            spied = replace(setup, folder=plan.fresh("profile"))
            profiled = await profiling.run(spied, plan.window_s, clock, warm_s=plan.warm_s)
            costs |= {"profile": profiled} if profiled else {}
        runs[stamps][documents] = costs
    return {"peers": {"telegraf": runs}}


async def held(plan: Plan, clock: Clock) -> dict[str, Any]:
    """The highest rate that is held with four zeros, in steps of 20 %."""
    rates, runs = {}, {}
    for name, signals in (("own", 100), ("shared", 100), ("many", MANY_SIGNALS)):

        async def attempt(streams: int, name: str = name, signals: int = signals) -> Run | None:
            load = Load(streams, signals, own=name == "own")
            setup = Setup(load, DOCUMENTS["ten"], plan.fresh("held"))
            try:
                result = await chain.run(setup, plan.held_s, clock, warm_s=plan.warm_s)
            except TimeoutError:
                say(f"{streams} x {signals} {name}: NOT HELD: did not come to flow")
                return None
            say(shown(result))
            return result

        best, tried = await chain.highest(attempt, plan.held_from[name], plan.attempts)
        rates[name] = round(best.setup.load.values_per_s) if best else None
        runs[name] = [chain.facts(each) for each in tried]
    return {"held_values_per_s": rates, "held_runs": runs}


async def delay(plan: Plan, clock: Clock) -> dict[str, Any]:
    """Latency at 1,000 values/s, batch age 0."""
    setup = Setup(Load(1, STREAM_SIGNALS), DOCUMENTS["one"], plan.fresh("latency"))
    latencies = await latency.run(setup, plan.latency_s, clock, warm_s=plan.warm_s)
    say(f"latency: {latencies}")
    return {"latency_ms": latencies}


async def past(plan: Plan, clock: Clock) -> dict[str, Any]:
    """History on both stores."""
    times = await history.run(plan.fresh("history"), plan.reads, clock)
    say(f"history: {times}")
    return {"history_ms": times}


async def crowd(plan: Plan, clock: Clock) -> dict[str, Any]:
    """Clients that come back at once, and live readers."""
    figures = await crowds.run(plan.fresh("crowds"), clock, quick=plan.attempts == 1)
    say(f"crowds: {figures}")
    return figures


async def simulated(plan: Plan, clock: Clock) -> dict[str, Any]:
    """Scenarios in virtual time."""
    quick_size = plan.attempts == 1
    figures = await simulation.run(plan.fresh("simulation"), clock, quick=quick_size)
    say(f"simulation: {figures}")
    return figures


async def profile(plan: Plan, clock: Clock) -> dict[str, Any]:
    """Where gateway and recorder spend their time at 50,000 values/s, own stamps, ten values."""
    load = Load(COST_STREAMS, STREAM_SIGNALS, own=True)
    setup = Setup(load, DOCUMENTS["ten"], plan.fresh("profile"))
    functions = await profiling.run(setup, plan.window_s, clock, warm_s=plan.warm_s)
    return {"profile": functions} if functions else {}


async def influxdb_client(plan: Plan, clock: Clock) -> dict[str, Any]:
    """influxdb-client beside our requests to InfluxDB."""
    from benchmarks import influxdb_clients  # noqa: PLC0415 - a library of this part alone

    figures = await influxdb_clients.run(plan.fresh("influxdb-client"), plan.reads // 2, clock)
    say(f"influxdb-client: {figures}")
    return {"influxdb_client": figures}


async def mqtt_clients(plan: Plan, clock: Clock) -> dict[str, Any]:
    """paho-mqtt and aiomqtt beside our own MQTT connection."""
    from benchmarks import mqtt_clients as clients  # noqa: PLC0415 - libraries of this part alone

    figures = await clients.run(plan.fresh("mqtt-clients"), max(plan.reads // 3, 1), clock)
    say(f"mqtt-clients: {figures}")
    return {"mqtt_clients": figures}


async def metrics_server(plan: Plan, clock: Clock) -> dict[str, Any]:
    """prometheus-client's server beside ours."""
    figures = await metrics_servers.run(plan.reads * SCRAPES, clock)
    say(f"metrics-server: {figures}")
    return {"metrics_server": figures}


PARTS: Mapping[str, Callable[[Plan, Clock], Any]] = {
    "cost": cost,
    "tutorial": tutorial,
    "telegraf": telegraf,
    "held": held,
    "latency": delay,
    "history": past,
    "profile": profile,
    CROWDS: crowd,
    SIMULATION: simulated,
    "influxdb-client": influxdb_client,
    "mqtt-clients": mqtt_clients,
    "metrics-server": metrics_server,
}


FILES: Mapping[str, str] = dict.fromkeys(COMPARISONS, LIBRARIES) | {
    CROWDS: CROWDS,
    SIMULATION: SIMULATION,
}
"""Parts whose results are in a file of their own, and its name."""
TABLES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    LIBRARIES: library_table.of,
    CROWDS: crowds.table,
    SIMULATION: simulation.table,
}


def _costs(per_million: Mapping[str, float], beside: tuple[str, ...]) -> dict[str, float]:
    return {
        f"{part}_cpu_s_per_million": round(per_million.get(part, 0.0), 3)
        for part in (*meter.CHAIN, *beside)
    }


# --- results --------------------------------------------------------------------------------------


def merged(
    path: Path, part: str, results: Mapping[str, Any], conditions: Mapping[str, Any]
) -> dict[str, Any]:
    """The results with those of one part made new; ratios follow from what is there."""
    document: dict[str, Any] = orjson.loads(path.read_bytes()) if path.exists() else {}
    document.update(results)
    document["machine"] = machine.described()
    document.setdefault("parts", {})[part] = conditions
    if "ours" in document and "tutorial" in document:
        plain = whole(document["tutorial"])
        document["ratio"] = {
            stamps: round(plain / whole(document["ours"][stamps]["ten"]), 1) for stamps in STAMPS
        }
    if "peers" in document:
        document["ratio"] = document.get("ratio", {}) | peers.ratios(document["peers"])
    return document


def whole(costs: Mapping[str, float]) -> float:
    """The chain's cost: gateway, broker, recorder and store."""
    return sum(costs[f"{part}_cpu_s_per_million"] for part in meter.CHAIN)


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS
    path.write_bytes(orjson.dumps(document, option=options) + b"\n")
    text = TABLES.get(path.stem, table.of)(document)
    path.with_suffix(".md").write_text(text, encoding="utf-8")


def main() -> None:
    """Read the command line, measure, write after each part."""
    parser = argparse.ArgumentParser(prog="make bench", description="Measure the data path.")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="only this one")
    parser.add_argument("--quick", action="store_true", help="in small, into testbed-data/")
    parser.add_argument("--out", type=Path, help="results file; its table is written beside it")
    parser.add_argument("--data", type=Path, default=DATA, help="folder for data; on a real disk")
    for name, streams in (("own", 360), ("shared", 800), ("many", 3_000)):
        parser.add_argument(
            f"--held-{name}", type=int, help=f"streams to begin with ({streams}; quick: a fifth)"
        )
        parser.set_defaults(**{f"{name}_default": streams})
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what we started ends with us
    shrink = 5 if given.quick else 1
    held_from = {
        name: getattr(given, f"held_{name}") or getattr(given, f"{name}_default") // shrink
        for name in ("own", "shared", "many")
    }
    plan = (quick if given.quick else full)(given.data, held_from)
    out = given.out or (DATA / "quick.json" if given.quick else RESULTS)
    clock = WallClock()
    commit = machine.commit()  # before a result makes it dirty
    for part in given.part or PARTS:
        say(f"measuring {part} ...")
        conditions = {
            "at": text_of(clock.now_ns())[:19] + "Z",
            "commit": commit,
            "quick": given.quick,
            "load_before": round(os.getloadavg()[0], 2),
            "loop_ms": machine.loop_ms(),
        }
        measured = asyncio.run(PARTS[part](plan, clock))
        results = out.with_name(f"{FILES[part]}.json") if part in FILES else out
        _write(results, merged(results, part, measured, conditions))
    others = {LIBRARIES: "libraries.md", CROWDS: "", SIMULATION: ""}
    pages = {out.with_name(f"{name}.json"): page for name, page in others.items()}
    for results, page in ({out: "performance.md"} | pages).items():
        if results.exists():
            text = results.with_suffix(".md").read_text(encoding="utf-8")
            sys.stdout.write(text)
            if out == RESULTS and page:
                table.put_text_into(machine.ROOT / "docs" / page, text)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(
            "interrupted: the parts before this one are written, and what it started has ended"
        )
