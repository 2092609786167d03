"""A source whose clock stands, jumps or goes back, and time stamps that come again.

Here a time stamp says not which sample it is: the value does, which is another one for each.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.batch import GOOD, UNCERTAIN
from broker.clock import HOUR_S, NS_PER_S
from simulators import ledger
from testbed.demo.verdict import Counters
from testbed_sdk.history import History
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, Rig
from tests.faults.source_clock import CENTURY_S

ALARM_S = 60.0
STALLED_S = 1.5
BACK_S = 10.0
AHEAD = "ahead of the gateway's clock"
STALLED = "do not pass"
MOST_MOVED_NS = 100_000
"""A sample moves by a nanosecond for each that has its time stamp; those of the source are µs."""
HOUR_NS = HOUR_S * NS_PER_S
FAR_NS = HOUR_NS // 2
"""Further from its arrival only those stamps lie that are to be uncertain, or refused."""


@pytest.mark.parametrize(("protocol", "setup"), [("OPC UA", "embedded"), ("MQTT", "influxdb")])
async def test_a_source_whose_clock_is_wrong_costs_no_sample_and_is_an_alarm(
    tmp_path: Path, size: Size, seed: int, record: Record, protocol: str, setup: str
) -> None:
    clock, sensors = tmp_path / "source-clock", protocol == "MQTT"
    async with rigs.running(
        tmp_path,
        seed,
        load=replace(size.load, stalled_s=STALLED_S),
        influxdb=setup == "influxdb",
        sensors=sensors,
        source=[str(clock)] if sensors else ["--clock", str(clock)],
    ) as rig:
        rig.began_ns -= 2 * HOUR_NS
        more_s = size.cut_s / 8
        await CLOCK.sleep(1.0 + more_s)
        clock.write_text(f"once {HOUR_S:.0f} {CENTURY_S}")
        await _alarmed(rig, AHEAD)
        await CLOCK.sleep(1.0 * size.within)  # one that is lost a century ahead would be in no gap
        await asyncio.to_thread(rig.gateway.kill)
        await CLOCK.sleep(more_s)
        rig.gateway.start()
        took_s = await rig.recovered()
        clock.write_text("again")
        await CLOCK.sleep(1.0 + more_s)
        clock.write_text("stands")
        await _alarmed(rig, STALLED)
        await CLOCK.sleep(more_s)
        clock.write_text("runs")
        await rig.recovered()
        clock.write_text(f"-{HOUR_S:.0f}")
        await _alarmed(rig, STALLED)
        clock.write_text("runs")
        await rig.recovered()
        await rig.settled()
        counters, offered = await _judged(rig)
        gaps = (await rig.stored(1))[0].gaps
    fault = f"source's clock jumps, stands, goes back, tells times again; {protocol}"
    record(fault, setup, counters, offered, recovery_s=took_s)
    assert counters.clean, counters
    assert {gap.cause for gap in gaps} == {"gateway-down"}
    assert took_s <= BACK_S * size.within


class _Offered(NamedTuple):
    """A sample of the source.  due_ns: when it was offered, by a clock that is right."""

    time_ns: int
    due_ns: int

    @property
    def ahead_ns(self) -> int:
        return self.time_ns - self.due_ns


async def _alarmed(rig: Rig, words: str) -> None:
    """Wait for an alarm about the source's clock."""
    async with asyncio.timeout(ALARM_S):
        while not any(words in alarm for alarm in (await rig.told(0)).alarms):
            await CLOCK.sleep(0.1)


async def _judged(rig: Rig) -> tuple[Counters, int]:
    """The four counters of all streams, and how many samples were offered."""
    content = ledger.read(rig.books[0])
    names = content.signals
    stored, dead = await rig.stored(len(names)), await rig.dead(len(names))
    spooled = await rig.spooled_values()
    period_ns = round(NS_PER_S / rig.load.hz)
    total = Counters(0, 0, 0, 0)
    for at, name in enumerate(names):
        offered = {
            row.values[at]: _Offered(row.time_ns, content.rows[0].time_ns + seq * period_ns)
            for seq, row in enumerate(content.rows)
        }
        judged = _judge(name, offered, stored[at], spooled[name], dead[at])
        total = Counters(
            total.lost + judged.lost,
            total.duplicated + judged.duplicated,
            total.wrong + judged.wrong,
            total.silent + judged.silent,
        )
    return total, len(content.rows) * len(names)


def _judge(
    name: str,
    offered: dict[float, _Offered],
    history: History,
    spooled: Iterable[float],
    dead: Sequence[tuple[str, int]],
) -> Counters:
    """The four counters of one signal."""
    series, gaps = history.series[name], history.gaps
    rows = zip(*(column.tolist() for column in series), strict=True)
    stored = {value: (time_ns, quality) for time_ns, value, quality in rows}
    numbers = Counter(series.values.tolist())
    refused = {value for value, row in offered.items() if (name, row.time_ns) in dead}
    missing = offered.keys() - stored.keys() - refused
    covered = {
        value
        for value in missing
        if any(gap.from_ns <= offered[value].time_ns <= gap.to_ns for gap in gaps)
    }
    wrong = len(stored.keys() - offered.keys())
    for value in stored.keys() & offered.keys():
        wrong += not _is_right(offered[value], *stored[value])
    wrong += sum(
        gap.from_ns <= time_ns <= gap.to_ns for time_ns, _ in stored.values() for gap in gaps
    )
    wrong += sum(offered[value].ahead_ns < CENTURY_S * NS_PER_S // 2 for value in refused)
    return Counters(
        lost=len(set(spooled) - stored.keys() - refused),
        duplicated=sum(count > 1 for count in numbers.values()),
        wrong=wrong,
        silent=len(missing - covered),
    )


def _is_right(sample: _Offered, time_ns: int, quality: int) -> bool:
    """Whether a sample is stored at its time, or some ns later, and with its quality."""
    is_in_place = sample.time_ns <= time_ns <= sample.time_ns + MOST_MOVED_NS
    return is_in_place and quality == (UNCERTAIN if sample.ahead_ns > FAR_NS else GOOD)
