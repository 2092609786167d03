"""What became of everything that was offered, straight from the store and the ledger."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

import httpx
import numpy as np

from benchmarks.load import Load
from benchmarks.rig import ORGANISATION, Rig
from broker import api_client
from broker.batch import GOOD, Long
from broker.namespace import LIVE
from testbed_api.stores import influxdb
from testbed_api.stores.port import SeriesStore, Window
from tests.services import influxd as influxd_product

WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """The four counters of a run, over all samples or over those of the streams looked at.

    compared: samples whose time and value were held against the source's function.  gaps: declared
    holes, dead: samples set apart.
    """

    offered: int
    stored: int
    compared: int
    lost: int
    duplicated: int
    wrong: int
    silent: int
    gaps: int
    dead: int

    @property
    def clean(self) -> bool:
        """All four zero, and nothing declared missing either."""
        bad = self.lost + self.duplicated + self.wrong + self.silent + self.gaps + self.dead
        return bad == 0


async def stored(rig: Rig, from_ns: int | None = None, to_ns: int | None = None) -> int:
    """Samples in the store, of all streams, with a time stamp in the span."""
    store = rig.influxd
    mine = replace(store, bucket=f"{store.bucket}-{ORGANISATION}")
    return await stored_in(mine, "/\\//", from_ns, to_ns)


async def stored_in(
    store: influxd_product.Influxd,
    measurement: str,
    from_ns: int | None,
    to_ns: int | None,
    *,
    fields: str = "*",
) -> int:
    """Values of all fields of a measurement, or of those that a pattern names, in a span.

    fields: a pattern in slashes where not all of them count.
    """
    where = [f"time >= {from_ns}"] if from_ns is not None else []
    where += [f"time < {to_ns}"] if to_ns is not None else []
    query = f"SELECT count({fields}) FROM {measurement}"  # noqa: S608 - all of it is ours
    query += f" WHERE {' AND '.join(where)}" if where else ""
    headers = {"Authorization": f"Token {store.token}"}
    params = {"db": store.bucket, "q": query}
    async with httpx.AsyncClient(headers=headers, timeout=WAIT_S) as http:
        answer = (await http.post(f"{store.url}/query", data=params)).raise_for_status()
    series = answer.json()["results"][0].get("series", [])
    return sum(sum(each["values"][0][1:]) for each in series)


def opened(store: influxd_product.Influxd) -> AbstractAsyncContextManager[SeriesStore]:
    """The testbed's own adapter on a running influxd."""
    return influxdb.open(
        store.url, token=store.token, organisation=store.organisation, bucket=store.bucket
    )


async def judge(rig: Rig, streams: Sequence[int]) -> Verdict:
    """Count everything, and compare every sample of some streams."""
    counts = await stored(rig)
    compared = duplicated = wrong = silent = 0
    async with (
        api_client.connect(rig.api, rig.owner) as door,
        opened(rig.influxd) as store,
    ):
        gaps, dead = await _declared(rig)
        for stream in streams:
            spec = await door.spec(rig.setup.address(stream))
            window = Window(LIVE, spec, spec.names, 0, 2**62)
            frames = [frame async for frame in store.read(window)]
            stream_counts = compare(rig.setup.load, stream, frames, rig.span(stream))
            compared += stream_counts[0]
            duplicated += stream_counts[1]
            wrong += stream_counts[2]
            silent += stream_counts[3]
    missing = max(rig.offered - rig.dropped - counts, 0)
    return Verdict(
        rig.offered,
        counts,
        compared,
        missing,
        duplicated,
        wrong,
        max(silent, rig.dropped),
        gaps,
        dead,
    )


def compare(
    load: Load, stream: int, frames: Sequence[Long], span: tuple[int, int]
) -> tuple[int, int, int, int]:
    """(compared, duplicated, wrong, silent) of one stream's stored samples."""
    time_ns = np.concatenate([each.time_ns for each in frames] or [np.zeros(0, np.int64)])
    signal = np.concatenate([each.signal for each in frames] or [np.zeros(0, np.int64)])
    values = np.concatenate([each.values for each in frames] or [np.zeros(0)]).astype(np.float64)
    quality = np.concatenate([each.quality for each in frames] or [np.zeros(0, np.uint8)])
    seqs = time_ns // load.period_ns
    items = signal.astype(np.int64) + stream * load.signals
    right = (load.times_ns(items, seqs) == time_ns) & (load.values(items, seqs) == values)
    right &= (quality == GOOD) & (seqs >= span[0]) & (seqs < span[1])
    places = signal[right].astype(np.int64) * (span[1] - span[0]) + seqs[right] - span[0]
    distinct = len(np.unique(places))
    expected = load.signals * (span[1] - span[0])
    duplicated = int(right.sum()) - distinct
    return len(time_ns), duplicated, int((~right).sum()), expected - distinct


async def _declared(rig: Rig) -> tuple[int, int]:
    """How many gaps and dead letters the ledger holds."""
    headers = {"Authorization": f"Bearer {rig.administrator}"}
    async with httpx.AsyncClient(headers=headers, timeout=WAIT_S) as http:
        text = (await http.get(f"{rig.api}/api/v1/metrics")).raise_for_status().text
    counts = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    gaps = float(counts["testbed_ledger_gaps"])
    dead = float(counts["testbed_ledger_dead_letters"]) + float(counts["testbed_ledger_set_aside"])
    return int(gaps), int(dead)
