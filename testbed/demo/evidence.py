"""Collect the evidence of a demo for its report: the run's facts, its samples and what is next."""

import hashlib
import shlex
from collections.abc import Mapping
from importlib import metadata

from simulators.ledger import LedgerContent
from testbed.demo.plan import (
    DETECTOR_LEARNS_ROWS,
    PERIOD_S,
    ROWS,
    SPACE,
    DemoPlan,
)
from testbed.demo.processes import DETECTOR, EXAMPLES
from testbed.demo.report import Evidence
from testbed.demo.result import DemoResult
from testbed.terminal import invocation
from testbed_sdk import History

OWN_DETECTOR = (
    f"examples/detector/{DETECTOR.name}, which learns from the first {DETECTOR_LEARNS_ROWS} rows"
)


def collect(
    plan: DemoPlan,
    result: DemoResult,
    rig: History,
    score: History | None,
    offered: LedgerContent,
) -> Evidence:
    """The evidence of a run; score: the prototype's output, None if it registered none."""
    command = shlex.join(plan.prototype)
    return Evidence(
        title=f"Try of {command}" if command else "Testbed demo",
        about=_about(plan, offered),
        result=result,
        signals=rig.series,
        units={signal.name: signal.unit for signal in rig.spec.signals},
        scores={} if score is None else score.series,
        truth=_fault_spans(offered),
        gaps=rig.gaps,
        steps=_next_steps(plan),
    )


def _fault_spans(offered: LedgerContent) -> list[tuple[int, int]]:
    """The (from, to) spans in which consecutive rows are labelled as anomalies, in ns."""
    spans: list[tuple[int, int]] = []
    for before, row in zip((None, *offered.rows), offered.rows, strict=False):
        if row.anomaly and before is not None and before.anomaly:
            spans[-1] = (spans[-1][0], row.time_ns)
        elif row.anomaly:
            spans.append((row.time_ns, row.time_ns))
    return spans


def _about(plan: DemoPlan, offered: LedgerContent) -> dict[str, str]:
    """The facts that are needed to repeat a run, by their labels."""
    if plan.data is None:
        data = (
            f"model of a pump rig, {ROWS} rows, one every {PERIOD_S:g} s; its fault, in seconds of"
            f" the rig's time: {plan.fault}"
        )
        seed = str(plan.seed)
    else:
        digest = hashlib.sha256(plan.data.read_bytes()).hexdigest()
        data = f"{plan.data.name}, {len(offered.rows):,} rows, SHA-256 {digest[:16]}…"
        seed = "none: a recording was played"
    about = {
        "version": metadata.version(invocation.PROJECT),
        "data": data,
        "seed": seed,
        "played": f"{plan.speed:g} source seconds a second, over OPC UA, recorded in {SPACE}",
        "time stamps": time_stamps(plan),
        "prototype": shlex.join(plan.prototype) or OWN_DETECTOR,
    }
    return {label: text for label, text in about.items() if text}


def time_stamps(plan: DemoPlan) -> str:
    """The pause between the time stamps of two rows where it is not that of the source, else "".

    A model, and a recording with shifted times, have the time stamps at which they are played.
    """
    speed = plan.speed or 1.0
    if speed == 1.0 or (plan.data is not None and plan.times == "original"):
        return ""
    if plan.data is not None:
        return f"those of playing: the recording plays {speed:g} times as fast"
    apart_ms = round(PERIOD_S / speed * 1000, 3)
    return f"rows are {apart_ms:g} ms apart by time stamp: the rig plays {speed:g} times as fast"


def _next_steps(plan: DemoPlan) -> Mapping[str, str]:
    """Commands that may come next, by what they do."""
    testbed = invocation.testbed()
    if not plan.prototype:
        example = shlex.quote(str(EXAMPLES / "low_flow.py"))
        return {
            "Put a program of your own in the prototype's place; this one has ten lines:": (
                f"{testbed} try -- {invocation.python()} {example}"
            ),
            "Look at the streams while it all runs:": f"{testbed} demo --keep",
        }
    command = shlex.join(plan.prototype)
    return {
        "Let a build fail below a score:": f"{testbed} try --min-f1 0.8 -- {command}",
        "Play a recording instead of the model:": f"{testbed} try --recording rig.csv -- {command}",
    }
