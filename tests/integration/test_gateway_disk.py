"""The spool on a small disk: what it drops is stated exactly, and it heals by itself."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest

from broker.batch import Batch, Gap, Long, Source, Wide
from broker.clock import ns_of
from broker.codec import gap_from_json
from broker.errors import Unavailable
from broker.messages import Held
from broker.streams import Dtype
from gateway.spool import spool
from gateway.spool.rows import SpooledBatch
from gateway.spool.spool import SpoolSettings

DISK = 24 * 1024**2
LEAST_FREE = 8 * 1024**2
STREAMS = ("o/e/s", "o/e/t")
COUNT = 4_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    done = subprocess.run(mount, check=False, capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S603, S607


def batch(number: int) -> Batch:
    """About 150 kB: one signal with 4,000 time stamps of its own, and a wide one."""
    times = np.arange(COUNT, dtype=np.int64) * 1_001 + number * 10**9
    signal = np.zeros(COUNT, np.int32)
    values = np.random.default_rng(number).random(COUNT)
    dtypes = (Dtype.FLOAT64, Dtype.FLOAT64)
    own = Long(times, signal, values, np.zeros(COUNT, np.uint8), ("a", "b"), dtypes)
    return Batch(1, (own, Wide(times[:2], {"b": values[:2]})), Source.LIVE)


async def commit(disk_spool: spool.Spool, numbers: Sequence[int]) -> None:
    for number in numbers:
        await disk_spool.commit([(stream, batch(number)) for stream in STREAMS], number)


def accounted(bodies: Sequence[SpooledBatch], numbers: Sequence[int]) -> tuple[int, int]:
    """(kept, made gaps) of batches; each stands there once, with its samples or exact gaps."""
    whole = stated = 0
    for stream in STREAMS:
        documents = [orjson.loads(spooled.body) for spooled in bodies if spooled.stream == stream]
        assert [document["seq"] for document in documents] == [number + 1 for number in numbers]
        for number, document in zip(numbers, documents, strict=True):
            from_ns = number * 10**9
            if document["frames"]:
                assert ns_of(document["frames"][0]["t0"]) == from_ns
                whole += 1
            else:
                last_ns = from_ns + (COUNT - 1) * 1_001
                assert {gap_from_json(gap) for gap in document["gaps"]} == {
                    Gap(("a",), from_ns, last_ns, "spool-full"),
                    Gap(("b",), from_ns, from_ns + 1_001, "spool-full"),
                }
                stated += 1
    return whole, stated


async def test_the_spool_stops_growing_before_its_disk_is_full(disk: Path) -> None:
    settings = SpoolSettings(most_bytes=2**30, keep_marked_s=0.0, least_free_bytes=LEAST_FREE)
    async with spool.open(disk / "s.sqlite", epoch="one", settings=settings) as disk_spool:
        await commit(disk_spool, range(150))
        depth = await disk_spool.depth()
        whole, stated = accounted(await disk_spool.bodies(), range(150))
        assert (whole + stated, stated) == (300, depth.dropped)
        assert whole > 30
        assert depth.disk_free > LEAST_FREE * 0.9
        disk_spool.mark({(stream, "one"): Held(150) for stream in STREAMS})
        await commit(disk_spool, range(150, 170))
        whole, stated = accounted(
            [spooled for spooled in await disk_spool.bodies() if spooled.seq > 150], range(150, 170)
        )
        assert (whole, stated) == (40, 0)  # what was marked made room inside the file


async def test_a_disk_that_others_fill_refuses_and_takes_again_when_there_is_room(
    disk: Path,
) -> None:
    settings = SpoolSettings(most_bytes=2**30, keep_marked_s=0.0, least_free_bytes=0)
    async with spool.open(disk / "s.sqlite", epoch="one", settings=settings) as disk_spool:
        await commit(disk_spool, range(5))
        filling = disk / "filling"
        fill(filling)
        with pytest.raises(Unavailable, match="full"):
            await commit(disk_spool, range(5, 100))
        held = len(await disk_spool.bodies())
        assert held == (await disk_spool.depth()).unmarked
        filling.unlink()
        last = held // len(STREAMS)
        await commit(disk_spool, range(last, last + 5))
        whole, stated = accounted(await disk_spool.bodies(), range(last + 5))
        assert (whole, stated) == (2 * (last + 5), 0)


async def test_batches_whose_gaps_are_as_large_as_they_are_stop_before_the_disk_is_full(
    disk: Path,
) -> None:
    settings = SpoolSettings(most_bytes=2**30, keep_marked_s=0.0, least_free_bytes=LEAST_FREE)
    async with spool.open(disk / "s.sqlite", epoch="one", settings=settings) as disk_spool:
        for _ in range(20):
            with pytest.raises(Unavailable, match="makes no room"):
                await commit_ones(disk_spool)
        depth = await disk_spool.depth()
        assert depth.unmarked > 10_000
        assert depth.dropped == 0
        assert depth.disk_free > LEAST_FREE * 0.9
        disk_spool.mark({("o/e/s", "one"): Held(depth.unmarked)})
        taken = await disk_spool.commit(ones(0), 0)
        assert taken[0].seq == depth.unmarked + 1  # what was refused took no number


async def commit_ones(disk_spool: spool.Spool) -> None:
    """For as long as it takes them."""
    while True:
        await disk_spool.commit(ones((await disk_spool.depth()).unmarked), 0)


def ones(first: int) -> list[tuple[str, Batch]]:
    """Batches of one sample each."""
    frames = (Wide(np.array([at * 10**9]), {"a": np.zeros(1)}) for at in range(first, first + 500))
    return [("o/e/s", Batch(1, (frame,), Source.LIVE)) for frame in frames]


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(os.urandom(65_536))
        except OSError:
            return
