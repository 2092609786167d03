"""The gateway's figures for its operator: how much waits, what was done, how fresh each stream is.

One snapshot feeds the line in the log and what Prometheus reads.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import structlog

from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import BedError
from broker.streams import StreamSpec
from gateway.monitoring import health
from gateway.pipeline.pipeline import Feed
from gateway.spool.spool import Spool
from gateway.uplink import Uplink

log = structlog.get_logger()


class Counted(Protocol):
    """What every link counts: connections to its source, what it had again, what did not fit."""

    connects: int
    republished: int
    unfit: int


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the figures are read.  spool_limit_bytes: as set."""

    feed: Feed
    uplink: Uplink
    link: Counted
    spool: Spool
    bus: client.Bus
    specs: Sequence[StreamSpec]
    clock: Clock
    spool_limit_bytes: int


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """How fresh one stream is.  silent_s: since its newest sample came; None before the first."""

    stream: str
    fresh: bool
    silent_s: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """One moment of a gateway; what counts does so from its start.

    mark_lag_s: how long the oldest batch has waited for its mark.  put_off_batches: left to the
    backlog, because the broker was slow.  commit_s: in which `commits` were written to the disk.
    gaps: holes by cause, counted for each signal; those of a full spool count as dropped batches.
    """

    spool_batches: int
    spool_bytes: int
    spool_limit_bytes: int
    mark_lag_s: float
    dropped_batches: int
    disk_free_bytes: int
    commits: int
    commit_s: float
    sent_batches: int
    resent_batches: int
    put_off_batches: int
    marks: int
    bus_connected: bool
    bus_connects: int
    source_connects: int
    republished: int
    unfit_samples: int
    offered_samples: int
    dead_banded_samples: int
    moved_samples: int
    repeated_samples: int
    alarms: int
    gaps: Mapping[str, int]
    streams: tuple[StreamFigures, ...]

    def line(self) -> dict[str, object]:
        """For the log: all of it, of the streams only how many are stale."""
        told: dict[str, object] = asdict(self)
        del told["streams"]
        return told | {
            "mark_lag_s": round(self.mark_lag_s, 3),
            "commit_s": round(self.commit_s, 3),
            "streams": len(self.streams),
            "stale_streams": sum(not one.fresh for one in self.streams),
        }


async def gathered(sources: Sources) -> Figures:
    """The figures now; raises Unavailable if the spool does not answer."""
    depth, now_ns = await sources.spool.depth(), sources.clock.now_ns()
    sent, link, feed = sources.uplink.sent, sources.link, sources.feed
    shaped = feed.intake.shaped
    return Figures(
        spool_batches=depth.unmarked,
        spool_bytes=depth.bytes,
        spool_limit_bytes=sources.spool_limit_bytes,
        mark_lag_s=0.0 if depth.oldest_ns is None else (now_ns - depth.oldest_ns) / NS_PER_S,
        dropped_batches=depth.dropped,
        disk_free_bytes=depth.disk_free,
        commits=sent.commits,
        commit_s=sent.commit_ns / NS_PER_S,
        sent_batches=sent.batches,
        resent_batches=sent.again,
        put_off_batches=sent.put_off,
        marks=sent.marks,
        bus_connected=sources.bus.is_connected,
        bus_connects=sent.connects,
        source_connects=link.connects,
        republished=link.republished,
        unfit_samples=link.unfit,
        offered_samples=sum(one.offered for one in shaped),
        dead_banded_samples=sum(one.dead_banded for one in shaped),
        moved_samples=sum(one.moved for one in shaped),
        repeated_samples=sum(one.repeated for one in shaped),
        alarms=len(feed.alarms),
        gaps=dict(feed.causes),
        streams=tuple(_stream(sources, at, now_ns) for at in range(len(sources.specs))),
    )


def _stream(sources: Sources, at: int, now_ns: int) -> StreamFigures:
    spec, heard = sources.specs[at], sources.feed.heard_of[at]
    silent_s = (now_ns - heard.sample_ns) / NS_PER_S if heard.sample_ns else None
    return StreamFigures(str(spec.address), health.is_fresh(spec, heard, now_ns), silent_s)


async def log_lines(sources: Sources, every_s: float) -> None:
    """A line so often, until cancelled."""
    while True:
        await sources.clock.sleep(every_s)
        await log_line(sources, "gateway figures")


async def log_line(sources: Sources, event: str, **facts: object) -> None:
    """One line, with these facts before the figures."""
    try:
        figures = await gathered(sources)
    except BedError as exc:
        log.warning("figures were not gathered", reason=str(exc), **facts)
    else:
        log.info(event, **facts, **figures.line())
