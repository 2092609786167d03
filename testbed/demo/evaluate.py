"""Compare ledger, spool and store after a demo, and write the report."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import orjson

from broker import api_client, codec
from broker.clock import ns_of
from broker.errors import Unavailable, Unknown
from broker.responses.streams import DeadLetterPage
from broker.streams import StreamSpec
from gateway.spool import spool
from simulators import ledger
from simulators.ledger import LedgerContent
from testbed.demo import report, verdict
from testbed.demo.plan import RIG, SPACE, DemoPlan, Stage
from testbed.demo.processes import LEDGER_FILE, PROTOTYPE_LOG, SPOOL
from testbed.demo.report import Evidence
from testbed.demo.result import DemoResult
from testbed_sdk import History
from testbed_sdk.connection import Testbed


async def evaluate(stage: Stage, observer: Testbed, latencies_s: Sequence[float]) -> DemoResult:
    """The result of a demo whose machine has played to its end, and its report as a file.

    Raises Unavailable if the prototype published nothing.
    """
    folder = stage.plan.folder
    offered = ledger.read(folder / LEDGER_FILE)
    from_ns, to_ns = offered.rows[0].time_ns - 10**9, offered.rows[-1].time_ns + 10**9
    rig = await observer.history("rig", from_ns=from_ns, to_ns=to_ns)
    try:
        score = await observer.history("score", from_ns=from_ns, to_ns=to_ns)
    except Unknown:
        raise Unavailable(
            f"the prototype published nothing; its log is {folder / PROTOTYPE_LOG}"
        ) from None
    samples = _offered_samples(offered)
    counters = verdict.counters(
        samples,
        rig.series,
        await _spooled(folder / SPOOL, rig.spec),
        dead=await _dead_letters(stage),
        gaps=rig.gaps,
    )
    truth = {row.time_ns: row.anomaly for row in offered.rows if row.anomaly is not None}
    flags = score["anomaly"]
    detected = dict(zip(flags.time_ns.tolist(), flags.values.tolist(), strict=True))
    result = DemoResult(
        samples_offered=len(samples),
        samples_stored=sum(len(series.time_ns) for series in rig.series.values()),
        counters=counters,
        latency_ms=_percentiles(latencies_s),
        detection=verdict.detection(truth, detected),
        report=stage.plan.report_file,
    )
    report.write(result.report, _evidence(stage.plan, result, rig, score, offered))
    return result


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


def _offered_samples(offered: LedgerContent) -> dict[tuple[str, int], float]:
    """The offered values by (signal, time); the later of two at one time is 1 ns later, as in the
    gateway.
    """
    samples: dict[tuple[str, int], float] = {}
    for row in offered.rows:
        for name, value in zip(offered.signals, row.values, strict=True):
            time_ns = row.time_ns
            while (name, time_ns) in samples:
                time_ns += 1
            samples[name, time_ns] = value
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


def _fault_spans(offered: LedgerContent) -> list[tuple[int, int]]:
    """The (from, to) spans in which consecutive rows are labelled as anomalies, in ns."""
    spans: list[tuple[int, int]] = []
    for before, row in zip((None, *offered.rows), offered.rows, strict=False):
        if row.anomaly and before is not None and before.anomaly:
            spans[-1] = (spans[-1][0], row.time_ns)
        elif row.anomaly:
            spans.append((row.time_ns, row.time_ns))
    return spans


def _evidence(
    plan: DemoPlan, result: DemoResult, rig: History, score: History, offered: LedgerContent
) -> Evidence:
    return Evidence(
        title="Testbed demo",
        subtitle=f"{plan.data.name if plan.data else 'pump rig'}, over OPC UA, recorded in {SPACE}",
        signals=rig.series,
        units={signal.name: signal.unit for signal in rig.spec.signals},
        scores={"score": score["score"], "anomaly": score["anomaly"]},
        truth=_fault_spans(offered),
        gaps=rig.gaps,
        facts=result.rows(),
        clean=result.counters.clean,
    )
