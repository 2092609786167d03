"""Routes for operators of the testbed: health, readiness and metrics."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.bus import client
from broker.clock import NS_PER_S
from broker.errors import Unavailable
from broker.process import metrics_server
from broker.responses.operations import HealthResponse, ReadinessResponse
from broker.rights import Action
from testbed_api.audit.clock_watch import ClockWatch
from testbed_api.domain.deployments import Deployment, DeploymentMetrics
from testbed_api.http import openapi_examples
from testbed_api.http.auth import CallerDep, asks
from testbed_api.http.dependencies import (
    BusDep,
    CertificatesDep,
    ClockDep,
    ClockWatchDep,
    FreshnessDep,
    LateConnectsDep,
    LedgerDep,
    QuotasDep,
    RecorderDep,
    RecorderStatus,
    RegistryDep,
    StoreDep,
)
from testbed_api.limits.quotas import Quotas
from testbed_api.recorder import metrics as recorder_metrics
from testbed_api.recorder.freshness import FreshnessTracker

router = APIRouter(tags=["operations"])


@router.get(
    "/health",
    openapi_extra=asks(None),
    summary="Alive?",
    responses=openapi_examples.answer(HealthResponse),
)
async def health() -> HealthResponse:
    """Answers while the process runs; needs no credential."""
    return HealthResponse(state="alive")


@router.get(
    "/ready",
    openapi_extra=asks(Action.ENTER),
    summary="Ready?",
    responses=openapi_examples.answer(ReadinessResponse) | openapi_examples.problems(401, 429, 503),
)
async def ready(
    store: StoreDep, bus: BusDep, recorder: RecorderDep, _caller: CallerDep
) -> ReadinessResponse:
    """Whether registry, store and broker answer; 503 with what is wrong. For every credential."""
    await store.ready()  # the registry has answered: it knew the caller
    if why := recorder.interrupted():
        raise Unavailable(f"recording is interrupted: {why}", hint="nothing is lost: it waits")
    if not bus.is_connected:
        raise bus.last_error or Unavailable("the broker is not connected")
    return ReadinessResponse(state="ready")


@router.get(
    "/metrics",
    openapi_extra=asks(Action.OPERATE),
    summary="Counts for Prometheus",
    response_class=Response,
    responses=openapi_examples.text(openapi_examples.METRICS, "text/plain")
    | openapi_examples.problems(401, 403, 429),
)
async def metrics(
    recorder: RecorderDep,
    quotas: QuotasDep,
    bus: BusDep,
    ledger: LedgerDep,
    certificates: CertificatesDep,
    clock: ClockDep,
    freshness: FreshnessDep,
    clock_watch: ClockWatchDep,
    late_connects: LateConnectsDep,
    registry: RegistryDep,
    caller: CallerDep,
) -> Response:
    """Counters of recorder, ledger and limits, the state of clocks, the time that certificates
    have left, and the resources of deployments, for operators.
    """
    caller.must(Action.OPERATE)
    collectors = CollectorRegistry(auto_describe=False)
    collectors.register(_Counts(recorder, quotas, bus, await ledger.counts(), late_connects()))
    collectors.register(_CertificateTimes(certificates.left_ns(clock.now_ns())))
    collectors.register(_Clocks(freshness, clock_watch))
    collectors.register(_Deployments(await registry.deployments.going_on()))
    return Response(generate_latest(collectors), media_type=metrics_server.TEXT)


class _Counts(Collector):
    """The recorder's counts and the ledger's, as they are at one scrape."""

    def __init__(
        self,
        recorder: RecorderStatus,
        quotas: Quotas,
        bus: client.Bus,
        ledger: Mapping[str, int],
        late_connects: int,
    ) -> None:
        self._recorder = recorder
        self._quotas = quotas
        self._bus = bus
        self._ledger = ledger
        self._late_connects = late_connects

    def collect(self) -> Iterator[Metric]:
        """Yield one metric family per counter."""
        yield from recorder_metrics.families(self._recorder.counts())
        yield from self._refused()
        for name, count in self._ledger.items():
            yield GaugeMetricFamily(f"testbed_ledger_{name}", f"ledger: {name} in all", value=count)
        connected = float(self._bus.is_connected)
        yield GaugeMetricFamily(
            "testbed_broker_connected", "whether the API is on the bus", value=connected
        )
        yield CounterMetricFamily(
            "testbed_broker_late_connects",
            "connect requests that were too late to be answered; their clients ask again",
            value=self._late_connects,
        )

    def _refused(self) -> Iterator[Metric]:
        labels = ("organisation", "what")
        meaning = (
            "requests and connections beyond a limit; organisation is empty without a credential"
        )
        family = CounterMetricFamily("testbed_limited", meaning, labels=labels)
        for labelled, count in sorted(self._quotas.refused.items()):
            family.add_metric(labelled, count)
        yield family


class _CertificateTimes(Collector):
    """The time that the certificates of the listeners have left."""

    def __init__(self, left_ns: Mapping[str, int]) -> None:
        self._left_ns = left_ns

    def collect(self) -> Iterator[Metric]:
        """Yield one metric family, with a sample for each certificate."""
        family = GaugeMetricFamily(
            "testbed_certificate_left_seconds",
            "time until the certificate ends, negative after its end",
            labels=["certificate"],
        )
        for label, left_ns in self._left_ns.items():
            family.add_metric([label], left_ns / NS_PER_S)
        yield family


class _Clocks(Collector):
    """The machine's clock, and those of the publishers against it."""

    def __init__(self, freshness: FreshnessTracker, clock_watch: ClockWatch) -> None:
        self._freshness = freshness
        self._clock_watch = clock_watch

    def collect(self) -> Iterator[Metric]:
        """Yield the steps of the clock, and how far others are ahead of it."""
        yield CounterMetricFamily(
            "testbed_clock_steps",
            "steps of this machine's clock, since the start",
            value=self._clock_watch.steps,
        )
        yield GaugeMetricFamily(
            "testbed_clock_ahead_seconds",
            "seconds that the server's time is ahead of this machine's clock, after a step back",
            value=self._clock_watch.ahead_s,
        )
        offsets = GaugeMetricFamily(
            "testbed_publisher_clock_ahead_seconds",
            "seconds that a publisher's clock is ahead of this machine's",
            labels=("space", "publisher"),
        )
        for (space, publisher), ahead_s in self._freshness.clock_offsets():
            offsets.add_metric((space, str(publisher)), ahead_s)
        yield offsets


_OF_DEPLOYMENT = ("deployment", "organisation", "prototype", "stage", "site")
_GAUGES: Mapping[str, tuple[str, Callable[[DeploymentMetrics], float | None]]] = {
    "memory_bytes": ("bytes of memory that it uses", lambda its: its.memory_bytes),
    "pids": ("processes and threads that it has", lambda its: its.pids),
    "lag_seconds": ("age of the newest batch when its program got it", lambda its: its.lag_s),
}
_COUNTERS: Mapping[str, tuple[str, Callable[[DeploymentMetrics], float | None]]] = {
    "cpu_seconds": ("processor seconds since its container started", lambda its: its.cpu_s),
    "received_batches": ("batches that it received since then", lambda its: its.messages_in),
    "published_batches": ("batches that it published since then", lambda its: its.messages_out),
    "received_bytes": ("bytes that it received since then", lambda its: its.bytes_in),
    "sent_bytes": ("bytes that it sent since then", lambda its: its.bytes_out),
}


class _Deployments(Collector):
    """The deployments that go on, as their runners reported them last."""

    def __init__(self, deployments: Sequence[Deployment]) -> None:
        self._deployments = deployments

    def collect(self) -> Iterator[Metric]:
        """Yield a family for each figure, with a sample for each deployment that has it."""
        states = GaugeMetricFamily(
            "testbed_deployment_state",
            "1 for the state that a deployment is in",
            labels=(*_OF_DEPLOYMENT, "state"),
        )
        restarts = CounterMetricFamily(
            "testbed_deployment_restarts", "further starts of its program", labels=_OF_DEPLOYMENT
        )
        for each in self._deployments:
            states.add_metric((*_labelled(each), each.state), 1)
            restarts.add_metric(_labelled(each), each.restarts)
        yield from (states, restarts)
        for kind, figures in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, (meaning, value_of) in figures.items():
                family = kind(f"testbed_deployment_{name}", meaning, labels=_OF_DEPLOYMENT)
                for each in self._deployments:
                    value = None if each.metrics is None else value_of(each.metrics)
                    if value is not None:
                        family.add_metric(_labelled(each), value)
                yield family


def _labelled(deployment: Deployment) -> tuple[str, ...]:
    """The values of the labels of a deployment."""
    return (
        str(deployment.id),
        deployment.organisation,
        deployment.prototype,
        deployment.stage,
        deployment.runner or "",
    )
