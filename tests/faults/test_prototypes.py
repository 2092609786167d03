"""Prototypes that end soon after an outage, or in it: what they published is stored or in a gap."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from broker import api_client
from broker.batch import Gap
from broker.namespace import StreamAddress
from simulators import ledger
from testbed.demo.verdict import Counters
from testbed_sdk import history
from testbed_sdk.history import HistoryQuery
from testbed_sdk.outputs import DOWN
from tests.faults import checker
from tests.faults import rig as rigs
from tests.faults.checker import Evidence
from tests.faults.conftest import Record, Size
from tests.faults.publisher import SIGNAL
from tests.faults.rig import CLOCK, Load, Process, Rig

OUT = StreamAddress(rigs.ORGANISATION, "prototype", "out")
HZ = 50.0
FEW = Load(signals=2, hz=20.0)
MOST_OUTAGE_S = 60.0
SOON_S = 2.0
"""A prototype ends at most this long after the outage."""
DRAIN_S = 10.0


class Prototype:
    """Runs of one prototype, each a process with a ledger of its own."""

    def __init__(self, rig: Rig, credential: str) -> None:
        self.books: list[Path] = []
        self._rig = rig
        self._credential = credential
        self._process: Process | None = None

    def start(self, *, drain_s: float = DRAIN_S) -> None:
        """Begin another run."""
        number = len(self.books)
        self.books.append(self._rig.folder / f"published-{number}.jsonl")
        arguments = [str(self.books[-1]), str(HZ), str(self._stop)]
        self._process = Process(
            f"prototype-{number}",
            ["-m", "tests.faults.publisher", *arguments],
            self._rig.folder,
            TESTBED_API=self._rig.api_url,
            TESTBED_BROKER=f"mqtt://127.0.0.1:{self._rig.wires['broker'].port}",
            TESTBED_CREDENTIAL=self._credential,
            TESTBED_OUTPUTS=f"out={OUT}",
            TESTBED_DRAIN_S=str(drain_s),
        )
        self._process.start()

    @property
    def _stop(self) -> Path:
        return self._rig.folder / f"stop-{len(self.books)}"

    async def end(self) -> str:
        """Let the run end in order; returns what it logged."""
        process = self._process
        assert process is not None
        self._stop.touch()
        await self._rig._until(lambda: process.ended, 2 * DRAIN_S, "the prototype has ended")
        return process.log.read_text()

    async def published(self, rows: int) -> None:
        """Wait until the run has published so many rows."""
        await self._rig._until(
            lambda: self.books[-1].exists() and len(ledger.read(self.books[-1]).rows) >= rows,
            20.0,
            f"{rows} rows are published",
        )

    async def judged(self) -> tuple[Counters, int, Sequence[Gap]]:
        """The four counters of its output, how many samples it published, and the gaps."""
        runs = [ledger.read(book).rows for book in self.books]
        query = HistoryQuery("live", self._rig.began_ns, 2**62)
        async with api_client.connect(self._rig.api_url, self._credential) as api:
            stored = await history.fetch(api, OUT, query)
        evidence = Evidence(
            offered={(SIGNAL, row.time_ns): row.values[0] for run in runs for row in run},
            stored=dict(stored.series),
            spooled=[],
            dead=[],
            gaps=stored.gaps,
            period_ns=round(1e9 / HZ),
            down=[(a[-1].time_ns + 1, b[0].time_ns - 1) for a, b in pairwise(runs)],
        )
        counters = await asyncio.to_thread(checker.judge, [evidence])
        return counters, len(evidence.offered), stored.gaps


async def prototype(rig: Rig) -> Prototype:
    """A prototype that has begun to publish."""
    async with api_client.connect(rig.api_url, rig.owner) as door:
        body = {"principal": "prototype", "writes": [{"space": "live", "stream": str(OUT)}]}
        created = await door.request("POST", "/credentials", json=body)
    begun = Prototype(rig, str(created["credential"]))
    begun.start()
    await begun.published(round(HZ))
    return begun


def cut_off(rig: Rig) -> None:
    """Break the connections to the broker, and let nothing through until the wire heals."""
    rig.wires["broker"].cut()
    rig.wires["broker"].reset()


async def test_a_prototype_that_ends_soon_after_an_outage_loses_nothing(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=FEW) as rig:
        runs = await prototype(rig)
        cut_off(rig)
        await CLOCK.sleep(min(size.cut_s, MOST_OUTAGE_S))
        rig.wires["broker"].heal()
        await rig.sleep(0.5, SOON_S)
        log = await runs.end()
        counters, offered, gaps = await runs.judged()
    record("prototype ends soon after an outage", "embedded", counters, offered)
    assert counters.clean, counters
    assert gaps == ()
    assert "unconfirmed" not in log


async def test_what_a_prototype_lost_with_its_end_lies_in_the_gap_of_its_next_run(
    tmp_path: Path, size: Size, seed: int, record: Record
) -> None:
    async with rigs.running(tmp_path, seed, load=FEW) as rig:
        runs = await prototype(rig)
        await runs.end()
        runs.start(drain_s=1.0)
        await runs.published(round(HZ))
        cut_off(rig)
        await CLOCK.sleep(min(size.cut_s, MOST_OUTAGE_S) / 2)
        log = await runs.end()
        rig.wires["broker"].heal()
        await rig.recovered()
        runs.start()
        await runs.published(round(HZ))
        await runs.end()
        counters, offered, gaps = await runs.judged()
    record("prototype ends in an outage, and runs again", "embedded", counters, offered)
    assert counters.clean, counters
    assert [gap.cause for gap in gaps] == [DOWN, DOWN]
    assert "the recorder did not confirm in 1 s" in log
