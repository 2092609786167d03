"""The gaps that stand for a batch's samples where they cannot be kept.  Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson

from broker import codec
from broker.batch import Batch, Gap, Long
from broker.clock import NS_PER_S, ns_of
from gateway.samples import runs

FAILED = "spool-failed"
"""The cause where the spool's disk did not take a batch."""
FOLLOWS_NS = 10 * NS_PER_S
"""Holes of one outage that lie no further apart are one."""

Spans = dict[str, tuple[int, int]]


def holes_of(batch: Batch, cause: str) -> list[Gap]:
    """The gaps that say exactly what would be missing without this batch's samples."""
    return _gaps(orjson.loads(codec.body(batch)), names_in(batch), cause)


def emptied(body: bytes, names: Sequence[str], cause: str) -> bytes:
    """The same batch with gaps in place of its samples.

    names: of the signals, as a long frame of the batch counts them.
    """
    document: dict[str, Any] = orjson.loads(body)
    holes = [codec.gap_to_json(one) for one in _gaps(document, names, cause)]
    return codec.dumps(document | {"frames": [], "gaps": [*document.get("gaps", []), *holes]})


def joined(gaps: Sequence[Gap], names: Sequence[str]) -> list[Gap]:
    """The same holes, as one where a batch that was not kept follows another of its signal.

    gaps: of one stream, between which nothing was kept.  names: its signals, for a gap that names
    none.  So a disk that stays full costs one hole a signal; samples that came late keep their own.
    """
    others = [gap for gap in gaps if gap.cause != FAILED]
    spans: dict[str, list[tuple[int, int]]] = {}
    for gap in sorted((gap for gap in gaps if gap.cause == FAILED), key=lambda one: one.from_ns):
        for name in gap.signals or names:
            known = spans.setdefault(name, [])
            if known and gap.from_ns <= known[-1][1] + FOLLOWS_NS:
                known[-1] = (known[-1][0], max(known[-1][1], gap.to_ns))
            else:
                known.append((gap.from_ns, gap.to_ns))
    return [*others, *_together(((name, one) for name in spans for one in spans[name]), FAILED)]


def names_in(batch: Batch) -> tuple[str, ...]:
    """The signals as long frames of the batch count them; none if it has no such frame."""
    return next((one.names for one in batch.frames if isinstance(one, Long)), ())


def _gaps(document: Mapping[str, Any], names: Sequence[str], cause: str) -> list[Gap]:
    spans: Spans = {}
    for frame in document["frames"]:
        for name, (first, last) in _spans(frame, names).items():
            before = spans.get(name, (first, last))
            spans[name] = (min(first, before[0]), max(last, before[1]))
    return _together(spans.items(), cause)


def _together(spans: Iterable[tuple[str, tuple[int, int]]], cause: str) -> list[Gap]:
    """Signals with the same hole share a gap."""
    together: dict[tuple[int, int], list[str]] = {}
    for name, span in spans:
        together.setdefault(span, []).append(name)
    return [Gap(tuple(signals), *span, cause) for span, signals in together.items()]


def _spans(frame: Mapping[str, Any], names: Sequence[str]) -> Spans:
    """First and last time of each signal in one frame."""
    if not frame["dt"]:
        return {}
    times = np.array([int(dt) for dt in frame["dt"]], np.int64) + ns_of(frame["t0"])
    if "values" in frame:
        return dict.fromkeys(frame["values"], (int(times.min()), int(times.max())))
    signal = np.array(frame["signal"])
    order = np.lexsort((times, signal))
    starts = runs(signal[order])
    ends = np.append(starts[1:], len(order)) - 1
    return {
        names[at]: (int(times[order[start]]), int(times[order[end]]))
        for at, start, end in zip(signal[order[starts]].tolist(), starts, ends, strict=True)
    }
