"""The result of demultiplexing one notification: samples by stream, possible gaps and alarms."""

from dataclasses import dataclass, field

from gateway.samples import Lot, StreamSamples

OVERFLOW = "server-overflow"
"""The cause of a gap where the server's queue dropped samples."""
LOST = "lost-notification"
"""The cause of a gap where the server could not republish a message."""
UNREADABLE = "node-unreadable"
"""The cause of a gap while the server has no node for a signal, or refuses to monitor it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PossibleGap:
    """A place before a sample of a signal where samples may be missing.

    after_ns: time stamp of the sample before it in the same publish, or of the end of the gap that
    was stated last; None if that came earlier.  since_ns: start of the gap of a signal that never
    had a sample; None if that is no gap.
    cause: None before the first sample of a subscription, whose cause the link knows.
    """

    stream: int
    signal: int
    after_ns: int | None = None
    since_ns: int | None = None
    until_ns: int
    cause: str | None = None


@dataclass(slots=True)
class Demultiplexed:
    """One notification by stream, in the order of delivery.

    lot: all samples if they are plain, and then the rest is empty.  gaps: they end before the
    samples begin.  first: samples that are the first of their item; parts: all others.  unfit:
    number of values that did not fit their signal's dtype; reasons: (stream, signal, reason), once
    a signal.  gone, back: handles whose node disappeared from the server, or is there again.
    """

    lot: Lot | None = None
    gaps: list[PossibleGap] = field(default_factory=list)
    first: list[StreamSamples] = field(default_factory=list)
    parts: list[StreamSamples] = field(default_factory=list)
    unfit: int = 0
    reasons: list[tuple[int, int, str]] = field(default_factory=list)
    gone: list[int] = field(default_factory=list)
    back: list[int] = field(default_factory=list)
