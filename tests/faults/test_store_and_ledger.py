"""A store or a ledger that was lost or restored alone, and many registrations at once."""

import asyncio
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from benchmarks import registrations
from benchmarks.registrations import RegistrationTarget
from broker.batch import Gap
from testbed_api.recorder import lost_gaps
from tests.faults import rig as rigs
from tests.faults.conftest import Record, Size
from tests.faults.rig import CLOCK, START_S, Rig

SAID = "store and ledger do not belong together"
SAID_S = 60.0
KEPT_S = 2.0
"""Marked batches stay in the gateway's spool for so long: what is older is gone for good."""
STORE, LEDGER = "samples.duckdb", "recorder.sqlite"
FLOWING_S, PAUSE_S = 60.0, 2.0


@pytest.fixture(autouse=True)
def forgetful_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESTBED_SPOOL_KEEP_S", str(KEPT_S))


async def restarted(rig: Rig, between: Callable[[Path], object]) -> None:
    """Stop the server in order, do something to its folder, and start it again."""
    await asyncio.to_thread(rig.server.stop)
    between(rig.folder / "data")
    rig.server.start()
    await rig._until(lambda: bool(rig.server.said("ready")), START_S, "the server is ready")
    await rig._until(lambda: SAID in rig.server.log.read_text(), SAID_S, "it is said")


async def judged(rig: Rig, record: Record, fault: str, setup: str) -> list[Gap]:
    """End the run, keep its result, and return the gaps of one stream."""
    took_s = await rig.recovered()
    await rig.settled()
    counters, offered, gaps = await rig.judged()
    record(fault, setup, counters, offered, recovery_s=took_s)
    assert counters.clean, (counters, gaps)
    return gaps


async def test_a_store_that_is_replaced_by_an_empty_one(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(4.0, 5.0)
        await restarted(rig, lambda folder: (folder / STORE).unlink())
        gaps = await judged(rig, record, "store replaced by an empty one", "embedded")
    assert [gap.cause for gap in gaps] == [lost_gaps.STORE_LOST]


@pytest.mark.influxd
async def test_a_bucket_that_is_deleted_while_all_runs(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load, influxdb=True) as rig:
        await rig.sleep(4.0, 5.0)
        await delete_bucket(rig)
        await rig._until(lambda: SAID in rig.server.log.read_text(), SAID_S, "it is said")
        gaps = await judged(rig, record, "store's bucket deleted", "influxdb")
    assert [gap.cause for gap in gaps] == [lost_gaps.STORE_LOST]


async def delete_bucket(rig: Rig) -> None:
    """Delete the bucket of the organisation in InfluxDB."""
    assert rig.store is not None
    database = rig.store.running
    headers = {"Authorization": f"Token {database.token}"}
    async with httpx.AsyncClient(base_url=database.url, headers=headers) as http:
        params = {"name": f"{database.bucket}-{rigs.ORGANISATION}"}
        [bucket] = (await http.get("/api/v2/buckets", params=params)).json()["buckets"]
        (await http.delete(f"/api/v2/buckets/{bucket['id']}")).raise_for_status()


async def restored_alone(rig: Rig, file: str, then_s: tuple[float, float]) -> None:
    """Copy a file of the server, and put it back some seconds (`then_s`) after the next start."""
    older = rig.folder / "older"
    await rig.sleep(1.0, 2.0)
    await asyncio.to_thread(rig.server.stop)
    shutil.copy(rig.folder / "data" / file, older)
    rig.server.start()
    await rig.recovered()
    await rig.sleep(*then_s)
    await restarted(rig, lambda folder: shutil.copy(older, folder / file))


async def test_a_store_that_is_restored_alone(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await restored_alone(rig, STORE, (4.0, 5.0))
        gaps = await judged(rig, record, "store restored alone", "embedded")
    assert [gap.cause for gap in gaps] == [lost_gaps.STORE_LOST]


async def test_a_ledger_that_is_lost_alone(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await rig.sleep(1.0, 2.0)
        rig.wires["source"].cut()
        await CLOCK.sleep(size.cut_s)
        rig.wires["source"].heal()
        await rig.recovered()
        await rig.sleep(KEPT_S + 1.0)
        await restarted(rig, lambda folder: (folder / LEDGER).unlink())
        await rig._until(
            lambda: (
                rig.server.log.read_text().count("stream was searched for gaps")
                >= size.load.signals
            ),
            SAID_S,
            "every stream was searched",
        )
        gaps = await judged(rig, record, "ledger lost alone", "embedded")
    assert [gap.cause for gap in gaps] == [lost_gaps.LEDGER_LOST]


async def test_a_ledger_that_is_restored_alone(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load) as rig:
        await restored_alone(rig, LEDGER, (3.0, 4.0))
        gaps = await judged(rig, record, "ledger restored alone", "embedded")
    assert gaps == []


@pytest.mark.alone
@pytest.mark.influxd
async def test_many_registrations_at_once_hold_up_no_samples(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=size.load, influxdb=True) as rig:
        broker = f"mqtt://127.0.0.1:{rig.wires['broker'].port}"
        testbed = RegistrationTarget(rig.api_url, broker, rig.administrator)
        figures = await registrations.run(testbed, size.registrations, CLOCK)
        sys.stdout.write(f"{json.dumps(figures)}\n")
        await rig.settled()
        counters, offered, _ = await rig.judged()
        log = rig.gateway.log.read_text()
    record(f"{size.registrations:,} streams registered at once", "influxdb", counters, offered)
    assert counters.clean, counters
    assert figures["s"] <= FLOWING_S * size.within
    assert figures["longest_pause_s"] <= PAUSE_S * size.within
    assert "batches were not accepted" not in log
