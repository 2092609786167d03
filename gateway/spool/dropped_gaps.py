"""Gaps that replace the samples of batches which cannot be stored.  Pure."""

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
"""Gaps of a failing disk that lie no further apart are joined."""

Spans = dict[str, tuple[int, int]]
"""Signal -> first and last time stamp."""


def gaps_of(batch: Batch, cause: str) -> list[Gap]:
    """The gaps that cover exactly the samples of a batch."""
    return _gaps(orjson.loads(codec.body(batch)), names_in(batch), cause)


def emptied(body: bytes, names: Sequence[str], cause: str) -> bytes:
    """The body of a batch with gaps in place of its samples.

    names: of the signals, in the order that a long frame of the batch indexes.
    """
    document: dict[str, Any] = orjson.loads(body)
    gaps = [codec.gap_to_json(gap) for gap in _gaps(document, names, cause)]
    return codec.dumps(document | {"frames": [], "gaps": [*document.get("gaps", []), *gaps]})


def joined(gaps: Sequence[Gap], names: Sequence[str]) -> list[Gap]:
    """Join the gaps of consecutive batches that were not spooled, for each signal.

    A disk that stays full so costs one gap a signal.  Gaps of late samples stay apart.

    gaps: of one stream, between which nothing was spooled.  names: its signals, for a gap that
    names none.
    """
    others = [gap for gap in gaps if gap.cause != FAILED]
    spans: dict[str, list[tuple[int, int]]] = {}
    for gap in sorted((gap for gap in gaps if gap.cause == FAILED), key=lambda gap: gap.from_ns):
        for name in gap.signals or names:
            known = spans.setdefault(name, [])
            if known and gap.from_ns <= known[-1][1] + FOLLOWS_NS:
                known[-1] = (known[-1][0], max(known[-1][1], gap.to_ns))
            else:
                known.append((gap.from_ns, gap.to_ns))
    return [*others, *_shared(((name, span) for name in spans for span in spans[name]), FAILED)]


def names_in(batch: Batch) -> tuple[str, ...]:
    """The signal names that a batch's long frame indexes; none if it has no long frame."""
    return next((frame.names for frame in batch.frames if isinstance(frame, Long)), ())


def _gaps(document: Mapping[str, Any], names: Sequence[str], cause: str) -> list[Gap]:
    spans: Spans = {}
    for frame in document["frames"]:
        for name, (first, last) in _spans(frame, names).items():
            before = spans.get(name, (first, last))
            spans[name] = (min(first, before[0]), max(last, before[1]))
    return _shared(spans.items(), cause)


def _shared(spans: Iterable[tuple[str, tuple[int, int]]], cause: str) -> list[Gap]:
    """Gaps of spans; signals with the same span share one."""
    by_span: dict[tuple[int, int], list[str]] = {}
    for name, span in spans:
        by_span.setdefault(span, []).append(name)
    return [Gap(tuple(signals), *span, cause) for span, signals in by_span.items()]


def _spans(frame: Mapping[str, Any], names: Sequence[str]) -> Spans:
    """First and last time stamp of each signal in one frame."""
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
