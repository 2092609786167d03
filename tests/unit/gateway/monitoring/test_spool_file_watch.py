"""The watch over the spool's file of a gateway that runs."""

import asyncio
from pathlib import Path

from broker.clock import SteppedClock, WallClock
from broker.process import tasks
from gateway.mapping import file as mapping_file
from gateway.monitoring import spool_file
from gateway.pipeline.pipeline import Pipeline
from gateway.spool import spool

MAPPING = mapping_file.read(
    """\
organisation: o
equipment: e
kind: real
mqtt: {url: "mqtt://127.0.0.1:1"}
streams:
  s:
    signals:
      a: {topic: t/a}
""",
    "m.yaml",
)
WITHIN_S = 10.0


def pipeline(clock: SteppedClock) -> Pipeline:
    specs = [stream.spec for stream in MAPPING.streams]
    return Pipeline(MAPPING, specs, clock=clock, space="live", most_waiting=1_000)


async def alarm(alarms: dict[str, str]) -> str:
    """The alarm about the file; the spool's thread needs real time for it."""
    async with asyncio.timeout(5):
        while spool_file.FILE not in alarms:
            await WallClock().sleep(0.01)
    return alarms[spool_file.FILE]


async def test_a_file_that_goes_is_back_within_ten_seconds_and_an_alarm(tmp_path: Path) -> None:
    clock, path = SteppedClock(), tmp_path / "s.sqlite"
    sink = pipeline(clock)
    async with spool.open(path, epoch="one") as disk_spool:
        watching = spool_file.watch(disk_spool, sink, clock)
        async with tasks.background({"spool file": watching}):
            path.unlink()
            await clock.advance(WITHIN_S)
            assert await alarm(sink.alarms) == "the spool's file is gone, and was written anew"
            assert path.exists()


async def test_a_damaged_file_that_was_set_aside_is_an_alarm(tmp_path: Path) -> None:
    clock, path = SteppedClock(), tmp_path / "s.sqlite"
    sink = pipeline(clock)
    path.write_bytes(b"damaged" * 1_000)
    async with spool.open(path, epoch="one") as disk_spool:
        watching = spool_file.watch(disk_spool, sink, clock)
        async with tasks.background({"spool file": watching}):
            sentence = await alarm(sink.alarms)
    assert sentence.startswith(f"a damaged spool was set aside as {path}.damaged-1: ")
