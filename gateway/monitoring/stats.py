"""Statistics of a gateway for its operator, in the log and for Prometheus: what waits, what was
done, and how fresh each stream is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import structlog

from broker.bus import client
from broker.clock import NS_PER_S, Clock
from broker.errors import BedError
from broker.streams import StreamSpec
from gateway.links.counts import LinkCounts
from gateway.monitoring import health
from gateway.pipeline.pipeline import Pipeline
from gateway.spool.spool import Spool
from gateway.uplink.uplink import Uplink

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class StatsSources:
    """The objects whose counters are collected.  spool_limit_bytes: as set."""

    pipeline: Pipeline
    uplink: Uplink
    link: LinkCounts
    spool: Spool
    bus: client.Bus
    specs: Sequence[StreamSpec]
    clock: Clock
    spool_limit_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """Freshness of one stream.  silent_s: since its newest sample came; None before the first."""

    stream: str
    fresh: bool
    silent_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayStats:
    """Statistics of one moment; counters start with the process.

    mark_lag_s: time that the oldest batch has waited for its mark.  put_off_batches: left to the
    backlog, because the broker was slow.  commit_s: total time of `commits` to the disk.  gaps:
    cause -> gaps, counted for each signal; those of a full spool count as dropped batches.
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
    doubtful_samples: int
    far_samples: int
    repeated_samples: int
    alarms: int
    gaps: Mapping[str, int]
    streams: tuple[StreamStats, ...]

    def line(self) -> dict[str, object]:
        """Fields of a log line: all statistics, and the number of stale streams."""
        fields: dict[str, object] = asdict(self)
        del fields["streams"]
        return fields | {
            "mark_lag_s": round(self.mark_lag_s, 3),
            "commit_s": round(self.commit_s, 3),
            "streams": len(self.streams),
            "stale_streams": sum(not stream.fresh for stream in self.streams),
        }


async def collect(sources: StatsSources) -> GatewayStats:
    """Collect the statistics of this moment; raises Unavailable if the spool does not answer."""
    depth, monotonic_ns = await sources.spool.depth(), sources.clock.monotonic_ns()
    uplink, link, pipeline = sources.uplink.counts, sources.link, sources.pipeline
    filtered = pipeline.sample_filter.counts
    return GatewayStats(
        spool_batches=depth.unmarked,
        spool_bytes=depth.bytes,
        spool_limit_bytes=sources.spool_limit_bytes,
        mark_lag_s=sources.uplink.mark_lag_s(depth),
        dropped_batches=depth.dropped,
        disk_free_bytes=depth.disk_free,
        commits=uplink.commits,
        commit_s=uplink.commit_ns / NS_PER_S,
        sent_batches=uplink.batches,
        resent_batches=uplink.resent,
        put_off_batches=uplink.put_off,
        marks=uplink.marks,
        bus_connected=sources.bus.is_connected,
        bus_connects=uplink.connects,
        source_connects=link.connects,
        republished=link.republished,
        unfit_samples=link.unfit,
        offered_samples=sum(counts.offered for counts in filtered),
        dead_banded_samples=sum(counts.dead_banded for counts in filtered),
        moved_samples=sum(counts.moved for counts in filtered),
        doubtful_samples=sum(counts.doubtful for counts in filtered),
        far_samples=sum(counts.far.samples for counts in filtered),
        repeated_samples=sum(counts.repeated for counts in filtered),
        alarms=len(pipeline.alarms),
        gaps=dict(pipeline.gap_counts),
        streams=tuple(_stream(sources, index, monotonic_ns) for index in range(len(sources.specs))),
    )


def _stream(sources: StatsSources, index: int, monotonic_ns: int) -> StreamStats:
    spec, activity = sources.specs[index], sources.pipeline.activity[index]
    sample_ns = activity.sample_ns
    return StreamStats(
        stream=str(spec.address),
        fresh=health.is_fresh(spec, activity, monotonic_ns),
        silent_s=None if sample_ns is None else (monotonic_ns - sample_ns) / NS_PER_S,
    )


async def log_regularly(sources: StatsSources, every_s: float) -> None:
    """Log the statistics every `every_s` seconds, until cancelled."""
    while True:
        await sources.clock.sleep(every_s)
        await log_once(sources, "gateway statistics")


async def log_once(sources: StatsSources, event: str, **facts: object) -> None:
    """Log one line with these facts and the statistics."""
    try:
        snapshot = await collect(sources)
    except BedError as exc:
        log.warning("statistics were not collected", reason=str(exc), **facts)
    else:
        log.info(event, **facts, **snapshot.line())
