"""Brings what runs at a site to what is wanted there, a step at a time, and again after each fault.

It looks at once when the list of work changes or a program ends, often while something is on its
way, and every few seconds otherwise.  It adopts what runs, and removes what nobody wants.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import structlog

from broker.clock import NS_PER_S, SteadyTime
from broker.deployments.life import DeploymentState, WantedState
from broker.errors import BedError
from testbed_runner import decision, endings
from testbed_runner.decision import (
    ContainerSight,
    DeploymentHistory,
    DeploymentStep,
    RunnerAction,
)
from testbed_runner.journal import DeploymentRecord, LinePosition, RunnerJournal
from testbed_runner.orders import RunnerOrder
from testbed_runner.port import (
    CannotStart,
    Container,
    ContainerState,
    EngineAway,
    SiteState,
)
from testbed_runner.supervised import SiteParts, SupervisedDeployment

LOOK_EVERY_S = 5.0
SOON_S = 0.5
LAST_STOP_S = 3.0
"""Time that programs have to end that end with the runner."""
CHECK_EVERY_NS = 60 * NS_PER_S
LOG_WITHIN_NS = 10 * NS_PER_S
"""After so long the log of an ended container is read no further."""
_MOVING = frozenset(
    {
        DeploymentState.PULLING,
        DeploymentState.STARTING,
        DeploymentState.CONNECTING,
        DeploymentState.STOPPING,
    }
)
_TO_START = frozenset({RunnerAction.FETCH, RunnerAction.START})

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RunnerTrust:
    """The organisations whose programs a site runs.

    organisations: None for all, where the product isolates them.
    """

    organisations: frozenset[str] | None = None

    def refusal(self, organisation: str) -> str:
        """Why the programs of an organisation are not run here; empty if they are."""
        if self.organisations is None or organisation in self.organisations:
            return ""
        names = ", ".join(sorted(self.organisations))
        return (
            f"plain processes isolate nothing, and so only programs of {names} run there; whoever"
            f" runs that site adds others: testbed runner run --trust {organisation}"
        )


@dataclass(slots=True)
class _Look:
    """A deployment while it is looked at: its parts, and the step that is under way."""

    supervised: SupervisedDeployment
    action: RunnerAction | None = None
    task: asyncio.Task[None] | None = None
    ended_ns: int | None = None
    """When its container was first seen to have ended."""
    from_round: int = 0
    """The first round that sees what the last step has changed."""


class DeploymentReconciler:
    """Reconciles all deployments of a site; `run` does it until cancelled."""

    def __init__(self, parts: SiteParts, journal: RunnerJournal) -> None:
        """Remember the parts; nothing is done before the first list of work is there."""
        self.site: SiteState | None = None
        self.refusal = "its product was not looked at yet"
        """Why the site takes no work, empty if it does."""
        self.images: set[str] = set()
        """Digests of images that are known to be here."""
        self.containers: Mapping[int, Container] = {}
        """As they were seen last."""
        self.orders: Mapping[int, RunnerOrder] | None = None
        self.trust = RunnerTrust()
        self.journal = journal
        self._parts = parts
        self._steady = SteadyTime(parts.clock)
        self._looks: dict[int, _Look] = {}
        self._rounds = 0
        self._checked_ns: int | None = None

    @property
    def supervised(self) -> Mapping[int, SupervisedDeployment]:
        """The deployments that are looked at."""
        return {number: look.supervised for number, look in self._looks.items()}

    def receive(self, orders: Mapping[int, RunnerOrder]) -> None:
        """Take a new list of work in the place of the former one."""
        self.orders = orders
        self._parts.woken.set()

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            self._parts.woken.clear()
            await self._round()
            wait_s = SOON_S if self._is_moving() else LOOK_EVERY_S
            try:
                async with asyncio.timeout(wait_s):
                    await self._parts.woken.wait()
            except TimeoutError:
                continue

    async def close(self, *, ends_programs: bool) -> None:
        """Let go of all deployments once `run` was cancelled.

        ends_programs: end them, so that they start again with the next runner; else they go on.
        """
        for look in self._looks.values():
            await _cancelled(look.task)
        if ends_programs:
            await self._end_all()
        for look in self._looks.values():
            await look.supervised.close()

    async def _end_all(self) -> None:
        """End all programs, also those that were not looked at yet."""
        try:
            containers = await self._parts.engine.containers()
        except EngineAway as exc:
            log.warning("programs were not ended", reason=str(exc))
            return
        async with asyncio.TaskGroup() as tasks:
            for each in containers:
                tasks.create_task(self._end(each.deployment), name=f"end of {each.deployment}")

    async def _end(self, number: int) -> None:
        """End a program, for the next runner to start it again."""
        look, record = self._looks.get(number) or self._begin_to_look(number), self._record(number)
        if record.history.state is not DeploymentState.ENDED:
            step = decision.interrupted(record.history, self._steady.now_ns())
            await self._apply(record, step)
        try:
            await self._parts.engine.stop(number, LAST_STOP_S)
            await look.supervised.remove()
        except EngineAway as exc:
            log.warning("program was not ended", deployment=number, reason=str(exc))

    # --- a round ----------------------------------------------------------------------------------

    async def _round(self) -> None:
        self._rounds += 1
        try:
            await self._check()
            containers = await self._parts.engine.containers()
        except EngineAway as exc:
            if self.refusal != str(exc):
                log.warning("product does not answer", reason=str(exc))
            self.refusal, self._checked_ns = str(exc), None
            return
        self.containers = {each.deployment: each for each in containers}
        if self.orders is None:
            return
        for number in sorted({*self.orders, *self.containers, *self.journal.records}):
            await self._look(number, self.containers.get(number))

    async def _check(self) -> None:
        """Look at the product itself, now and then."""
        now_ns = self._steady.now_ns()
        if self._checked_ns is not None and now_ns - self._checked_ns < CHECK_EVERY_NS:
            return
        self.site = await self._parts.engine.check()
        self.refusal = "" if self.site.takes_work else self.site.reason
        self._checked_ns = now_ns

    async def _look(self, number: int, container: Container | None) -> None:
        """Decide on a deployment, write that down, and begin what follows."""
        look = self._looks.get(number) or self._begin_to_look(number)
        order = (self.orders or {}).get(number)
        if look.task is not None and not look.task.done():
            if look.action is RunnerAction.FETCH and not _is_to_go_on(order):
                look.task.cancel()
            return
        look.task = None
        if self._rounds < look.from_round:
            return
        if container and order and not look.supervised.is_taken_over:
            await self._adopt(look, container, order)
        record = self._record(number)
        sight = await self._sight(look, container, order, record.history)
        wanted = None if order is None else order.wanted
        step = decision.decide(wanted, record.history, sight)
        await self._apply(record, step)
        if step.action is RunnerAction.FORGET:
            await self._forget(number, look)
        elif step.action is not None:
            self._begin(look, step.action, order)

    def _begin_to_look(self, number: int) -> _Look:
        reported = self.journal.positions.get(number, LinePosition())
        order = (self.orders or {}).get(number)
        if order is not None and order.item.last_line > reported.number:
            reported = replace(reported, number=order.item.last_line)
        look = _Look(SupervisedDeployment(number, self._parts, reported))
        self._looks[number] = look
        return look

    def _record(self, number: int) -> DeploymentRecord:
        """The memory of a deployment; of one that is new here, that of the testbed."""
        if (record := self.journal.records.get(number)) is not None:
            return record
        order = (self.orders or {}).get(number)
        last = 0 if order is None else order.item.last_event
        history = DeploymentHistory(since_ns=self._steady.now_ns())
        return DeploymentRecord(deployment=number, history=history, last_event=last)

    async def _sight(
        self,
        look: _Look,
        container: Container | None,
        order: RunnerOrder | None,
        history: DeploymentHistory,
    ) -> ContainerSight:
        now_ns = self._steady.now_ns()
        if container is None or container.state is not ContainerState.ENDED:
            look.ended_ns = None
        elif look.ended_ns is None:
            look.ended_ns = now_ns
            await look.supervised.end_source()
        waited_ns = 0 if look.ended_ns is None else now_ns - look.ended_ns
        traffic = self._parts.engine.traffic(look.supervised.number)
        silent_ns = None
        if traffic.last_out_ns is not None:
            silent_ns = self._parts.clock.monotonic_ns() - traffic.last_out_ns
        return ContainerSight(
            now_ns=now_ns,
            container=container,
            has_image=container is None and order is not None and await self._has_image(order),
            is_let_in=traffic.is_let_in or history.state is DeploymentState.RUNNING,
            silent_ns=silent_ns,
            is_log_read=look.supervised.log.is_read or waited_ns > LOG_WITHIN_NS,
            refusal=self.refusal or ("" if order is None else self._distrust(order)),
        )

    def _distrust(self, order: RunnerOrder) -> str:
        return self.trust.refusal(order.item.organisation)

    async def _has_image(self, order: RunnerOrder) -> bool:
        digest = order.image.digest
        if await self._parts.engine.has(order.image):
            self.images.add(digest)
            return True
        self.images.discard(digest)
        return False

    async def _apply(self, record: DeploymentRecord, step: DeploymentStep) -> None:
        """Write down what was decided, before anything follows from it."""
        if step.history == record.history:
            return
        supervised = self._looks[record.deployment].supervised
        later = record.after(
            step.history,
            step.changes,
            at_ns=self._parts.clock.now_ns(),
            redaction=supervised.redaction,
        )
        await self.journal.put(later)
        for change in step.changes:
            log.info(
                "deployment changed",
                deployment=record.deployment,
                state=change.state,
                reason=supervised.redaction(change.reason),
            )

    # --- steps ------------------------------------------------------------------------------------

    def _begin(self, look: _Look, action: RunnerAction, order: RunnerOrder | None) -> None:
        number = look.supervised.number
        look.action = action
        look.task = self._parts.tasks.create_task(
            self._act(look, action, order), name=f"{action} {number}"
        )

    async def _act(self, look: _Look, action: RunnerAction, order: RunnerOrder | None) -> None:
        """Carry out a step; what fails is decided on as well."""
        number = look.supervised.number
        try:
            if action is RunnerAction.REMOVE or order is None:
                await look.supervised.remove()
            else:
                await look.supervised.carry_out(action, order)
        except CannotStart as exc:
            record = self._record(number)
            await self._apply(record, decision.failed(record.history, exc, self._steady.now_ns()))
        except BedError as exc:
            log.warning("step failed", deployment=number, action=action, reason=str(exc))
            if action not in _TO_START:
                return  # it is looked at again in a moment
            record, now_ns = self._record(number), self._steady.now_ns()
            await self._apply(record, decision.delayed(record.history, str(exc), now_ns))
        finally:
            look.from_round = self._rounds + 1
        self._parts.woken.set()

    async def _adopt(self, look: _Look, container: Container, order: RunnerOrder) -> None:
        """Go on with a container of a runner before this one."""
        number = look.supervised.number
        try:
            await look.supervised.adopt(container, order)
        except CannotStart as exc:
            record = self._record(number)
            end = endings.of_failure(exc, record.history.phase)
            history = replace(record.history, stopping=end)
            await self._apply(record, DeploymentStep(history=history))
            look.supervised.is_taken_over = True
        except EngineAway as exc:
            log.warning("container was not adopted", deployment=number, reason=str(exc))
            return
        log.info("container was adopted", deployment=number, state=container.state)

    async def _forget(self, number: int, look: _Look) -> None:
        """Drop what is remembered of a deployment that is gone."""
        await look.supervised.close()
        await self.journal.forget(number)
        del self._looks[number]

    def _is_moving(self) -> bool:
        """Whether something is on its way, which is looked at soon."""
        records = self.journal.records.values()
        return any(
            record.history.state in _MOVING
            or record.history.next_start_ns > self._steady.now_ns()
            or record.history.stopping is not None
            for record in records
        )


def _is_to_go_on(order: RunnerOrder | None) -> bool:
    return order is not None and order.item.wanted is not WantedState.STOP


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task])
