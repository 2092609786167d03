"""The same load, one after the other, through our chain and through two Telegrafs."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks import chain, counting, meter, rig, telegraf
from benchmarks.chain import Run
from benchmarks.counting import Verdict
from benchmarks.load import Load, signal_name, stream_name
from benchmarks.rig import PATIENCE_S, Setup
from broker.batch import GOOD, Long
from broker.clock import NS_PER_S, Clock
from broker.streams import Dtype
from testbed.processes.child_process import ChildProcess
from tests.services import influxd as influxd_product
from tests.services import mosquitto as mosquitto_product
from tests.services import telegraf as telegraf_product
from tests.services.influxd import Influxd

PAIR = ("gateway", "recorder")
MEASUREMENTS, FIELDS = "/^s[0-9]/", "/^x[0-9]/"
"""Streams and their values; beside each value Telegraf stores a field `Quality`, not counted."""


def ratios(peers: Mapping[str, Any]) -> dict[str, Any]:
    """The `ratio` of each run in {peer: {stamps: {documents: costs}}}, in a tree of that form."""
    return {
        peer: {
            stamps: {documents: ratio(costs) for documents, costs in settings.items()}
            for stamps, settings in runs.items()
        }
        for peer, runs in peers.items()
    }


def ratio(costs: Mapping[str, Any]) -> dict[str, Any]:
    """How many times cheaper ours is than a peer: {"pair": of gateway and recorder, "chain": with
    broker and store, "tuned": {the same against the tuned peer}}.

    costs: what `in_turn` returns.  Where a run lost a sample there is no ratio.
    """
    ours = costs["ours"]
    return _ratios(costs, ours) | {"tuned": _ratios(costs["tuned"], ours)}


def _ratios(peer: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, float]:
    if not (peer["clean"] and ours["held"]):
        return {}
    parts = {"pair": PAIR, "chain": meter.CHAIN}
    return {name: round(_sum(peer, some) / _sum(ours, some), 2) for name, some in parts.items()}


def _sum(costs: Mapping[str, Any], parts: Sequence[str]) -> float:
    return float(sum(costs[f"{part}_cpu_s_per_million"] for part in parts))


def costs_of(measured: Run) -> dict[str, Any]:
    """A run's CPU-seconds per million values by part, whether every sample was stored as it was
    offered (`clean`), and the run's facts.
    """
    per_million = {
        f"{part}_cpu_s_per_million": round(measured.per_million.get(part, 0.0), 3)
        for part in (*meter.CHAIN, "source")
    }
    return per_million | {"clean": measured.verdict.clean} | chain.facts(measured)


async def in_turn(
    command: Path, setup: Setup, seconds: float, clock: Clock, *, warm_s: float
) -> dict[str, Any]:
    """Measure a load through our chain, through Telegraf as it comes, and through a tuned one.

    command: Telegraf's binary.  Returns Telegraf's costs, with "tuned" and "ours" beneath.
    """
    ours = await chain.run(_within(setup, "ours"), seconds, clock, warm_s=warm_s)
    chain.say(f"ours: {chain.shown(ours)}")
    telegrafs = {}
    for name, tuning in (("telegraf", telegraf.AS_IT_COMES), ("tuned", telegraf.TUNED)):
        peer = Peer(command, _within(setup, name), tuning)
        telegrafs[name] = await run(peer, seconds, clock, warm_s=warm_s)
        chain.say(f"{name}: {chain.shown(telegrafs[name])}")
    beneath = {"ours": costs_of(ours), "tuned": costs_of(telegrafs["tuned"])}
    return costs_of(telegrafs["telegraf"]) | beneath


def _within(setup: Setup, name: str) -> Setup:
    return replace(setup, folder=setup.folder / name)


@dataclass(frozen=True, slots=True)
class Peer:
    """Two Telegrafs to run.  command: their binary."""

    command: Path
    setup: Setup
    tuning: telegraf.Tuning


@dataclass(frozen=True, slots=True)
class Flow:
    """Two Telegrafs that run: what feeds them, and what they write to."""

    source: ChildProcess
    store: Influxd
    first_seq: int


async def run(peer: Peer, seconds: float, clock: Clock, *, warm_s: float) -> Run:
    """Let a load flow through two Telegrafs, and measure a steady window of it as `chain.run` does;
    everything is stopped in the end.
    """
    async with _running(peer) as flow:
        await clock.sleep(warm_s)
        before, from_ns = meter.read(), clock.now_ns()
        await clock.sleep(seconds)
        after, to_ns = meter.read(), clock.now_ns()
        paused = await _pause(flow.source)
        offered = paused["values"] - paused["dropped"]
        drain_s = await chain.drained(lambda: _stored(flow.store), offered, clock)
        values = await _stored(flow.store, from_ns, to_ns)
        verdict = await _judge(flow, peer.setup.load, paused)
    used, window_s = after.since(before), (to_ns - from_ns) / NS_PER_S
    return Run(peer.setup, window_s, values, used, after.bytes, drain_s, verdict)


@asynccontextmanager
async def _running(peer: Peer) -> AsyncIterator[Flow]:
    """Start everything in the setup's folder; it is flowing when this is entered."""
    setup, tuning = peer.setup, peer.tuning
    (setup.folder / "mosquitto").mkdir(parents=True)
    async with AsyncExitStack() as stack:
        store = stack.enter_context(influxd_product.serve(setup.folder))
        mosquitto = stack.enter_context(mosquitto_product.serve(setup.folder / "mosquitto"))
        broker = telegraf.Broker(mosquitto.port, *next(iter(mosquitto_product.PASSWORDS.items())))
        source = await stack.enter_async_context(rig.source_of(setup))
        url = (await source.wait_for("ready"))["url"]
        recorder = telegraf.recorder_configuration(broker, store, tuning)
        stack.enter_context(_telegraf(peer, telegraf.RECORDER, recorder, "Connected [tcp"))
        gateway = telegraf.gateway_configuration(setup, url, broker, tuning)
        stack.enter_context(_telegraf(peer, telegraf.GATEWAY, gateway, "Loaded outputs"))
        async with asyncio.timeout(PATIENCE_S):
            first_seq = (await source.wait_for("publishing"))["first_seq"]
        yield Flow(source, store, first_seq)


@contextmanager
def _telegraf(peer: Peer, name: str, configuration: str, ready: str) -> Iterator[None]:
    path = peer.setup.folder / name / f"{name}.toml"
    path.parent.mkdir()
    path.write_text(configuration)
    with telegraf_product.running(peer.command, path, ready=ready):
        yield


async def _pause(source: ChildProcess) -> Mapping[str, Any]:
    """End the samples; what the source has offered in all, to the one session that there is."""
    rig.end_samples()
    async with asyncio.timeout(PATIENCE_S):
        return await source.wait_for("paused")


async def _stored(store: Influxd, from_ns: int | None = None, to_ns: int | None = None) -> int:
    return await counting.stored_in(store, MEASUREMENTS, from_ns, to_ns, fields=FIELDS)


async def _judge(flow: Flow, load: Load, paused: Mapping[str, Any]) -> Verdict:
    """Count all samples, and compare those of every tenth part of the streams one by one.

    paused: what the source has offered, and dropped because nobody fetched it, in values.
    """
    counts, span = await _stored(flow.store), (flow.first_seq, paused["next_seq"])
    compared = np.zeros(4, np.int64)
    for stream in range(0, load.streams, max(load.streams // chain.COMPARED_STREAMS, 1)):
        frame = await _samples(flow.store, load, stream)
        compared += counting.compare(load, stream, [frame], span)
    number, duplicated, wrong, silent = (int(count) for count in compared)
    offered, dropped = paused["values"], paused["dropped"]
    missing = max(offered - dropped - counts, 0)
    silent = max(silent, dropped)
    return Verdict(offered, counts, number, missing, duplicated, wrong, silent, gaps=0, dead=0)


async def _samples(store: Influxd, load: Load, stream: int) -> Long:
    """All samples of one stream as Telegraf has stored them."""
    names = tuple(signal_name(signal) for signal in range(load.signals))
    query = ";".join(f'SELECT "{name}" FROM "{stream_name(stream)}"' for name in names)  # noqa: S608 - ours
    headers = {"Authorization": f"Token {store.token}"}
    params = {"db": store.bucket, "epoch": "ns", "q": query}
    async with httpx.AsyncClient(headers=headers, timeout=counting.WAIT_S) as http:
        answer = (await http.post(f"{store.url}/query", data=params)).raise_for_status()
    return frame_of(answer.json()["results"], names)


def frame_of(results: Sequence[Mapping[str, Any]], names: tuple[str, ...]) -> Long:
    """The samples in InfluxQL's answer, which has a result for each signal."""
    rows = [result["series"][0]["values"] if "series" in result else [] for result in results]
    signals = np.repeat(np.arange(len(names), dtype=np.int32), [len(part) for part in rows])
    samples = [sample for part in rows for sample in part]
    return Long(
        np.array([time_ns for time_ns, _ in samples], np.int64),
        signals,
        np.array([value for _, value in samples], np.float64),
        np.full(len(samples), GOOD, np.uint8),
        names,
        (Dtype.FLOAT64,) * len(names),
    )
