"""The recorder's counters in the text format of Prometheus, for the API or its own process."""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_GAUGES = frozenset({"waiting", "quarantined", "disk_free_bytes", "interrupted"})


def families(counts: Mapping[str, int]) -> Iterator[Metric]:
    """One metric family per counter; counters start at zero with the recorder."""
    for name, count in counts.items():
        family = GaugeMetricFamily if name in _GAUGES else CounterMetricFamily
        yield family(f"testbed_recorder_{name}", f"recorder: {name}, since its start", value=count)


class _RecorderCollector(Collector):
    def __init__(self, counts: Mapping[str, int]) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        return families(self._counts)


def page(counts: Mapping[str, int]) -> bytes:
    """The counters in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_RecorderCollector(counts))
    return generate_latest(registry)
