"""Crowds, one who sends too much, and one who does not listen: the others hardly notice."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np
import pytest

from benchmarks import counting, crowds, meter
from benchmarks import load as loads
from benchmarks import rig as load_rigs
from broker import api_client
from broker.clock import NS_PER_S
from testbed_sdk.inputs import Received
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, Process, Rig

pytestmark = pytest.mark.alone

MIB = 1024**2
MOST_RSS = {"gateway": 768 * MIB, "recorder": 1024 * MIB, "broker": 1024 * MIB}
"""Of all its processes: of two gateways here, one of which has 72,000 signals at full size."""
CROWD = 20
WARM_S = 5.0
"""Until figures are taken, and as long as those before the fault at least."""
DRAIN_S = 600.0
"""Time in which what an overload left in the spool must be stored."""
KEPT_S = 600.0
"""The sender has room for what is too much, as its spool would: nothing but we may lose it."""
OVERLOAD_FACTOR, FROZEN_FACTOR = 2.0, 1.2
CLIENTS_BACK_S = {60: 10.0, 300: 20.0, 1_000: 30.0}
GATEWAY_BACK_S = 10.0
READERS_API_S, READERS_LAG_S, READERS_REVOKE_S = 0.25, 1.0, 1.0
READERS_RSS = 768 * MIB
"""Of the whole server, with recorder and DuckDB."""


def p99_s(ages_s: Sequence[float]) -> float:
    """Of the ages of batches, the one that one in a hundred is beyond."""
    assert len(ages_s) >= 20, "too few batches to speak of"
    return float(np.quantile(ages_s, 0.99))


def age_s(received: Received) -> float:
    """From the newest sample's own time to its handing over."""
    newest_ns = max(int(frame.time_ns.max()) for frame in received.batch.frames)
    return (received.received_ns - newest_ns) / 1e9


@contextlib.asynccontextmanager
async def listening(rig: Rig, streams: Sequence[int]) -> AsyncIterator[list[float]]:
    """The ages of the batches of some streams as they come, while open."""
    ages_s: list[float] = []

    async def listen(at: int) -> None:
        async with rig.observing(at) as bed:
            async for received in bed.input("in"):
                if received.batch.frames:
                    ages_s.append(age_s(received))  # noqa: PERF401 - it has no end

    async with asyncio.TaskGroup() as tasks:
        listeners = [tasks.create_task(listen(at), name=f"listener {at}") for at in streams]
        yield ages_s
        for listener in listeners:
            listener.cancel()


@contextlib.asynccontextmanager
async def overload(rig: Rig, streams: int) -> AsyncIterator[load_rigs.Rig]:
    """Another partner with gateways of its own, who sends so many streams of 100 signals."""
    assert rig.store is not None
    folder = rig.folder / "overload"
    folder.mkdir()
    setup = load_rigs.Setup(loads.Load(streams, 100), 0.5, folder, kept_s=KEPT_S)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(load_rigs.source_of(setup))
        url = (await source.wait_for("ready"))["url"]
        broker = f"mqtt://127.0.0.1:{rig.wires['broker'].port}"
        async with api_client.connect(rig.api_url, rig.administrator) as door:
            owner = await door.create_organisation(
                load_rigs.ORGANISATION, owner="bench-owner", kind="partner"
            )
        known = (rig.api_url, broker, rig.administrator, owner)
        chain = load_rigs.Rig(setup, rig.store.running, *known, source)
        async with api_client.connect(rig.api_url, owner) as door:
            keys = [await load_rigs._credential(door, setup, at) for at in range(setup.gateways)]
        for number, key in enumerate(keys):
            await stack.enter_async_context(load_rigs._gateway(chain, number, url, key))
        await chain.flowing()
        yield chain


@pytest.mark.influxd
async def test_a_partner_who_sends_too_much_harms_no_other(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    most: dict[str, int] = {}
    async with (
        rigs.running(tmp_path, seed, load=size.load, influxdb=True) as rig,
        listening(rig, [0, 1]) as ages_s,
    ):
        await CLOCK.sleep(WARM_S)
        ages_s.clear()
        await CLOCK.sleep(max(WARM_S, size.overload_s / 4))
        before_s = p99_s(ages_s)
        async with overload(rig, size.overload) as chain:
            ages_s.clear()
            for _ in range(round(size.overload_s)):
                await CLOCK.sleep(1.0)
                held = (await asyncio.to_thread(meter.read)).bytes
                most = {part: max(most.get(part, 0), held.get(part, 0)) for part in MOST_RSS}
            during_s = p99_s(ages_s)
            await chain.pause()
            paused_s = CLOCK.monotonic_ns() / NS_PER_S
            await _drained(chain)
            drain_s = CLOCK.monotonic_ns() / NS_PER_S - paused_s
            verdict = await counting.judge(chain, range(chain.setup.load.streams))
        await rig.settled()
        counters, offered, _ = await rig.judged()
    both = type(counters)(
        counters.lost + verdict.lost,
        counters.duplicated + verdict.duplicated,
        counters.wrong + verdict.wrong,
        counters.silent + verdict.silent,
    )
    rate = chain.setup.load.values_per_s
    summary = (
        f"p99 {before_s * 1e3:.0f} ms, then {during_s * 1e3:.0f} ms, RSS {most},"
        f" drained in {drain_s:.0f} s\n"
    )
    sys.stdout.write(summary)
    fault = f"one partner sends {rate:,.0f} values/s for {size.overload_s:g} s"
    record(fault, "influxdb", both, offered + verdict.offered)
    assert both.clean, (counters, verdict)
    assert verdict.dead == 0
    assert all(most[part] <= limit for part, limit in MOST_RSS.items()), most
    assert during_s <= OVERLOAD_FACTOR * size.within * before_s, summary


async def _drained(chain: load_rigs.Rig) -> None:
    """All that the source could send is stored."""
    async with asyncio.timeout(DRAIN_S):
        while await counting.stored(chain) < chain.offered - chain.dropped:
            await CLOCK.sleep(0.5)


async def test_a_subscriber_who_stops_is_told_what_it_missed_and_slows_nobody(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with (
        rigs.running(tmp_path, seed, load=size.load) as rig,
        listening(rig, [0] * (CROWD - 1)) as ages_s,
    ):
        slow = _subscriber(rig)
        slow.start()
        try:
            await CLOCK.sleep(WARM_S)
            ages_s.clear()
            await CLOCK.sleep(max(WARM_S, size.frozen_s / 10))
            before_s = p99_s(ages_s)
            os.kill(slow.pid, signal.SIGSTOP)
            ages_s.clear()
            await CLOCK.sleep(size.frozen_s)
            during_s = p99_s(ages_s)
            os.kill(slow.pid, signal.SIGCONT)
            await rig.sleep(8.0)
            await rig.settled()
            counters, offered, _ = await rig.judged()
        finally:
            await asyncio.to_thread(slow.stop)
    events = slow.told()
    got, missed = sum(each["got"] for each in events), sum(each["missed"] for each in events)
    sys.stdout.write(f"p99 {before_s:.3f} s, then {during_s:.3f} s; got {got}, missed {missed}\n")
    record(f"a subscriber of {CROWD} stopped {size.frozen_s:g} s", "embedded", counters, offered)
    assert counters.clean, counters
    assert events[-1]["seq"] - events[0]["seq"] + 1 == got + missed
    assert missed > 0 or size.frozen_s < 60
    assert during_s <= FROZEN_FACTOR * size.within * before_s


def _subscriber(rig: Rig) -> Process:
    """A prototype in a process of its own, which tells of each batch."""
    return Process(
        "subscriber",
        ["-m", "tests.faults.subscriber"],
        rig.folder,
        TESTBED_API=rig.api_url,
        TESTBED_BROKER=f"mqtt://127.0.0.1:{rig.wires['broker'].port}",
        TESTBED_CREDENTIAL=rig.observer,
        TESTBED_INPUTS=f"in={rigs.address(0)}",
    )


async def test_clients_that_all_come_back_at_once_are_let_in(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        back = {count: await crowds.clients_back(rig, count, CLOCK) for count in size.clients}
        await rig.settled()
        counters, offered, _ = await rig.judged()
    sys.stdout.write(f"{back}\n")
    largest = max(back)
    fault = f"broker killed, {', '.join(map(str, back))} clients come back"
    record(fault, "embedded", counters, offered, recovery_s=back[largest].gateway_s)
    assert counters.clean, counters
    for count, crowd in back.items():
        assert crowd.clients_s <= CLIENTS_BACK_S[count] * size.within, back
        assert crowd.gateway_s <= GATEWAY_BACK_S * size.within, back
        assert crowd.accepted <= crowd.audited <= crowd.accepted * 1.1, back


async def test_live_readers_slow_neither_recorder_nor_api_and_all_end_with_their_right(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        costs = {
            count: await crowds.readers_cost(rig, count, CLOCK, size.reading_s)
            for count in size.readers
        }
        await rig.settled()
        counters, offered, _ = await rig.judged()
    sys.stdout.write(f"{costs}\n")
    record(f"{', '.join(map(str, costs))} live readers", "embedded", counters, offered)
    assert counters.clean, counters
    for count, cost in costs.items():
        assert cost.ended == count, costs
        assert cost.missed == 0, costs
        assert cost.api_p99_ms / 1e3 <= READERS_API_S * size.within, costs
        assert cost.recording_lag_p99_s <= READERS_LAG_S * size.within, costs
        assert cost.revoke_s <= READERS_REVOKE_S * size.within, costs
        assert cost.rss_mib * MIB <= READERS_RSS, costs
