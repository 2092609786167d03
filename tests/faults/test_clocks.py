"""Clocks that are set, by an hour or a century, and samples that lie centuries apart."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pydantic import SecretStr

from broker import api_client, codec, messages
from broker.batch import Batch, EquipmentKind, Source, Wide
from broker.bus import client
from broker.clock import DAY_NS, HOUR_S, NS_PER_S
from broker.messages import Freshness, Held
from broker.namespace import EquipmentAddress, StreamAddress
from broker.settings import BusSettings
from broker.streams import MOST_LIMIT_S, Signal, StreamSpec
from testbed_sdk import history
from testbed_sdk.history import HistoryQuery
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, Rig

CENTURY_S = 100 * 366 * 24 * HOUR_S
STEPS_S = (-HOUR_S, HOUR_S, CENTURY_S)
SET = "the clock of the server was set"
ALARM_S = 60.0
STALE_S = 5.0 + 2.0
BACK_S = 10.0
FRESH_S = 2.0
"""A gateway tells of it every three seconds, and a busy machine is late now and then."""
WEEK_NS = 7 * DAY_NS
MIB = 1024**2
MOST_GROWN = 1024 * MIB
"""Of InfluxDB's memory, while samples of one publisher are spread over ten years."""


async def _status(rig: Rig) -> dict[str, Any]:
    async with api_client.connect(rig.api_url, rig.administrator) as api:
        status: dict[str, Any] = await api.request("GET", "/status")
    return status


async def _newest_head(rig: Rig) -> str:
    async with api_client.connect(rig.api_url, rig.administrator) as api:
        page = await api.request("GET", "/audit/heads", params={"newest": True})
    return str(page["items"][0]["signature"]) if page["items"] else ""


async def _within(patience_s: float, what: str, is_so: Callable[[], Awaitable[bool]]) -> float:
    """Wait until something is so; how long it took, in s."""
    since_s = time.monotonic()
    while not await is_so():
        assert time.monotonic() - since_s < patience_s, what
        await CLOCK.sleep(0.2)
    return time.monotonic() - since_s


async def test_a_server_whose_clock_is_set_goes_on_and_tells_of_it(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load, clocks=True) as rig:
        await rig.sleep(1.0, 2.0)
        alarms_seen: list[str] = []
        for step_s in (*STEPS_S, 0.0):
            head = await _newest_head(rig)
            rig.clocks["server"].set(step_s)

            async def is_alarm() -> bool:
                alarms = (await _status(rig))["alarms"]
                new = [each for each in alarms if SET in each and each not in alarms_seen]
                alarms_seen.extend(new)
                return bool(new)

            async def is_fresh() -> bool:
                return (await rig.told(0)).state is Freshness.FRESH

            async def is_signed(head: str = head) -> bool:
                return await _newest_head(rig) != head

            await _within(ALARM_S, "no alarm", is_alarm)
            await _within(ALARM_S, "no head of the audit is signed", is_signed)
            await CLOCK.sleep(1.0)
            await _within(FRESH_S * size.within, "it is stale", is_fresh)
        took_s = await rig.recovered()
        await rig.settled()
        counters, offered, _ = await rig.judged()
    record("server's clock set back, ahead, a century", "embedded", counters, offered)
    assert len(alarms_seen) == len(STEPS_S) + 1
    assert took_s <= BACK_S * size.within
    assert counters.clean, counters


async def test_a_gateway_whose_clock_is_set_is_fresh_and_once_dead_stale_in_its_time(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load, clocks=True) as rig:
        await rig.sleep(1.0, 2.0)
        stale_s, took_s = [], []

        async def is_alarm() -> bool:
            health = await rig.told(0)
            is_told = any("the clock of its gateway is" in alarm for alarm in health.alarms)
            return is_told and health.state is Freshness.FRESH

        async def is_stale() -> bool:
            return (await rig.told(0)).state is Freshness.STALE

        for step_s in STEPS_S:
            rig.clocks["gateway"].set(step_s)
            await _within(ALARM_S, "no alarm, or it is stale", is_alarm)
            await asyncio.to_thread(rig.gateway.kill)
            stale_s.append(await _within(STALE_S * size.within, "it is fresh", is_stale))
            rig.gateway.start()
            took_s.append(await rig.recovered())
        await rig.settled()
        counters, offered, _ = await rig.judged(as_good=True)
    sys.stdout.write(f"stale after {stale_s} s, back after {took_s} s\n")
    fault = "gateway's clock set back, ahead, a century, then killed"
    record(fault, "embedded", counters, offered, recovery_s=max(took_s))
    assert counters.clean, counters
    assert max(took_s) <= BACK_S * size.within


# --- samples that lie far apart -------------------------------------------------------------------


STREWN = StreamAddress("strewn", "archive", "x")
EPOCH = "strewn"


@dataclass
class Strewn:
    """A publisher whose samples are spread over weeks, one a document, back from now."""

    rig: Rig
    weeks: int
    spec: StreamSpec
    key: str = ""
    times_ns: list[int] = field(default_factory=list)
    held: Held = field(default_factory=lambda: Held(0))

    async def register(self) -> None:
        async with api_client.connect(self.rig.api_url, self.rig.administrator) as api:
            owner = await api.create_organisation(
                STREWN.organisation, owner="strewn-owner", kind="partner"
            )
        both = [{"space": "live", "stream": str(STREWN)}]
        async with api_client.connect(self.rig.api_url, owner) as api:
            body = {"principal": "strewn-writer", "writes": both, "reads": both}
            self.key = str((await api.request("POST", "/credentials", json=body))["credential"])
        async with api_client.connect(self.rig.api_url, self.key) as api:
            await api.register_equipment(
                EquipmentAddress(STREWN.organisation, STREWN.equipment),
                name="archive",
                kind=EquipmentKind.REAL,
            )
            self.spec = await api.register_spec(self.spec)

    def documents(self) -> Iterator[bytes]:
        now_ns = CLOCK.now_ns()
        for week in range(self.weeks):
            time_ns = now_ns - week * WEEK_NS
            self.times_ns.append(time_ns)
            frame = Wide(np.array([time_ns], np.int64), {"x": np.array([week + 0.5])})
            batch = Batch(self.spec.version, (frame,), Source.LIVE, epoch=EPOCH, seq=week + 1)
            yield codec.stamped(codec.body(batch), now_ns)

    async def publish(self) -> None:
        """Publish each document, and again every ten seconds until it is marked, as a spool."""
        broker = f"mqtt://127.0.0.1:{self.rig.wires['broker'].port}"
        settings = BusSettings(broker=broker, credential=SecretStr(self.key))
        documents = dict(enumerate(self.documents(), 1))
        async with (
            client.open(settings, CLOCK, client_id="strewn-writer") as bus,
            bus.subscribe(
                [f"tb1/live/mark/{STREWN.owner}"], capacity=100, overflow="drop_oldest"
            ) as marks,
            asyncio.TaskGroup() as tasks,
        ):
            await bus.ready()
            following = tasks.create_task(self._follow(marks), name="marks")
            await bus.publish(
                f"tb1/live/spec/{STREWN}", messages.encode_spec(self.spec), retain=True
            )
            verb = "data"
            while unmarked := [seq for seq in documents if seq not in self.held]:
                for seq in unmarked:
                    await bus.publish(f"tb1/live/{verb}/{STREWN}", documents[seq])
                verb = "late"
                for _ in range(100):
                    if all(seq in self.held for seq in unmarked):
                        break
                    await CLOCK.sleep(0.1)
            following.cancel()

    async def _follow(self, marks: client.Inbox) -> None:
        async for message in marks:
            marks.ack(message)
            mark = messages.decode_mark(message.payload)
            self.held = mark.streams.get(STREWN.stream, {}).get(EPOCH, self.held)

    async def stored(self) -> set[int]:
        async with api_client.connect(self.rig.api_url, self.key) as api:
            query = HistoryQuery("live", CLOCK.now_ns() - 11 * 366 * DAY_NS, 2**62)
            answer = await history.fetch(api, STREWN, query)
        return set(answer.series["x"].time_ns.tolist())

    async def letters(self) -> int:
        """The number of dead letters of the stream."""
        count, cursor = 0, None
        async with api_client.connect(self.rig.api_url, self.key) as api:
            while True:
                params = {"space": "live", "limit": 1000} | ({"cursor": cursor} if cursor else {})
                path = f"/streams/{STREWN}/dead-letters"
                page = await api.request("GET", path, params=params)
                count, cursor = count + len(page["items"]), page["next"]
                if cursor is None:
                    return count


async def _lags_s(rig: Rig, work: Coroutine[Any, Any, None]) -> list[float]:
    """How far what is stored of one stream is behind now, looked at while some work is done."""
    lags_s: list[float] = []
    async with rig.observing(0) as bed, asyncio.TaskGroup() as tasks:
        working = tasks.create_task(work, name="work")
        while not working.done():
            now_ns = CLOCK.now_ns()
            recent = await bed.history(
                "in", from_ns=now_ns - 60 * NS_PER_S, to_ns=now_ns + NS_PER_S
            )
            if len(times := recent["s0"].time_ns):
                lags_s.append((CLOCK.now_ns() - int(times[-1])) / NS_PER_S)
            await CLOCK.sleep(0.1)
    return lags_s


@pytest.mark.alone
@pytest.mark.influxd
@pytest.mark.parametrize("limit", ["usual", "ten years"])
async def test_samples_over_thousands_of_weeks_harm_no_other(
    tmp_path: Path, size: Size, seed: int, record: Record, limit: str
) -> None:
    past_limit_s = MOST_LIMIT_S if limit == "ten years" else 30 * 24 * HOUR_S
    spec = StreamSpec(STREWN, (Signal("x"),), past_limit_s=past_limit_s)
    async with rigs.running(tmp_path, seed, load=size.load, influxdb=True) as rig:
        assert rig.store is not None
        influxd = psutil.Process(rig.store.running.product.process.pid)
        strewn = Strewn(rig, size.weeks, spec)
        await strewn.register()
        await CLOCK.sleep(3.0)
        before_s = await _lags_s(rig, CLOCK.sleep(size.cut_s))
        grown = -influxd.memory_info().rss
        async with asyncio.timeout(size.settle_s):
            during_s = await _lags_s(rig, strewn.publish())
        grown += influxd.memory_info().rss
        await rig.settled()
        counters, offered, _ = await rig.judged()
        stored, letters = await strewn.stored(), await strewn.letters()
    before_p99_s, during_p99_s = (float(np.quantile(each, 0.99)) for each in (before_s, during_s))
    summary = (
        f"p99 {before_p99_s:.2f} s, then {during_p99_s:.2f} s; InfluxDB grew by {grown / MIB:.0f}"
        f" MiB; {len(stored)} stored, {letters} letters\n"
    )
    sys.stdout.write(summary)
    fault = f"samples over {size.weeks:,} weeks from one publisher, limit {limit}"
    record(fault, "influxdb", counters, offered + size.weeks)
    assert counters.clean, counters
    assert len(stored) + letters == size.weeks
    assert stored <= set(strewn.times_ns)
    assert min(stored) >= min(strewn.times_ns) if limit == "ten years" else letters
    assert grown < MOST_GROWN, summary
    assert during_p99_s <= 2.0 * size.within * before_p99_s, summary
