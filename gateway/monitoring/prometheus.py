"""What Prometheus reads of a gateway."""

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
from gateway.monitoring.stats import Figures

_PREFIX = "testbed_gateway_"

_GAUGES = {
    "spool_batches": "batches that wait for their mark",
    "spool_bytes": "bytes of batches in the spool, marked ones too",
    "spool_limit_bytes": "most bytes of batches that the spool keeps",
    "mark_lag_seconds": "how long the oldest batch has waited for its mark",
    "disk_free_bytes": "bytes left on the spool's disk",
    "bus_connected": "whether the gateway is on the bus",
    "alarms": "alarms that stand",
}
_COUNTERS = {
    "dropped_batches": "batches that a full spool made gaps",
    "sent_batches": "batches sent, those sent again too",
    "resent_batches": "batches sent again",
    "put_off_batches": "batches left to the backlog because the broker was slow",
    "marks": "marks taken",
    "bus_connects": "connections to the broker",
    "source_connects": "connections to the source",
    "republished": "notifications that were lost and had again",
    "unfit_samples": "samples that did not fit their signal",
    "offered_samples": "samples that the source offered",
    "dead_banded_samples": "samples within the dead band",
    "moved_samples": "samples moved by 1 ns, because their time stamp was taken",
    "repeated_samples": "samples that a new subscription told again",
}
_FIELDS = {"mark_lag_seconds": "mark_lag_s"}


class _Scrape(Collector):
    """The figures of one moment as metrics."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """One family a figure."""
        figures = self._figures
        for name, text in _GAUGES.items():
            value = float(getattr(figures, _FIELDS.get(name, name)))
            yield GaugeMetricFamily(_PREFIX + name, text, value=value)
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, text, value=getattr(figures, name))
        yield SummaryMetricFamily(
            _PREFIX + "commit_seconds",
            "commits to the spool's disk",
            count_value=figures.commits,
            sum_value=figures.commit_s,
        )
        gaps = CounterMetricFamily(
            _PREFIX + "gaps", "holes stated, counted for each signal", labels=["cause"]
        )
        for cause, count in figures.gaps.items():
            gaps.add_metric([cause], count)
        yield gaps
        fresh = GaugeMetricFamily(_PREFIX + "stream_fresh", "1 is fresh", labels=["stream"])
        silent = GaugeMetricFamily(
            _PREFIX + "stream_silent_seconds", "since the newest sample came", labels=["stream"]
        )
        for one in figures.streams:
            fresh.add_metric([one.stream], float(one.fresh))
            if one.silent_s is not None:
                silent.add_metric([one.stream], one.silent_s)
        yield from (fresh, silent)


def page(figures: Figures) -> bytes:
    """The figures in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(figures))
    return generate_latest(registry)


async def serve(port: int, figures: Callable[[], Awaitable[Figures]]) -> None:
    """Answer `GET /metrics` on loopback until cancelled; raises Taken if the port is in use."""

    async def told() -> bytes:
        return page(await figures())

    await metrics_server.serve(port, told, setting="TESTBED_GATEWAY_METRICS_PORT")
