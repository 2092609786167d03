"""Compare ledger, spool and store after a demo, and write the report."""

import asyncio
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import orjson

from broker import api_client, codec
from broker.batch import GOOD, NO_SAMPLE
from broker.clock import Clock, ns_of
from broker.errors import Unknown
from broker.responses.audit import AuditEventPage
from broker.responses.streams import DeadLetterPage
from broker.streams import StreamSpec
from gateway.spool import spool
from simulators import ledger
from simulators.ledger import LedgerContent
from testbed.demo import evidence, labels, outcome, report, verdict
from testbed.demo.organisations import PROTOTYPE
from testbed.demo.outcome import Publication
from testbed.demo.plan import RIG, SPACE, Stage
from testbed.demo.processes import LEDGER_FILE, SPOOL
from testbed.demo.rating import Rating
from testbed.demo.result import DemoResult
from testbed.demo.verdict import Counters
from testbed.processes.program_end import PrototypeOutcome
from testbed_scenarios import detection
from testbed_sdk import History
from testbed_sdk.connection import Testbed

STORED_WITHIN_S = 5.0
"""From the end of the prototype until its last samples are in the store."""
POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Facts about a run that are neither in the ledger nor in the store.

    latencies_s: of the rig's batches.  samples, labels: numbers of samples of the prototype's
    output, and of its signal `anomaly`, that arrived.  outcome: its end and what it printed.
    """

    latencies_s: Sequence[float]
    samples: int
    labels: int
    outcome: PrototypeOutcome


async def evaluate(stage: Stage, observer: Testbed, measured: Measured, clock: Clock) -> DemoResult:
    """The result of a demo whose machine has played to its end, and its report as a file."""
    offered = ledger.read(stage.plan.folder / LEDGER_FILE)
    span = (offered.rows[0].time_ns - 10**9, offered.rows[-1].time_ns + 10**9)
    rig = await observer.history("rig", from_ns=span[0], to_ns=span[1])
    score = await _stored_score(observer, span, measured.samples, clock)
    samples, truth = _offered_samples(offered), labels.of_rows(offered)
    labelled = {} if score is None else labels.of_output(score)
    times = {time_ns for _, time_ns in samples}
    published = _publication(measured, score, times, labelled)
    result = DemoResult(
        samples_offered=len(samples),
        samples_stored=sum(len(series.time_ns) for series in rig.series.values()),
        counters=await _counters(stage, samples, rig),
        latency_ms=_percentiles(measured.latencies_s),
        rating=Rating(
            detection=detection.by_label(truth, labelled),
            has_labels=bool(truth),
            rows_played=len(times),
            rows_answered=published.matching,
            published=measured.samples,
            learns_rows=stage.plan.learns_rows,
        ),
        report=stage.plan.report_file,
        problems=outcome.problems(measured.outcome, published, await _refused(stage)),
        notes=outcome.notes(measured.outcome, published),
    )
    collected = evidence.collect(stage.plan, result, rig, score, offered)
    report.write(result.report, collected, clock.now_ns())
    return result


async def _counters(
    stage: Stage, samples: Mapping[tuple[str, int], float | None], rig: History
) -> Counters:
    """Compare the offered samples with those in the store and in the gateway's spool."""
    return verdict.counters(
        samples,
        rig.series,
        await _spooled(stage.plan.folder / SPOOL, rig.spec),
        dead=await _dead_letters(stage),
        gaps=rig.gaps,
    )


def _publication(
    measured: Measured,
    score: History | None,
    times: AbstractSet[int],
    labelled: Mapping[int, bool],
) -> Publication:
    """The numbers of what the prototype published.

    times: of the machine's rows.  labelled: the labels by time stamp.
    """
    return Publication(
        samples=measured.samples,
        dtypes={} if score is None else {each.name: each.type for each in score.spec.signals},
        labels=measured.labels,
        matching=len(labelled.keys() & times),
        ends=max(times) in labelled,
    )


async def _stored_score(
    observer: Testbed, span: tuple[int, int], samples: int, clock: Clock
) -> History | None:
    """The prototype's stored output, None if it never registered it.

    samples: number that arrived; for the last of them the store is given STORED_WITHIN_S.
    """
    waited_s = 0.0
    while True:
        try:
            score = await observer.history("score", from_ns=span[0], to_ns=span[1])
        except Unknown:
            return None
        stored = sum(len(series.time_ns) for series in score.series.values())
        if stored >= samples or waited_s >= STORED_WITHIN_S:
            return score
        await clock.sleep(POLL_S)
        waited_s += POLL_S


async def _refused(stage: Stage) -> list[str]:
    """The changes that the API refused the prototype, such as an output that is not its own."""
    async with api_client.connect(stage.api, stage.company) as connection:
        params = {"principal": PROTOTYPE}
        events = await connection.whole("/audit", AuditEventPage, params, most=500)
    refused = [event.target for event in events.items if event.outcome == "refused"]
    return sorted({target for target in refused if not target.startswith("GET ")})


async def _dead_letters(stage: Stage) -> list[tuple[str, int]]:
    """The samples (signal, time) that the recorder rejected with a reason."""
    async with api_client.connect(stage.api, stage.owner) as connection:
        path = f"/streams/{RIG}/dead-letters"
        letters = await connection.whole(path, DeadLetterPage, {"space": SPACE})
    return [
        (letter.signal, ns_of(letter.time))
        for letter in letters.items
        if letter.signal is not None and letter.time is not None
    ]


def _offered_samples(offered: LedgerContent) -> dict[tuple[str, int], float | None]:
    """The offered values by (signal, time), None for a bad one.

    The later of two at one time is 1 ns later, as in the gateway.
    """
    samples: dict[tuple[str, int], float | None] = {}
    for row in offered.rows:
        codes = row.quality or (GOOD,) * len(row.values)
        for name, value, code in zip(offered.signals, row.values, codes, strict=True):
            if code == NO_SAMPLE or isinstance(value, str):  # the demo's machines have no texts
                continue
            time_ns = row.time_ns
            while (name, time_ns) in samples:
                time_ns += 1
            samples[name, time_ns] = cast("float | None", value)  # the demo's machine has no arrays
    return samples


async def _spooled(folder: Path, spec: StreamSpec) -> list[tuple[str, int]]:
    """The samples (signal, time) that are in the gateway's spool."""
    samples: list[tuple[str, int]] = []
    for path in await asyncio.to_thread(lambda: sorted(folder.glob("*.sqlite"))):
        async with spool.open(path, epoch="unused") as opened:
            for row in await opened.bodies():
                frames, _ = codec.frames_from_json(orjson.loads(row.body)["frames"], spec)
                for frame in frames:
                    for name, series in frame.series():
                        samples += [(name, time_ns) for time_ns in series.time_ns.tolist()]
    return samples


def _percentiles(latencies_s: Sequence[float]) -> dict[str, float | None]:
    if not latencies_s:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(np.array(latencies_s) * 1000, [50, 99]).round(2).tolist()
    return {"p50": p50, "p99": p99}
