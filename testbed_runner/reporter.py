"""Reports to the testbed what a site does: its own state, and the news of its deployments.

Each second while there is news, else every ten seconds.  What is not confirmed is sent again.
"""

from collections.abc import Mapping

import structlog

from broker.clock import NS_PER_S, Backoff, Clock
from broker.deployments.life import DeploymentState
from broker.deployments.report import (
    MOST_DEPLOYMENTS,
    MOST_LINES,
    MOST_REASON,
    ReportedDeployment,
    ReportedMetrics,
    RunnerReport,
)
from broker.errors import Refused, Unavailable
from testbed_runner.api import RunnerApi
from testbed_runner.journal import LinePosition
from testbed_runner.port import ContainerState, Engine, EngineAway, SiteState
from testbed_runner.reconciler import DeploymentReconciler
from testbed_runner.settings import RunnerSettings
from testbed_runner.supervised import SupervisedDeployment

NEWS_EVERY_S = 1.0
REPORT_EVERY_NS = 10 * NS_PER_S
METRICS_EVERY_NS = 5 * NS_PER_S
MOST_CHARACTERS = 1024**2
"""Characters of lines in one report."""
LONGEST_PAUSE_S = 10.0
MIB = 1024**2

log = structlog.get_logger()


class RunnerReporter:
    """Reports on a site until cancelled."""

    def __init__(
        self,
        reconciler: DeploymentReconciler,
        engine: Engine,
        api: RunnerApi,
        *,
        settings: RunnerSettings,
        clock: Clock,
    ) -> None:
        """settings: what the site gives to deployments."""
        self._reconciler = reconciler
        self._engine = engine
        self._api = api
        self._settings = settings
        self._clock = clock
        self._metrics: dict[int, ReportedMetrics] = {}
        self._measured_ns = 0
        self._reported_ns: int | None = None
        self._is_away = False

    async def run(self) -> None:
        """Report until cancelled."""
        backoff = Backoff(
            self._clock, first_s=NEWS_EVERY_S, longest_s=LONGEST_PAUSE_S, jitter=False
        )
        while True:
            if await self._report_once():
                backoff.reset()
                await self._clock.sleep(NEWS_EVERY_S)
            else:
                await backoff.pause()

    async def _report_once(self) -> bool:
        """Report if there is news or it is time to; returns whether the testbed answered."""
        if self._reconciler.site is None:
            return True
        await self._measure()
        news = self._news()
        now_ns = self._clock.monotonic_ns()
        is_due = self._reported_ns is None or now_ns - self._reported_ns >= REPORT_EVERY_NS
        if not news and not is_due:
            return True
        try:
            await self._api.report(self._report(self._reconciler.site, list(news.values())))
        except (Unavailable, Refused) as exc:
            if not self._is_away:
                log.warning("report was not taken", reason=str(exc))
            self._is_away = True
            return False
        if self._is_away:
            log.info("reports are taken again")
        self._is_away, self._reported_ns = False, now_ns
        await self._confirm(news)
        return True

    def _report(self, site: SiteState, news: list[ReportedDeployment]) -> RunnerReport:
        own, refusal = self._settings, self._reconciler.refusal
        memory_bytes = site.memory_bytes // 2
        if own.runner_memory_mib is not None:
            memory_bytes = own.runner_memory_mib * MIB
        return RunnerReport(
            product=self._engine.product,
            version=site.version[:100],
            architecture=site.architecture[:40],
            takes_work=not refusal,
            reason=refusal[:MOST_REASON],
            cpu=own.runner_cpu or site.cpu,
            memory_bytes=min(memory_bytes, site.memory_bytes),
            images=sorted(self._reconciler.images)[:MOST_DEPLOYMENTS],
            deployments=news,
        )

    def _news(self) -> dict[int, ReportedDeployment]:
        """The news of each deployment that has any."""
        news: dict[int, ReportedDeployment] = {}
        characters = MOST_CHARACTERS
        for number, supervised in self._reconciler.supervised.items():
            lines = supervised.log.portion(MOST_LINES, characters)
            characters -= sum(len(line.text) for line in lines)
            record = self._reconciler.journal.records.get(number)
            events = list(record.portion) if record is not None else []
            is_whole = not lines or supervised.log.last == lines[-1].number
            if not (is_whole and supervised.log.is_read):  # with its end, no more lines are taken
                events = [each for each in events if each.state is not DeploymentState.ENDED]
            metrics = self._metrics.get(number)
            if (lines or events or metrics) and len(news) < MOST_DEPLOYMENTS:
                news[number] = ReportedDeployment(
                    id=number, events=events, lines=lines, metrics=metrics
                )
        return news

    async def _confirm(self, news: Mapping[int, ReportedDeployment]) -> None:
        """Drop what the testbed has now."""
        journal, positions = self._reconciler.journal, dict[int, LinePosition]()
        for number, each in news.items():
            self._metrics.pop(number, None)
            record = journal.records.get(number)
            if record is not None and each.events:
                await journal.put(record.confirmed(each.events[-1].number))
            supervised = self._reconciler.supervised.get(number)
            if supervised is not None and each.lines:
                positions[number] = supervised.log.confirmed(each.lines[-1].number)
        if positions:
            await journal.reached(positions)

    # --- metrics ----------------------------------------------------------------------------------

    async def _measure(self) -> None:
        """Measure what each running container uses, now and then."""
        now_ns = self._clock.monotonic_ns()
        if now_ns - self._measured_ns < METRICS_EVERY_NS:
            return
        self._measured_ns = now_ns
        for number, container in self._reconciler.containers.items():
            supervised = self._reconciler.supervised.get(number)
            if supervised is not None and container.state is ContainerState.RUNNING:
                await self._measure_one(number, supervised)

    async def _measure_one(self, number: int, supervised: SupervisedDeployment) -> None:
        record = self._reconciler.journal.records.get(number)
        try:
            usage = await self._engine.usage(number)
        except EngineAway:  # the reconciler says so
            return
        if usage is None or record is None or not supervised.is_taken_over:
            return
        traffic = self._engine.traffic(number)
        self._metrics[number] = ReportedMetrics(
            at_ns=self._clock.now_ns(),
            cpu_s=usage.cpu_s,
            memory_bytes=usage.memory_bytes,
            pids=usage.pids,
            messages_in=traffic.messages_in,
            messages_out=traffic.messages_out,
            bytes_in=traffic.bytes_in,
            bytes_out=traffic.bytes_out,
            lag_s=traffic.lag_s,
            restarts=record.history.restarts,
        )
