"""Prometheus metrics of a gateway, served at `/metrics` on loopback."""

from collections.abc import Awaitable, Callable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from broker.process import metrics_server
from gateway.monitoring.stats import GatewayStats

_PREFIX = "testbed_gateway_"

_GAUGES = {
    "spool_batches": "batches that wait for their mark",
    "spool_bytes": "bytes of batches in the spool, including marked ones",
    "spool_limit_bytes": "most bytes of batches that the spool stores",
    "mark_lag_seconds": "seconds that the oldest batch has waited for its mark",
    "disk_free_bytes": "free bytes on the spool's disk",
    "bus_connected": "1 if the gateway is connected to the bus",
    "alarms": "alarms that are raised",
}
_COUNTERS = {
    "dropped_batches": "batches that a full spool replaced with gaps",
    "sent_batches": "batches sent, including those sent again",
    "resent_batches": "batches sent again",
    "put_off_batches": "batches left to the backlog because the broker was slow",
    "marks": "marks received",
    "bus_connects": "connections to the broker",
    "source_connects": "connections to the source",
    "republished": "notifications received by Republish after they were lost",
    "unfit_samples": "samples whose value did not fit their signal's dtype",
    "offered_samples": "samples that the source offered",
    "dead_banded_samples": "samples dropped by the dead band",
    "moved_samples": "samples moved by some ns, because their time stamp was used already",
    "doubtful_samples": "samples whose time stamp may have been used, which the recorder checks",
    "far_samples": "samples whose time stamp was far from now, stored as uncertain",
    "repeated_samples": "samples that a new subscription sent again",
}
_FIELDS = {"mark_lag_seconds": "mark_lag_s"}


class _StatsCollector(Collector):
    """Converts statistics of one moment to Prometheus metrics."""

    def __init__(self, snapshot: GatewayStats) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        """Yield one metric family for each statistic."""
        snapshot = self._snapshot
        for name, text in _GAUGES.items():
            value = float(getattr(snapshot, _FIELDS.get(name, name)))
            yield GaugeMetricFamily(_PREFIX + name, text, value=value)
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, text, value=getattr(snapshot, name))
        yield SummaryMetricFamily(
            _PREFIX + "commit_seconds",
            "commits to the spool's disk",
            count_value=snapshot.commits,
            sum_value=snapshot.commit_s,
        )
        gaps = CounterMetricFamily(
            _PREFIX + "gaps", "gaps stated, counted for each signal", labels=["cause"]
        )
        for cause, count in snapshot.gaps.items():
            gaps.add_metric([cause], count)
        yield gaps
        fresh = GaugeMetricFamily(
            _PREFIX + "stream_fresh", "1 if the stream is fresh", labels=["stream"]
        )
        silent = GaugeMetricFamily(
            _PREFIX + "stream_silent_seconds",
            "seconds since the newest sample came",
            labels=["stream"],
        )
        for stream in snapshot.streams:
            fresh.add_metric([stream.stream], float(stream.fresh))
            if stream.silent_s is not None:
                silent.add_metric([stream.stream], stream.silent_s)
        yield from (fresh, silent)


def page(snapshot: GatewayStats) -> bytes:
    """Statistics in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StatsCollector(snapshot))
    return generate_latest(registry)


async def serve(port: int, collect: Callable[[], Awaitable[GatewayStats]]) -> None:
    """Answer `GET /metrics` on loopback until cancelled; raises Taken if the port is in use."""

    async def render() -> bytes:
        return page(await collect())

    await metrics_server.serve(port, render, setting="TESTBED_GATEWAY_METRICS_PORT")
